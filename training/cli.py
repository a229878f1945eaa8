"""`lora-compose train`: train adapters from a recipe and register them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_compose.adapters.command_line import ANY_ARGUMENTS, ApiKey, AsJson, echo_json
from lora_compose.adapters.terminal import chatter_on_stderr, stderr, stdout
from lora_compose.training.first_recipe_cli import init
from lora_compose.training.general.cli import replay, suite
from lora_compose.training.planning.cli import plan
from lora_compose.training.recipe_defaults import Method
from lora_compose.training.recipe_help import RecipeCommand
from lora_compose.training.tuning.cli import weights

if TYPE_CHECKING:
    from lora_compose.training.run import FinishedRun

app = typer.Typer(
    name="train",
    help="Train adapters with TRL, PEFT and bitsandbytes, and score what they learn and what they forget.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

app.command("plan")(plan)

RecipeFile = Annotated[
    Path,
    typer.Argument(
        help="A YAML file with options of TRL, PEFT and lora-compose.", metavar="RECIPE", show_default=False
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in output_dir.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="Start even if something would spoil the run. It is recorded in run.json."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the run in output_dir and start again.")]


@app.command(cls=RecipeCommand, context_settings=ANY_ARGUMENTS)
def sft(
    context: typer.Context,
    recipe: RecipeFile,
    resume: Resume = False,
    overwrite: Overwrite = False,
    force: Force = False,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Supervised fine-tuning on pairs of instruction and answer, or on conversations.

    Every field of TRL's SFTConfig and ModelConfig is also an option here, such as `--learning-rate`. An
    option overrides the recipe.

    - `lora-compose train sft training/recipes/sft-lora.yaml`
    - `lora-compose train sft training/recipes/sft-lora.yaml --lora-r 4 --output-dir runs/r4`
    - `lora-compose train sft training/recipes/sft-lora.yaml --publish roll --publish-url http://127.0.0.1:8000
      --alias prod --require "domain>=0.9,forgetting<=0.02"`
    """
    flags = {"resume": resume, "overwrite": overwrite, "force": force}
    _train("sft", recipe, context.args, flags, api_key, as_json)


