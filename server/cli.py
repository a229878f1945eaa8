"""The command `lora-compose serve`. It imports slow modules inside the function."""

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
    """Serve one base model and any number of LoRA adapters over the OpenAI API.

    Without options, the server uses the small base of this project and listens on this machine only.

    - `lora-compose serve`
    - `lora-compose serve --auto-fuse`
    - `lora-compose serve --model org/model --adapter-root ./adapters --max-loras 8 --max-lora-rank 128`

    **Every other option is passed on to vLLM unchanged.** Useful ones:

    - `--max-loras`: number of adapters and compositions in use at the same time
    - `--max-lora-rank`: highest rank of an adapter; the rank of a stack is the sum of its members' ranks
    - `--max-cpu-loras`: number of adapters kept ready in host memory
    - `--served-model-name`: the name of the base in requests
    - `--dtype`, `--max-model-len`, `--tensor-parallel-size`
    """
    if find_spec("vllm") is None:
        raise LoraComposeError(
            CommandCode.VLLM_MISSING, "vLLM is not installed. Install the extra `cpu` or `gpu`."
        )
    from lora_compose.server.serve import run

    run(config, context.args)
