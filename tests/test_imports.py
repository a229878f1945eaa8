"""What importing a part of the code loads: vLLM and torch take seconds and hundreds of megabytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "lora_compose."
VLLM, TORCH, STARLETTE = {"vllm"}, {"vllm", "torch"}, {"vllm", "starlette", "fastapi", "uvicorn"}

MAY_LOAD_VLLM = (
    "server.engine.cpu",
    "server.engine.device",
    "server.engine.frontend",
    "server.engine.plugin",
    "server.engine.worker",
    # The OpenAPI document takes the schemas of vLLM's routes from vLLM.
    "server.api.openapi_document",
    "server.openapi_page",
)

FORBIDDEN: dict[tuple[str, ...], set[str]] = {
    (
        "adapters.errors",
        "adapters.names",
        "adapters.validation",
        "adapters.composition",
        "server.fusion.policy",
        "server.fusion.token_prices",
    ): TORCH | STARLETTE | {"sqlalchemy"},
    ("server.options",): TORCH | STARLETTE | {"sqlalchemy"},
    ("server.client",): TORCH | STARLETTE | {"sqlalchemy"},
    ("adapters.registry",): TORCH | STARLETTE,
    (
        "server.errors",
        "server.metrics",
        "server.paths",
        "server.state",
        "server.http",
        "server.tenants",
        "server.generation",
        "server.supervision",
    ): TORCH,
    (
        "server.engine.errors",
        "server.engine.kernel_choice",
        "server.engine.spec",
        "server.compositions",
        "server.residency",
        "server.fusion",
        "server.pipeline",
        "server.auto_fuse",
    ): TORCH,
}
"""Packages and modules, and the libraries that none of them may load."""

RUN_BY_ALEMBIC_ONLY = "adapters.registry.migrations.env"


def modules(*prefixes: str) -> list[str]:
    """Every module in these packages, or these modules."""
    found = []
    for prefix in prefixes:
        place = ROOT.joinpath(*prefix.split("."))
        paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
        found += [name.removesuffix(".__init__") for name in names]
    return [name for name in found if name != RUN_BY_ALEMBIC_ONLY]


def loaded_by(names: list[str]) -> set[str]:
    """The top-level packages that a fresh interpreter has after importing all of these."""
    program = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    command = [sys.executable, "-c", program, json.dumps([NAMESPACE + name for name in names])]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("places", FORBIDDEN, ids=lambda places: places[0])
def test_a_package_does_not_load_libraries_that_it_does_not_use(places: tuple[str, ...]) -> None:
    assert loaded_by(modules(*places)) & FORBIDDEN[places] == set()


def test_no_module_of_adapters_loads_vllm_or_starlette() -> None:
    assert loaded_by(modules("adapters")) & STARLETTE == set()


def test_only_what_starts_an_engine_loads_vllm() -> None:
    may = set(modules(*MAY_LOAD_VLLM))
    assert loaded_by([name for name in modules("server") if name not in may]) & VLLM == set()