@app.command(cls=RecipeCommand, context_settings=ANY_ARGUMENTS)
def dpo(
    context: typer.Context,
    recipe: RecipeFile,
    resume: Resume = False,
    overwrite: Overwrite = False,
    force: Force = False,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Direct preference optimization on rows of prompt, chosen and rejected.

    Start from an adapter that can already generate the chosen answers (`init_adapter`). From the base alone,
    DPO reaches a high reward accuracy, but the model loses the skill.

    - `lora-compose train dpo training/recipes/dpo.yaml --init-adapter runs/roll/adapter`
    """
    flags = {"resume": resume, "overwrite": overwrite, "force": force}
    _train("dpo", recipe, context.args, flags, api_key, as_json)


@app.command(cls=RecipeCommand, context_settings=ANY_ARGUMENTS)
def kto(
    context: typer.Context,
    recipe: RecipeFile,
    resume: Resume = False,
    overwrite: Overwrite = False,
    force: Force = False,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Learn from single answers that are marked as good or bad (KTO, arXiv:2402.01306).

    The mark is a column such as `label` with true and false, 1 and 0, good and bad or 👍 and 👎, or a rating
    with `--good-from`. Good and bad answers are balanced by their numbers, unless desirable_weight or
    undesirable_weight is set. Start from an adapter that can already generate the good answers
    (`init_adapter`).

    - `lora-compose train kto training/recipes/kto.yaml --init-adapter runs/roll-undecided/adapter`
    - `lora-compose train kto my.yaml --domain feedback.csv --label-column stars --good-from 4`
    """
    flags = {"resume": resume, "overwrite": overwrite, "force": force}
    _train("kto", recipe, context.args, flags, api_key, as_json)


app.command("init")(init)


def _values(text: str | None) -> list[str]:
    return [value.strip() for value in text.split(",") if value.strip()] if text else []


@app.command(context_settings=ANY_ARGUMENTS)
def sweep(
    context: typer.Context,
    recipe: RecipeFile,
    output: Annotated[Path, typer.Option(help="Directory for the runs and the report.", metavar="DIR")],
    ratios: Annotated[
        str | None, typer.Option(help="Ratios GENERAL:DOMAIN, separated by commas.", metavar="0:1,2:8,5:5")
    ] = None,
    ranks: Annotated[
        str | None, typer.Option(help="Values of lora_r, separated by commas.", metavar="4,8,16")
    ] = None,
    learning_rates: Annotated[
        str | None, typer.Option(help="Values of learning_rate, separated by commas.", metavar="1e-3,2e-3")
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            help="Recommend only runs whose scores meet this requirement; by default forgetting<=0.02 if the "
            "recipe has general_tasks."
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="Training method of the recipe.")] = "sft",
    as_json: AsJson = False,
) -> None:
    """Train one recipe with several data ratios, ranks and learning rates, and recommend the best run.

    The recommended run has the best domain score among the runs that meet the goal. With general_tasks, the
    report also plots the general score against the domain score and marks the Pareto front. If a sweep is
    interrupted, run the same command again: finished runs are not trained again.

    - `lora-compose train sweep training/recipes/sft-lora.yaml --ratios 0:1,1:9,2:8,5:5 --output runs/sweep`
    """
    import json

    from lora_compose.training.data.quiet_logs import quiet_libraries

    quiet_libraries()
    from lora_compose.training.sweep import SweepPlan, default_goal, draw_sweep, sweep_table
    from lora_compose.training.sweep import as_json as sweep_json
    from lora_compose.training.sweep import sweep as run_sweep

    axes = {"ratio": _values(ratios), "lora_r": _values(ranks), "learning_rate": _values(learning_rates)}
    axes = {name: values for name, values in axes.items() if values}
    if not axes:
        raise typer.BadParameter("give at least one of --ratios, --ranks and --learning-rates")
    swept = SweepPlan(method, recipe, context.args, axes, goal)
    with chatter_on_stderr():
        points = run_sweep(swept, output, lambda line: stderr().print(line, markup=False, highlight=False))
    goal = goal or default_goal(points)
    report = sweep_json(points, goal)
    (output / "sweep.json").write_text(json.dumps(report, indent=1) + "\n")
    draw_sweep(points, goal, output / "sweep.png")
    if as_json:
        echo_json(report)
    else:
        stdout().print(sweep_table(points, goal))
        typer.echo(f"Wrote {output}: sweep.json, sweep.png, points/")


app.command("weights")(weights)
app.command("suite")(suite)
app.command("replay")(replay)


def _train(
    method: Method, file: Path, options: list[str], flags: dict[str, bool], api_key: str | None, as_json: bool
) -> None:
    from lora_compose.training.data.quiet_logs import quiet_libraries

    quiet_libraries()
    from lora_compose.training.publishing import check_adapter, check_target, publish
    from lora_compose.training.recipe import read_recipe
    from lora_compose.training.run import train

    with chatter_on_stderr():
        recipe = read_recipe(method, file, options)
        check_target(recipe.publish, api_key)
        run = train(
            recipe,
            **flags,
            on_progress=lambda line: stderr().print(line, markup=False, highlight=False),
            check=lambda prepared: check_adapter(prepared, recipe.publish),
        )
        published = publish(run, recipe.publish, api_key) if recipe.publish.publish else None
    missed = published["unmet"] if published else []
    if as_json:
        echo_json({"directory": str(run.directory), "scores": run.scores, "published": published})
    else:
        _show(run, published)
    raise typer.Exit(1 if missed else 0)


def _show(run: "FinishedRun", published: dict[str, Any] | None) -> None:
    from lora_compose.training.run_report import run_table

    console = stdout()
    console.print(run_table(run.record))
    console.print(f"Wrote {run.directory}: adapter/, run.json, curves.png", highlight=False)
    if published is None:
        return
    for missed in published["unmet"]:
        console.print(f"[red]{missed}[/]", highlight=False)
    if published["id"] is None:
        console.print("The adapter was not registered.", highlight=False)
        return
    alias = f"; the alias {published['alias']} now points to it" if published["alias"] else ""
    console.print(f"Registered {published['id']}{alias}.", highlight=False)
