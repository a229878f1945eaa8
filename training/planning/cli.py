"""`lora-compose train plan`: the memory training takes, and which cards have it, before anything is run."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from adapters.cli_options import AsJson, echo_json
from training.planning.known_models import KNOWN_MODELS
from training.planning.settings import ALL_LINEAR, OPTIMIZERS, Attention, DType, Method, Settings

DEFAULTS = Settings()


def plan(
    model: Annotated[
        str, typer.Option(help=f"A model directory, a config.json, a hub id, or {', '.join(KNOWN_MODELS)}.")
    ],
    method: Annotated[
        Method, typer.Option(help="What is trained, and how the base is held.")
    ] = DEFAULTS.method,
    seq_len: Annotated[int, typer.Option(help="Tokens a row.")] = DEFAULTS.seq_len,
    batch: Annotated[int, typer.Option(help="Rows a step on one card.")] = DEFAULTS.batch,
    rank: Annotated[int, typer.Option("--rank", "--r", help="Rank of the adapter.")] = DEFAULTS.rank,
    target_modules: Annotated[str, typer.Option(help="Layers that are adapted, by commas.")] = ALL_LINEAR,
    lora_dropout: Annotated[float, typer.Option(help="Any at all keeps a copy of each input.")] = 0.0,
    optimizer: Annotated[str, typer.Option("--optimizer", "--optim", help=", ".join(OPTIMIZERS))] = (
        DEFAULTS.optimizer
    ),
    gradient_checkpointing: Annotated[bool, typer.Option(help="Compute each block's forward twice.")] = True,
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Of weights that are not quantized; float32 for full, else bfloat16.", show_default=False
        ),
    ] = None,
    compute_dtype: Annotated[DType, typer.Option(help="Of the arithmetic.")] = DEFAULTS.compute_dtype,
    double_quant: Annotated[bool, typer.Option(help="Quantize the quantization constants too.")] = True,
    attention: Annotated[Attention, typer.Option(help="eager keeps all probabilities.")] = DEFAULTS.attention,
    full_logits: Annotated[
        bool, typer.Option("--full-logits", help="A loss over all logits at once; TRL's works in tiles.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say how much memory a training step needs, from the model's config alone, and which GPUs have it.

    - `lora-compose train plan --model llama-3-70b` QLoRA of 70B: 48 GB, and never one card of 24 GB
    - `lora-compose train plan --model llama-3-8b --method lora --seq-len 4096 --batch 2`
    - `lora-compose train plan --model ./my-model --method full --optimizer paged_adamw_8bit --json`

    Nothing is downloaded but the config of a hub id, and nothing is built. docs/planning.md has the formulas,
    and how far they are from memory that was measured.
    """
    settings = Settings(
        method=method,
        seq_len=seq_len,
        batch=batch,
        rank=rank,
        target_modules=tuple(name.strip() for name in target_modules.split(",")),
        lora_dropout=lora_dropout,
        optimizer=optimizer,
        gradient_checkpointing=gradient_checkpointing,
        dtype=dtype,
        compute_dtype=compute_dtype,
        double_quant=double_quant,
        attention=attention,
        full_logits=full_logits,
    )
    _show(model, settings, as_json)


def _show(model: str, settings: Settings, as_json: bool) -> None:
    from training.planning.plan_table import plan_view
    from training.planning.reading import read_shape

    screen = Console(stderr=True)
    with screen.status("reading the config"):
        shape = read_shape(model)
    if as_json:
        echo_json(plan_facts(model, settings))
        return
    Console().print(plan_view(model, shape, settings))


def plan_facts(model: str, settings: Settings) -> dict[str, Any]:
    """What `--json` prints: bytes by part, the cards, the grid and the advice."""
    from training.planning.advice import advise, fits
    from training.planning.memory import memory_of, trained_parameters
    from training.planning.plan_table import grid
    from training.planning.reading import read_shape

    shape = read_shape(model)
    memory = memory_of(shape, settings)
    return {
        "model": model,
        "model_type": shape.model_type,
        "parameters": shape.parameters,
        "trained_parameters": trained_parameters(shape, settings)[0],
        "settings": asdict(settings),
        "bytes": memory.parts() | {"total": memory.total},
        "cards": [
            asdict(fit.card) | {"spare": round(fit.spare, 2), "fits": fit.verdict} for fit in fits(memory)
        ],
        "grid": [{"seq_len": s, "batch": b, "total": m.total} for s, b, m in grid(shape, settings)],
        "advice": advise(shape, settings),
    }


app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
app.command("plan")(plan)

if __name__ == "__main__":
    app()
