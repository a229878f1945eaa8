"""`lora-compose serve` and `lora-compose ask`. Whatever is slow to import is imported inside the commands."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from adapters.cli_options import DEFAULT_URL, ApiKey, AsJson, Url, echo_json
from adapters.errors import LoraComposeError
from adapters.fuse_settings import Settings
from server.ask import Answer, Question, ask, composition_text, open_client
from server.config import ServerConfig
from server.field_docs import field_docs
from server.logs import LogFormat

DEFAULTS = ServerConfig()
DOCS = field_docs(ServerConfig)
FUSE_DEFAULTS = Settings()
FUSE_DOCS = field_docs(Settings)
VLLM_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

serve_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
ask_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@serve_app.command(context_settings=VLLM_OPTIONS)
def serve(
    context: typer.Context,
    model: Annotated[str, typer.Option(help=DOCS["model"])] = DEFAULTS.model,
    host: Annotated[str, typer.Option(help=DOCS["host"])] = DEFAULTS.host,
    port: Annotated[int, typer.Option(help=DOCS["port"])] = DEFAULTS.port,
    data_dir: Annotated[Path, typer.Option(help=DOCS["data_dir"], metavar="DIR")] = DEFAULTS.data_dir,
    adapter_root: Annotated[
        list[Path] | None, typer.Option(help=f"{DOCS['adapter_roots']} Repeatable.", metavar="DIR")
    ] = None,
    allow_hf: Annotated[bool, typer.Option("--allow-hf", help=DOCS["allow_hf"])] = DEFAULTS.allow_hf,
    strict: Annotated[bool, typer.Option("--strict", help=DOCS["strict"])] = DEFAULTS.strict,
    api_key: Annotated[
        list[str] | None,
        typer.Option(help=f"{DOCS['api_keys']} Repeatable.", envvar="LORA_COMPOSE_API_KEY", metavar="KEY"),
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(help=DOCS["admin_port"], show_default=False)
    ] = DEFAULTS.admin_port,
    admin_host: Annotated[str, typer.Option(help=DOCS["admin_host"])] = DEFAULTS.admin_host,
    hang_seconds: Annotated[float, typer.Option(help=DOCS["hang_seconds"])] = DEFAULTS.hang_seconds,
    log_format: Annotated[LogFormat, typer.Option(help=DOCS["log_format"])] = DEFAULTS.log_format,
    lora_requests_info: Annotated[
        bool, typer.Option("--lora-requests-info", help=DOCS["lora_requests_info"])
    ] = DEFAULTS.lora_requests_info,
    max_adapter_bytes: Annotated[
        int, typer.Option(help=DOCS["max_adapter_bytes"], metavar="BYTES")
    ] = DEFAULTS.max_adapter_bytes,
    auto_fuse: Annotated[bool, typer.Option("--auto-fuse", help=DOCS["auto_fuse"])] = DEFAULTS.auto_fuse,
    fuse_half_life_seconds: Annotated[
        float, typer.Option(help=FUSE_DOCS["half_life_seconds"])
    ] = FUSE_DEFAULTS.half_life_seconds,
    fuse_min_dwell_seconds: Annotated[
        float, typer.Option(help=FUSE_DOCS["min_dwell_seconds"])
    ] = FUSE_DEFAULTS.min_dwell_seconds,
    fuse_margin: Annotated[float, typer.Option(help=FUSE_DOCS["margin"])] = FUSE_DEFAULTS.margin,
    fuse_min_share: Annotated[float, typer.Option(help=FUSE_DOCS["min_share"])] = FUSE_DEFAULTS.min_share,
    fuse_min_tokens: Annotated[float, typer.Option(help=FUSE_DOCS["min_tokens"])] = FUSE_DEFAULTS.min_tokens,
    fuse_budget: Annotated[float, typer.Option(help=FUSE_DOCS["budget"])] = FUSE_DEFAULTS.budget,
) -> None:
    """Serve one base and any number of LoRA adapters behind OpenAI's API.

    Without options it serves the small base that ships with the project, on this machine only.

    - `lora-compose serve`
    - `lora-compose serve --auto-fuse`
    - `lora-compose serve --model org/model --adapter-root ./adapters --max-loras 8 --max-lora-rank 128`

    **Every other option is vLLM's** and goes to it unchanged. Useful ones:

    - `--max-loras` adapters and compositions in use at a time
    - `--max-lora-rank` highest rank, of a stack the sum of its members'
    - `--max-cpu-loras` adapters kept ready in memory
    - `--served-model-name` what requests call the base
    - `--dtype`, `--max-model-len`, `--tensor-parallel-size`
    """
    try:
        config = ServerConfig(
            model=model,
            host=host,
            port=port,
            data_dir=data_dir,
            adapter_roots=tuple(adapter_root or DEFAULTS.adapter_roots),
            allow_hf=allow_hf,
            strict=strict,
            api_keys=tuple(api_key or DEFAULTS.api_keys),
            admin_port=admin_port,
            admin_host=admin_host,
            hang_seconds=hang_seconds,
            log_format=log_format,
            lora_requests_info=lora_requests_info,
            max_adapter_bytes=max_adapter_bytes,
            auto_fuse=auto_fuse,
            fuse_settings=Settings(
                fuse_half_life_seconds,
                fuse_min_dwell_seconds,
                fuse_margin,
                fuse_min_share,
                fuse_min_tokens,
                fuse_budget,
            ),
        )
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if find_spec("vllm") is None:
        raise LoraComposeError("vllm_missing", "vLLM is not installed: install the extra `cpu` or `gpu`")
    from server.serve import run

    run(config, context.args)


@ask_app.command("ask")
def ask_command(
    prompt: Annotated[str, typer.Argument(help="What to say, or `-` to read it from stdin.")],
    adapters: Annotated[
        str | None, typer.Option(help="A composition; without one the base answers.", metavar="COMPOSITION")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Merge the adapters: linear, svd, ties, dare_linear, dare_ties, magnitude_prune."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the merge.")] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of each delta's entries a sparse method keeps.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message to put in front.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = Question.max_tokens,
    temperature: Annotated[
        float, typer.Option(help="0 gives the same answer every time.")
    ] = Question.temperature,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question; the answer is printed as it comes.

    - `lora-compose ask "roll table"`
    - `lora-compose ask "roll table" --adapters roll:0.7+upper`
    - `lora-compose ask "roll table" --adapters roll+upper --method svd --rank 8`
    """
    model = None if adapters is None else composition_text(adapters, method, rank, density)
    if adapters is None and method is not None:
        raise typer.BadParameter("--method needs --adapters")
    text = sys.stdin.read() if prompt == "-" else prompt
    question = Question(text, model, system, max_tokens, temperature)
    with open_client(url, api_key) as client:
        answer = ask(client, question, _ignore if as_json else _write)
    if as_json:
        echo_json(answer.to_dict())
    else:
        typer.echo()
        typer.secho(_summary(answer), err=True, dim=True)


def _ignore(_: str) -> None:
    pass


def _write(piece: str) -> None:
    typer.echo(piece, nl=False)


def _summary(answer: Answer) -> str:
    """What answered and how fast, in one line."""
    parts = [answer.model]
    if answer.usage is not None:
        parts.append(f"{answer.usage['completion_tokens']} tokens")
    if answer.time_to_first_token is not None:
        parts.append(f"first after {answer.time_to_first_token * 1000:.0f} ms")
    if answer.tokens_per_second is not None:
        parts.append(f"{answer.tokens_per_second:.0f} tokens/s")
    if answer.finish_reason == "length":
        parts.append("cut off at --max-tokens")
    return " | ".join(parts)
