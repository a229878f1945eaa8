"""What importing a part of the code loads: vLLM and torch take seconds and hundreds of megabytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VLLM, TORCH, STARLETTE = {"vllm"}, {"vllm", "torch"}, {"vllm", "starlette", "fastapi", "uvicorn"}

MAY_IMPORT_VLLM = (
    "server.engine.client",
    "server.engine.cpu_lora",
    "server.engine.engine",
    "server.engine.http_schemas",
    "server.engine.inspection",
    "server.engine.launch",
    "server.engine.lora_info",
    "server.engine.lora_manager",
    "server.engine.plugin",
    "server.engine.runtime_manager",
    "server.engine.token_charge",
    "server.engine.worker",
    "server.openapi.document",
    "server.openapi.page",
    "server.openapi.schemas",
    "server.serve",
)
"""The engine's frontend, workers, CPU kernels and plugin; `serve`; the OpenAPI document of vLLM's routes."""

FORBIDDEN: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "composition": (
        TORCH | STARLETTE | {"sqlalchemy"},
        (
            "adapters.composition",
            "adapters.composition_grammar",
            "adapters.composition_options",
            "adapters.errors",
            "adapters.fuse_policy",
            "adapters.method_options",
            "adapters.names",
            "adapters.token_prices",
        ),
    ),
    "client": (
        TORCH | STARLETTE | {"sqlalchemy"},
        (
            "server.client.adapters_command",
            "server.client.http",
            "server.client.ask_command",
            "server.client.fuse_command",
        ),
    ),
    "registry": (
        TORCH | STARLETTE,
        (
            "adapters.database",
            "adapters.derived",
            "adapters.integrity",
            "adapters.lineage",
            "adapters.registry",
            "adapters.saved_compositions",
            "adapters.store",
        ),
    ),
    "http": (
        TORCH,
        (
            "server.accounting",
            "server.audit",
            "server.auth",
            "server.errors",
            "server.front",
            "server.generation",
            "server.http_protocol",
            "server.kept",
            "server.logs",
            "server.metrics",
            "server.paths",
            "server.request_body",
            "server.request_id",
            "server.request_log",
            "server.request_metrics",
            "server.state",
            "server.supervisor",
            "server.tenants.access",
            "server.tenants.caller",
            "server.tenants.cli",
            "server.tenants.flood",
            "server.tenants.key_store",
            "server.tenants.keyring",
            "server.tenants.ledger",
            "server.token_charging",
            "server.tracing",
            "server.traffic",
            "server.vllm_errors",
        ),
    ),
    "compositions": (
        TORCH,
        (
            "server.from_request",
            "server.auto_fuse",
            "server.engine.errors",
            "server.engine.spec",
            "server.fusion",
            "server.host_memory",
            "server.merges",
            "server.pipeline",
            "server.residency",
            "server.resolver",
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
