"""What importing a part of the code loads: vLLM and torch take seconds and hundreds of megabytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VLLM, TORCH, STARLETTE = {"vllm"}, {"vllm", "torch"}, {"vllm", "starlette", "fastapi", "uvicorn"}

MAY_IMPORT_VLLM = (
    "lora_compose.server.engine.frontend.client",
    "lora_compose.server.engine.cpu.punica_wrapper",
    "lora_compose.server.engine.frontend.engine",
    "lora_compose.server.engine.frontend.api_types",
    "lora_compose.server.engine.frontend.inspection",
    "lora_compose.server.engine.frontend.launch",
    "lora_compose.server.engine.frontend.lora_requests_info",
    "lora_compose.server.engine.worker.lora_manager",
    "lora_compose.server.engine.plugin",
    "lora_compose.server.engine.worker.runtime_weights",
    "lora_compose.server.engine.frontend.token_accounting",
    "lora_compose.server.engine.worker.extension",
    "lora_compose.server.api.openapi_document",
    "lora_compose.server.openapi_page",
    "lora_compose.server.api.openapi_document",
    "lora_compose.server.serve",
)
"""The engine's frontend, workers, CPU kernels and plugin; `serve`; the OpenAPI document of vLLM's routes."""

FORBIDDEN: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "composition": (
        TORCH | STARLETTE | {"sqlalchemy"},
        (
            "lora_compose.adapters.composition.composition",
            "lora_compose.adapters.composition.grammar",
            "lora_compose.adapters.composition.composition",
            "lora_compose.adapters.errors",
            "lora_compose.server.fusion.policy",
            "lora_compose.adapters.composition.composition",
            "lora_compose.adapters.names",
            "lora_compose.server.fusion.token_prices",
        ),
    ),
    "client": (
        TORCH | STARLETTE | {"sqlalchemy"},
        (
            "lora_compose.server.client.adapters_command",
            "lora_compose.server.client.http",
            "lora_compose.server.client.ask_command",
            "lora_compose.server.client.fuse_command",
        ),
    ),
    "registry": (
        TORCH | STARLETTE,
        (
            "lora_compose.adapters.registry.database",
            "lora_compose.adapters.registry.merge_cache",
            "lora_compose.adapters.registry.integrity",
            "lora_compose.adapters.registry.lineage",
            "lora_compose.adapters.registry.registry",
            "lora_compose.adapters.registry.saved_compositions",
            "lora_compose.adapters.registry.store",
        ),
    ),
    "http": (
        TORCH,
        (
            "lora_compose.server.generation.accounting",
            "lora_compose.server.tenants.audit",
            "lora_compose.server.tenants.middleware",
            "lora_compose.server.errors",
            "lora_compose.server.supervision.app_switch",
            "lora_compose.server.generation.endpoint",
            "lora_compose.server.http.connection",
            "lora_compose.server.supervision.engine_state",
            "lora_compose.server.http.logs",
            "lora_compose.server.metrics",
            "lora_compose.server.paths",
            "lora_compose.server.http.body",
            "lora_compose.server.http.request_id",
            "lora_compose.server.http.access_log",
            "lora_compose.server.http.request_metrics",
            "lora_compose.server.state",
            "lora_compose.server.supervision.supervisor",
            "lora_compose.server.tenants.access",
            "lora_compose.server.tenants.caller",
            "lora_compose.server.tenants.cli",
            "lora_compose.server.tenants.refusal_delay",
            "lora_compose.server.tenants.key_store",
            "lora_compose.server.tenants.keyring",
            "lora_compose.server.tenants.quotas",
            "lora_compose.server.tenants.token_charging",
            "lora_compose.server.http.tracing",
            "lora_compose.server.http.benchmark_traffic",
            "lora_compose.server.generation.vllm_errors",
        ),
    ),
    "compositions": (
        TORCH,
        (
            "lora_compose.server.compositions.from_request",
            "lora_compose.server.auto_fuse",
            "lora_compose.server.engine.errors",
            "lora_compose.server.engine.spec",
            "lora_compose.server.fusion.switch",
            "lora_compose.server.residency.cache",
            "lora_compose.server.compositions.merges",
            "lora_compose.server.pipeline",
            "lora_compose.server.residency.scheduler",
            "lora_compose.server.compositions.resolver",
        ),
    ),
}
"""By group: the libraries that none of its modules may load, and the modules."""


def modules(room: str) -> list[str]:
    """Every module of a top-level package."""
    paths = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / room).rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def loaded_by(names: list[str]) -> set[str]:
    """The top-level packages that a fresh interpreter has after importing all of these."""
    program = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    command = [sys.executable, "-c", program, json.dumps(names)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("group", FORBIDDEN)
def test_a_group_does_not_load_what_it_has_no_use_for(group: str) -> None:
    libraries, names = FORBIDDEN[group]
    assert loaded_by(list(names)) & libraries == set()


def test_no_module_of_adapters_loads_vllm_or_starlette() -> None:
    assert loaded_by(modules("adapters")) & (STARLETTE | VLLM) == set()


def test_only_what_starts_an_engine_loads_vllm() -> None:
    rest = [name for name in modules("server") if name not in MAY_IMPORT_VLLM]
    assert loaded_by(rest) & VLLM == set()
