"""Imports between packages go one way, and each package shows only a few of its modules to others.

Imports under `if TYPE_CHECKING:` are left out: they are not there when the program runs.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "lora_compose."
TOP = ("adapters", "server", "training", "benchmarks")

ORDER = (
    "adapters.errors",
    "adapters.names",
    "adapters.validation",
    "adapters.strict_json",
    "adapters.safe_files",
    "adapters.dataclass_options",
    "adapters.terminal",
    "adapters.command_line",
    "adapters.console",
    "adapters.models",
    "adapters.composition",
    "adapters.peft",
    "adapters.merging",
    "adapters.admission",
    "adapters.registry",
    "adapters.export",
    "adapters.convert",
    "adapters.cli",
    "server.client",
    "server.paths",
    "server.versions",
    "server.memory",
    "server.cpu_defaults",
    "server.model_files",
    "server.home",
    "server.options",
    "server.engine",
    "server.not_offered",
    "server.errors",
    "server.metrics",
    "server.http",
    "server.playground",
    "server.tenants",
    "server.engine.cpu",
    "server.engine.device",
    "server.engine.worker",
    "server.engine.frontend",
    "server.compositions",
    "server.residency",
    "server.fusion",
    "server.config",
    "server.preflight",
    "server.process_end",
    "server.pipeline",
    "server.auto_fuse",
    "server.benchmarks",
    "server.generation",
    "server.translations",
    "server.registration",
    "server.retention",
    "server.preloading",
    "server.state",
    "server.api",
    "server.supervision",
    "server.app",
    "server.assembly",
    "server.uvicorn_server",
    "server.serve",
    "server.doctor",
    "server.openapi_page",
    "server.cli",
    "training.data",
    "training.evaluation.judges",
    "training.evaluation",
    "training.general",
    "training.planning",
    "training.tuning",
    "training",
    "training.testbed",
    "training.testbed.smollm2",
    "training.testbed.demo",
    "training.testbed.quality",
    "benchmarks",
    "benchmarks.llamacpp",
    "benchmarks.serving.results",
    "benchmarks.serving.report",
    "benchmarks.serving",
    "benchmarks.studies",
    "benchmarks.crosscheck",
    "benchmarks.auto_fuse",
    "benchmarks.gpu",
)
"""From the bottom up: packages, and modules of `adapters` and `server`. Each imports only earlier ones."""

OTHER_TOP: dict[str, dict[str, set[str] | None]] = {
    "adapters": {},
    "server": {"adapters": None},
    "training": {"adapters": None, "server": {"server.client"}},
    "benchmarks": {
        "adapters": None,
        "server": {
            "server.client",
            "server.cpu_defaults",
            "server.fusion.policy",
            "server.fusion.token_prices",
            "server.memory",
        },
    },
}
"""What a top-level package may import of the others: all of it (None), or these packages and modules."""

FACES: dict[str, set[str]] = {
    "adapters.composition": {"composition", "grammar"},
    "adapters.peft": {
        "base_weights",
        "checkpoint",
        "config",
        "contents",
        "dora",
        "files",
        "module_matching",
        "tensor_names",
    },
    "adapters.merging": {"advice", "interference", "merge", "report"},
    "adapters.models": {"cache", "cli"},
    "adapters.admission": {"admit", "base_model", "fingerprint", "recognition", "tensors"},
    "adapters.registry": {
        "data_dir",
        "database",
        "description",
        "lineage",
        "registry",
        "saved_compositions",
        "store",
        "versions",
    },
    "server.client": {"chat", "http", "process", "tied"},
    "server.engine": {"errors", "kernel_choice", "plugin", "spec", "start_failure"},
    "server.http": {
        "access_log",
        "anthropic_errors",
        "benchmark_traffic",
        "body",
        "connection",
        "harmless_lines",
        "logs",
        "pace",
        "request_metrics",
        "stack",
        "tls",
        "tracing",
    },
    "server.playground": {"site"},
    "server.options": {"catalogue", "command_line", "environment", "http_options", "lora_modules", "page"},
    "server.tenants": {"access", "audit", "caller", "key_store", "keyring", "middleware", "token_charging"},
    "server.engine.cpu": {
        "batch",
        "cost_meter",
        "embedding_layers",
        "packed_factors",
        "plans",
        "punica_wrapper",
        "row_terms",
    },
    "server.engine.device": {"layer_pool", "punica_wrapper", "rank_pool", "trial"},
    "server.engine.worker": {"folding"},
    "server.engine.frontend": {
        "api_types",
        "early_process",
        "environment",
        "inspection",
        "launch",
        "loading",
        "watchdog",
    },
    "server.compositions": {
        "early_builds",
        "foreign_fields",
        "from_request",
        "merges",
        "numbers",
        "resolver",
        "servable",
        "served_bases",
        "warnings",
    },
    "server.residency": {"cache", "scheduler"},
    "server.fusion": {"policy", "switch", "token_prices"},
    "server.benchmarks": {"plan", "runs"},
    "server.generation": {
        "accounting",
        "endpoint",
        "offered",
        "stored_responses",
        "translation",
        "vllm_errors",
    },
    "server.translations": {
        "client_shape",
        "error_shapes",
        "ollama_reply",
        "ollama_request",
        "tgi_request",
    },
    "server.api": {
        "adapters",
        "benchmarks",
        "compositions",
        "docs_page",
        "error_codes",
        "fusion",
        "health",
        "lora_adapters",
        "models",
        "ollama",
        "openapi",
        "openapi_document",
        "operations",
        "residency",
        "stored_responses",
        "tgi",
        "vllm_adapters",
        "vllm_info",
    },
    "server.supervision": {"app_switch", "background", "supervisor"},
    "training.data": {
        "errors",
        "jsonl_output",
        "labels",
        "messages",
        "mixing",
        "quiet_logs",
        "rows",
        "unpaired",
    },
    "training.evaluation.judges": {"json_values", "judge", "named", "question"},
    "training.evaluation": {
        "held_out_text",
        "intervals",
        "likelihood",
        "models",
        "requirements",
        "scores",
        "served_chat",
        "tasks",
    },
    "training.general": {"cli", "replay"},
    "training.planning": {"cli", "memory", "models", "settings"},
    "training.tuning": {"cli", "tune", "weight_search"},
    "training.testbed": {
        "corpus",
        "language",
        "measure",
        "merged_base",
        "mixtures",
        "paths",
        "subject",
        "train_adapters",
    },
    "training.testbed.smollm2": {"forms", "paths", "subject"},
    "training.testbed.demo": {"table"},
    "benchmarks.llamacpp": {"files", "layouts", "server", "vocabulary"},
    "benchmarks.serving.results": {
        "advice",
        "beside",
        "comparison",
        "crossovers",
        "document",
        "metrics",
        "noise",
        "plan",
        "summary",
    },
    "benchmarks.serving.report": {"report", "tables"},
    "benchmarks.serving": {"load"},
}
"""The modules that a package shows to the others."""

FORBIDDEN_LIBRARIES = {
    "adapters": {"vllm", "starlette", "fastapi", "uvicorn", "httpx", "trl"},
    "server": {"trl", "datasets"},
    "training": {"vllm", "starlette", "fastapi"},
    "benchmarks": {"vllm", "starlette", "fastapi", "trl"},
}
MAY_IMPORT_VLLM = ("server.engine", "benchmarks.gpu")


def files(top: str) -> list[Path]:
    return sorted((ROOT / top).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def unit_of(module: str) -> str:
    """The entry of ORDER that a module belongs to."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(name for name in names if name in ORDER)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports when it runs, also inside functions."""
    tree = ast.parse(path.read_text())
    only_for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            modules = [name for name in names if is_module(name)]
            yield from modules or [node.module]


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.removeprefix(NAMESPACE).split("."))
    return name.startswith(NAMESPACE) and (path.is_dir() or path.with_suffix(".py").is_file())


