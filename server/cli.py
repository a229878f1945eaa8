"""`lora-compose serve`. Modules that are slow to import are imported inside the command."""

from importlib.util import find_spec

import typer

from lora_compose.adapters.dataclass_options import options_from
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.server.config import ServerConfig

VLLM_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

serve_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@serve_app.command(context_settings=VLLM_OPTIONS)
@options_from(ServerConfig)
def serve(context: typer.Context, config: ServerConfig) -> None:
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
    if find_spec("vllm") is None:
        raise LoraComposeError(
            CommandCode.VLLM_MISSING, "vLLM is not installed: install the extra `cpu` or `gpu`"
        )
    from lora_compose.server.serve import run

    run(config, context.args)
