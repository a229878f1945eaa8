from argparse import Namespace

import pytest
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser

from lora_compose.benchmarks.servers import EMBEDDED_BASE, direct_command, engine_options, stock_command
from lora_compose.server.config import EMBEDDED_OPTIONS, ServerConfig
from lora_compose.server.engine.frontend.launch import parse_vllm_args
from lora_compose.server.serve import vllm_namespace

WORKER_EXTENSION = "lora_compose.server.engine.worker.extension.CompositionWorkerExtension"


@pytest.fixture(autouse=True)
def same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of KV caches depend on the memory that is free, which changes from one call to the next."""
    monkeypatch.setattr("lora_compose.server.memory.free_memory", lambda: 8 << 30)


def as_text(options: Namespace) -> dict[str, object]:
    """Options with classes by their full names, which is how a command line says them."""
    return {
        name: f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value
        for name, value in vars(options).items()
    }


def test_vllms_app_is_compared_with_the_engine_options_that_serve_gives_it() -> None:
    parser = make_arg_parser(FlexibleArgumentParser())
    direct = parser.parse_args(engine_options(str(EMBEDDED_BASE), current_platform.is_cpu()))
    assert as_text(direct) == as_text(vllm_namespace(ServerConfig(), []))


def test_another_base_gets_none_of_the_embedded_ones_options() -> None:
    parser = make_arg_parser(FlexibleArgumentParser())
    direct = parser.parse_args(engine_options("org/model", current_platform.is_cpu()))
    assert as_text(direct) == as_text(parse_vllm_args(["--model", "org/model"]))


def test_the_users_options_come_last_so_that_they_win() -> None:
    command = direct_command(1, str(EMBEDDED_BASE), on_cpu=True, options=["--max-loras", "2"])
    assert command[-2:] == ["--max-loras", "2"]
    assert set(EMBEDDED_OPTIONS) <= set(command)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_stock_vllm_gets_the_options_of_the_machine_it_runs_on(on_cpu: bool) -> None:
    direct = direct_command(1, "org/model", on_cpu, options=[])
    stock = stock_command(1, "org/model", on_cpu)
    assert ("--enforce-eager" in stock) == on_cpu
    assert set(direct) - set(stock) == {"--worker-extension-cls", WORKER_EXTENSION}
