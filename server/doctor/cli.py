"""`lora-compose doctor`: finds problems, and says how to fix them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lora_compose.adapters.command_line import ApiKey, AsJson, DataDir, default_data_dir, echo_json
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.terminal import progress_bar, stdout
from lora_compose.server.config import EMBEDDED_BASE, ServerConfig
from lora_compose.server.doctor import adapter as adapter_checks
from lora_compose.server.doctor import data_directory, installation, machine, running_server
from lora_compose.server.doctor import model as model_checks
from lora_compose.server.doctor import registry as registry_checks
from lora_compose.server.doctor.check import Check, Result, examine


def doctor(
    model: Annotated[
        Path | None,
        typer.Option(
            help="A model directory, or a name of `lora-compose models list`. The default is the base that "
            "ships with lora-compose.",
            metavar="DIR",
        ),
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="An adapter directory to check against --model. Repeatable.", metavar="DIR"),
    ] = None,
    data_dir: DataDir = None,
    url: Annotated[str | None, typer.Option(help="A running server to check as well.", metavar="URL")] = None,
    api_key: ApiKey = None,
    port: Annotated[int, typer.Option(help="The port that the server will use.")] = ServerConfig.port,
    max_lora_rank: Annotated[
        int, typer.Option(min=1, help="The --max-lora-rank that the server will use.")
    ] = 64,
    as_json: AsJson = False,
) -> None:
    """Check the installation, machine, model, adapters, registry and server, and say how to fix problems.

    Nothing is changed and nothing is started. The exit code is 1 if any check failed.

    - `lora-compose doctor` checks this installation, the shipped base and the default registry
    - `lora-compose doctor --model ./llama --adapter ./sql --adapter ./polite` before you serve them
    - `lora-compose doctor --data-dir /var/lib/lora-compose` compares every stored file with its digest
    - `lora-compose doctor --url http://127.0.0.1:8000 --json` for scripts
    """
    base = EMBEDDED_BASE if model is None else Path(resolve(str(model)))
    checks = [
        *installation.checks(),
        *machine.checks(port),
        *model_checks.checks(base),
        *(check for path in adapter or [] for check in adapter_checks.checks(path, base, max_lora_rank)),
        *data_directory.checks(data_dir or default_data_dir()),
        *registry_checks.checks(data_dir or default_data_dir(), base),
        *(running_server.checks(url, api_key) if url else []),
    ]
    results = examine_all(checks)
    is_ok = all(result.status != "fail" for result in results)
    if as_json:
        echo_json({"ok": is_ok, "checks": [result.to_dict() for result in results]})
    else:
        from lora_compose.server.doctor.check import summary, table

        stdout().print(table(results))
        typer.echo(summary(results))
    raise typer.Exit(0 if is_ok else 1)


def examine_all(checks: list[Check]) -> list[Result]:
    """Run the checks in order, with progress on stderr: vLLM or a large registry takes seconds to load."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    results = []
    with progress_bar("checks") as step:
        for number, check in enumerate(checks):
            step(number, len(checks), f"{check.section}: {check.name}")
            results.append(examine(check))
    return results


if __name__ == "__main__":
    typer.run(doctor)
