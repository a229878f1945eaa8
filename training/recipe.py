"""A recipe: TRL's and PEFT's own options from a YAML file and the command line, and our few beside them.

What a recipe holds beside TRL's own options: the data, what the run is scored by, and where it goes.

Read by TRL's parser, so each field is a key of the recipe and an option of the command line.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.names import check_alias, check_name
from lora_compose.training.evaluation.requirements import parse_requirements


@dataclass
class DataArguments:
    """Which rows are learnt."""

    domain: list[str] = field(
        default_factory=list,
        metadata={"help": "Files of what the adapter is to learn (JSONL, Parquet, CSV, ...)."},
    )
    general: list[str] = field(
        default_factory=list, metadata={"help": "Files of general data, rehearsed against forgetting."}
    )
    ratio: str | None = field(
        default=None, metadata={"help": "GENERAL:DOMAIN, such as 2:8 for one part in five general."}
    )
    mix_by: Literal["examples", "tokens"] = field(
        default="examples", metadata={"help": "What the ratio counts."}
    )
    rows: int | None = field(
        default=None, metadata={"help": "Rows of the mix; by default as many as the files give."}
    )
    held_out: list[str] = field(
        default_factory=list, metadata={"help": "Files for the evaluation loss, none of them trained on."}
    )
    held_out_share: float = field(
        default=0.0, metadata={"help": "Without held_out: this share of the mix is held out."}
    )


@dataclass
class StartArguments:
    """What training starts from."""

    init_adapter: str | None = field(
        default=None, metadata={"help": "An adapter's directory to go on training, such as DPO after SFT."}
    )
    reference: Literal["start", "base"] = field(
        default="start",
        metadata={
            "help": "DPO's reference: the adapter it starts from, or the base with the adapter switched off."
        },
    )


@dataclass
class ScoreArguments:
    """What the run is judged by, on generated answers: files with right answers, or testbed:NAME."""

    domain_tasks: list[str] = field(
        default_factory=list, metadata={"help": "Tasks of the domain, scored by exact match."}
    )
    general_tasks: list[str] = field(
        default_factory=list,
        metadata={"help": "Tasks of general ability; forgetting is what is lost of them."},
    )
    score_limit: int | None = field(default=200, metadata={"help": "Rows of each task that are scored."})
    score_tokens: int = field(
        default=64, metadata={"help": "The longest answer that is generated, in tokens."}
    )
    score_each_evaluation: bool = field(
        default=False,
        metadata={
            "help": "Score at every evaluation too; eval_domain and eval_general can then be the "
            "metric_for_best_model."
        },
    )
    patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better one; keep the best."},
    )


@dataclass
class PublishArguments:
    """Where a finished adapter goes."""

    publish: str | None = field(default=None, metadata={"help": "Register the adapter under this name."})
    publish_url: str | None = field(
        default=None, metadata={"help": "At this running server; by default in the registry on this machine."}
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "The registry on this machine, as `serve --data-dir`."}
    )
    alias: str | None = field(
        default=None, metadata={"help": "The alias that moves to the new version, if the requirements hold."}
    )
    require: str | None = field(default=None, metadata={"help": "Such as 'domain>=0.9,forgetting<=0.02'."})

    def check(self) -> None:
        """Refuse, before hours of training, what would be refused after them. Raises LoraComposeError."""
        if self.publish is not None:
            check_name(self.publish)
        if self.alias is not None:
            check_alias(self.alias)
        if self.require:
            parse_requirements(self.require)


Method = Literal["sft", "dpo"]

# TRL's defaults are a GPU's. These hold where a recipe says nothing (see docs/training.md).
DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "lora_target_modules": "all-linear",
    "use_peft": True,
    "save_total_limit": 2,
    "seed": 0,
}
CPU_DEFAULTS: dict[str, Any] = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False}
DPO_DEFAULTS: dict[str, Any] = {"lora_dropout": 0.0}


@dataclass(frozen=True)
class Recipe:
    """All that a run is made from. `training` is TRL's SFTConfig or DPOConfig, `model` its ModelConfig."""

    method: Method
    training: Any
    model: Any
    data: DataArguments
    start: StartArguments
    score: ScoreArguments
    publish: PublishArguments

    @property
    def output(self) -> Path:
        """The run's directory."""
        return Path(self.training.output_dir)