def arrows(top: str) -> Iterator[tuple[str, str]]:
    """(importing module, imported module), both without the namespace, across units."""
    for path in files(top):
        for name in imports(path):
            source, target = module_of(path), name.removeprefix(NAMESPACE)
            if name.startswith(NAMESPACE) and unit_of(source) != unit_of(target):
                yield source, target


def is_below(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("top", TOP)
def test_imports_follow_the_order(top: str) -> None:
    against = [
        f"{source} imports {target}"
        for source, target in arrows(top)
        if ORDER.index(unit_of(source)) < ORDER.index(unit_of(target))
    ]
    assert against == []


@pytest.mark.parametrize("top", TOP)
def test_a_top_level_package_imports_only_the_faces_of_others(top: str) -> None:
    wrong = []
    for source, target in arrows(top):
        other = target.partition(".")[0]
        if other == top or is_below(source, {"benchmarks.gpu"}):
            continue
        allowed = OTHER_TOP[top].get(other, set())
        if allowed is not None and not is_below(target, allowed):
            wrong.append(f"{source} imports {target}")
    assert wrong == []


@pytest.mark.parametrize("package", FACES)
def test_a_package_shows_only_its_face(package: str) -> None:
    shown = {
        target.removeprefix(f"{package}.").partition(".")[0]
        for top in TOP
        for source, target in arrows(top)
        if unit_of(target) == package and target != package and not is_below(source, {"benchmarks.gpu"})
    }
    assert shown == FACES[package]


def test_every_package_is_in_the_order() -> None:
    packages = {module_of(path) for top in TOP for path in files(top) if path.name == "__init__.py"}
    inner = {"adapters.registry.migrations", "adapters.registry.migrations.versions"}
    gpu = {name for name in packages if name.startswith("benchmarks.gpu.")}
    assert packages - inner - gpu - {"adapters", "server"} <= set(ORDER)


@pytest.mark.parametrize("top", TOP)
def test_a_package_imports_no_library_that_it_has_no_use_for(top: str) -> None:
    for path in files(top):
        libraries = {name.partition(".")[0] for name in imports(path)} & FORBIDDEN_LIBRARIES[top]
        assert not libraries or is_below(module_of(path), {"benchmarks.gpu"}), path


@pytest.mark.parametrize("top", TOP)
def test_vllm_is_imported_by_the_engine_only(top: str) -> None:
    for path in files(top):
        if not is_below(module_of(path), set(MAY_IMPORT_VLLM)):
            assert "vllm" not in {name.partition(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize("top", TOP)
def test_a_file_is_named_after_what_it_does(top: str) -> None:
    assert not {path.stem for path in files(top)} & {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("top", TOP)
def test_every_package_says_what_lives_in_it(top: str) -> None:
    for path in files(top):
        if path.name == "__init__.py" and "migrations" not in path.parts:
            assert ast.get_docstring(ast.parse(path.read_text())), path