def read_recipe(method: Method, path: Path | None, options: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file; `options` (`--name value`) override it.

    Raises LoraComposeError("invalid_recipe") with what is wrong, and for an unknown key the nearest known.
    """
    import torch

    parser = _parser(method)
    values = {**DEFAULTS, **(DPO_DEFAULTS if method == "dpo" else {})}
    if not torch.cuda.is_available():
        values |= CPU_DEFAULTS
    parser.set_defaults_with_config(**values)
    arguments = ([] if path is None else ["--config", str(_checked(path))]) + list(options)
    try:
        training, model, data, start, score, publish = parser.parse_args_and_config(arguments)
    except (ValueError, TypeError, OSError) as error:
        raise LoraComposeError(CommandCode.INVALID_RECIPE, _explained(error, parser), "recipe") from error
    recipe = Recipe(method, training, model, data, start, score, publish)
    _check(recipe)
    return recipe


def _parser(method: Method) -> Any:
    from trl import DPOConfig, ModelConfig, SFTConfig, TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> None:
            """In place of argparse's, which prints three hundred options and ends the process."""
            raise ValueError(message)

    ours = (DataArguments, StartArguments, ScoreArguments, PublishArguments)
    return Parser((SFTConfig if method == "sft" else DPOConfig, ModelConfig, *ours), allow_abbrev=False)


def _checked(path: Path) -> Path:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LoraComposeError(CommandCode.INVALID_RECIPE, f"{path}: {error}", "recipe") from error
    if not isinstance(content, dict):
        raise LoraComposeError(CommandCode.INVALID_RECIPE, f"{path} holds no YAML mapping", "recipe")
    if "env" in content:
        raise LoraComposeError(
            CommandCode.INVALID_RECIPE, f"{path}: a recipe sets no environment ('env')", "recipe"
        )
    return path


def _explained(error: Exception, parser: Any) -> str:
    """An unknown key, with what was perhaps meant."""
    unknown = (
        re.findall(r"--([A-Za-z][\w-]*)", str(error))
        if "nknown" in str(error) or "not used" in str(error)
        else []
    )
    known = sorted({action.dest for action in parser._actions})
    if not unknown:
        return str(error)
    hints = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, 1)
        hints.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return f"No such option: {', '.join(hints)}"


def _check(recipe: Recipe) -> None:
    """What no library would notice before hours are spent.

    Raises LoraComposeError("invalid_recipe"), and what PublishArguments.check raises.
    """
    faults = [message for holds, message in _rules(recipe) if not holds]
    if faults:
        raise LoraComposeError(CommandCode.INVALID_RECIPE, "; ".join(faults), "recipe")
    recipe.publish.check()


def _rules(recipe: Recipe) -> list[tuple[bool, str]]:
    data, score, model, training = recipe.data, recipe.score, recipe.model, recipe.training
    stops = score.patience is not None
    scored = score.domain_tasks or score.general_tasks
    evaluates = str(training.eval_strategy) not in ("no", "IntervalStrategy.NO")
    return [
        (model.model_name_or_path is not None, "model_name_or_path is missing: the base to adapt"),
        (bool(training.output_dir), "output_dir is missing: where the run is written"),
        (bool(data.domain), "domain is missing: files of what is to be learnt"),
        (bool(data.general) == (data.ratio is not None), "general and ratio (GENERAL:DOMAIN) go together"),
        (0 <= data.held_out_share < 1, f"held_out_share ({data.held_out_share}) must be in [0, 1)"),
        (not (data.held_out and data.held_out_share), "give one of held_out and held_out_share"),
        (not evaluates or bool(data.held_out or data.held_out_share), "eval_strategy needs held_out data"),
        (not stops or evaluates, "patience needs eval_strategy"),
        (not stops or training.load_best_model_at_end, "patience needs load_best_model_at_end: true"),
        (not score.score_each_evaluation or bool(scored), "score_each_evaluation needs tasks"),
        (not model.load_in_4bit or model.use_peft, "load_in_4bit (QLoRA) needs use_peft"),
        (recipe.start.init_adapter is None or model.use_peft, "init_adapter needs use_peft"),
        (recipe.publish.publish is None or model.use_peft, "publish needs use_peft: it registers an adapter"),
        (not recipe.publish.require or bool(scored), "require needs domain_tasks or general_tasks"),
    ]
