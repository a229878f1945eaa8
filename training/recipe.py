"""A recipe: the options of TRL and PEFT, and our own, from a YAML file and the command line.

Our own options name the data, the scores, and where the adapter is published. TRL's parser reads them, so
each field of the dataclasses here is a key of the recipe and an option of the command line.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.names import check_alias, check_name
from lora_compose.training.deprecations import collected
from lora_compose.training.evaluation.judges.named import DEFAULT
from lora_compose.training.evaluation.requirements import parse_requirements
from lora_compose.training.recipe_defaults import AUTO, Method, defaults_of
from lora_compose.training.reporters import check_reporters


@dataclass
class DataArguments:
    """The rows that the adapter is trained on."""

    domain: list[str] = field(
        default_factory=list,
        metadata={"help": "Files with the data of the domain to learn (JSONL, Parquet, CSV, ...)."},
    )
    general: list[str] = field(
        default_factory=list,
        metadata={"help": "Files with general data. Training on them reduces forgetting."},
    )
    ratio: str | None = field(
        default=None, metadata={"help": "GENERAL:DOMAIN, for example 2:8 for one fifth of general data."}
    )
    mix_by: Literal["examples", "tokens"] = field(
        default="examples", metadata={"help": "What the ratio counts: examples or tokens."}
    )
    rows: int | None = field(
        default=None,
        metadata={"help": "Size of the mix, in the unit of mix_by; by default as large as the files allow."},
    )
    bad_rows: Literal["stop", "drop"] = field(
        default="stop",
        metadata={"help": "Rows that cannot be used. stop: an error. drop: left out, counted and listed."},
    )
    encoding: str | None = field(
        default=None,
        metadata={"help": "Encoding of text files that are not UTF-8; detected by default."},
    )
    held_out: list[str] = field(
        default_factory=list, metadata={"help": "Files for the evaluation loss. They are not trained on."}
    )
    held_out_share: float = field(
        default=0.0,
        metadata={
            "help": "Hold out this share of the mix for the evaluation loss; not together with held_out."
        },
    )


@dataclass
class LabelArguments:
    """For kto: which answers are good. By default, a column such as `label` says it."""

    label_column: str | None = field(
        default=None,
        metadata={"help": "kto: column that says if an answer is good; known names are found."},
    )
    good_from: float | None = field(
        default=None, metadata={"help": "kto: ratings from this number on are good, others bad."}
    )
    good_labels: list[str] = field(
        default_factory=list, metadata={"help": "kto: labels that mean good; all other labels mean bad."}
    )


@dataclass
class AdapterArguments:
    """The size of the adapter, beside PEFT's options."""

    rank: str | None = field(
        default=None,
        metadata={
            "help": "auto: the rank (lora_r) by the amount of data (see docs/training.md). A number is the "
            "same as --lora-r."
        },
    )


@dataclass
class StartArguments:
    """The weights that training starts from."""

    init_adapter: str | None = field(
        default=None,
        metadata={"help": "Directory of an adapter to continue training, for example for DPO after SFT."},
    )
    reference: Literal["start", "base"] = field(
        default="start",
        metadata={
            "help": "Reference model of dpo and kto. start: the adapter that training starts from. "
            "base: the base."
        },
    )


@dataclass
class ScoreArguments:
    """The tasks that score the run by its generated answers: files with right answers, or testbed:NAME."""

    domain_tasks: list[str] = field(
        default_factory=list, metadata={"help": "Tasks of the domain, scored by the judge."}
    )
    general_tasks: list[str] = field(
        default_factory=list,
        metadata={"help": "Tasks of general ability. The loss of score on them is forgetting."},
    )
    judge: str = field(
        default=DEFAULT,
        metadata={"help": "Judge of domain_tasks: exact, json, numeric, ... (see docs/evaluation.md)."},
    )
    general_text: list[str] = field(
        default_factory=list,
        metadata={"help": "Text files whose perplexity is measured before and after, or 'shipped'."},
    )
    general_judge: str = field(default=DEFAULT, metadata={"help": "Judge of general_tasks."})
    score_limit: int | None = field(
        default=200, metadata={"help": "At most this many rows of each task are scored."}
    )
    score_tokens: int | None = field(
        default=None,
        metadata={
            "help": "At most this many tokens are generated for an answer; by default 64, or as many as the "
            "longest right answer has."
        },
    )
    score_each_evaluation: bool = field(
        default=False,
        metadata={
            "help": "Also score at every evaluation. Then eval_domain or eval_general can be "
            "metric_for_best_model."
        },
    )
    patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after this many evaluations without an improvement, and keep the best checkpoint."
        },
    )


@dataclass
class PublishArguments:
    """Where the finished adapter is registered."""

    publish: str | None = field(default=None, metadata={"help": "Register the adapter under this name."})
    publish_url: str | None = field(
        default=None,
        metadata={"help": "Register at this server; by default in the registry on this machine."},
    )
    data_dir: str | None = field(
        default=None,
        metadata={"help": "Data directory of the registry on this machine, as for `serve --data-dir`."},
    )
    alias: str | None = field(
        default=None,
        metadata={"help": "Point this alias to the new version if the requirements are met."},
    )
    require: str | None = field(
        default=None,
        metadata={"help": "Requirements on the scores, for example 'domain>=0.9,forgetting<=0.02'."},
    )

    def check(self) -> None:
        """Check the fields before training, because publishing comes after hours. Raises LoraComposeError."""
        if self.publish is not None:
            check_name(self.publish)
        if self.alias is not None:
            check_alias(self.alias)
        if self.require:
            parse_requirements(self.require)


OWN_OPTIONS = (
    DataArguments,
    LabelArguments,
    AdapterArguments,
    StartArguments,
    ScoreArguments,
    PublishArguments,
)
"""Our own options of a recipe."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a run. `training` is TRL's config of the method, `model` is its ModelConfig."""

    method: Method
    training: Any
    model: Any
    data: DataArguments
    labels: LabelArguments
    adapter: AdapterArguments
    start: StartArguments
    score: ScoreArguments
    publish: PublishArguments
    given: frozenset[str]
    """The names of the settings that the recipe or the command line gives. The others are defaults."""
    deprecated: tuple[str, ...] = ()
    """What TRL says about settings that it will remove."""

    @property
    def output(self) -> Path:
        """The run's directory."""
        return Path(self.training.output_dir)


def read_recipe(method: Method, path: Path | None, options: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file. `options` (`--name value`) override it.

    Raises LoraComposeError("invalid_recipe"). For an unknown key, the message suggests the most similar one.
    """
    parser = _parser(method)
    parser.set_defaults_with_config(**defaults_of(method))
    content = {} if path is None else _content(path)
    arguments = ([] if path is None else ["--config", str(path)]) + list(options)
    deprecated: list[str] = []
    try:
        with collected(deprecated):
            training, model, *own = parser.parse_args_and_config(arguments)
    except (ValueError, TypeError, OSError) as error:
        raise LoraComposeError(CommandCode.INVALID_RECIPE, _explained(error, parser), "recipe") from error
    if model.model_name_or_path is not None:
        model.model_name_or_path = resolve(model.model_name_or_path, "model_name_or_path")
    check_reporters(training.report_to)
    data, labels, adapter, start, score, publish = own
    given = frozenset(content) | _named(options)
    parts = (data, labels, adapter, start, score, publish, given, tuple(deprecated))
    recipe = Recipe(method, training, model, *parts)
    _check(recipe)
    return recipe


def _named(options: Sequence[str]) -> set[str]:
    """The settings that options of the command line give."""
    return {option[2:].partition("=")[0].replace("-", "_") for option in options if option.startswith("--")}


def _parser(method: Method) -> Any:
    from trl import DPOConfig, KTOConfig, ModelConfig, SFTConfig, TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> None:
            """Raise. argparse's method would print three hundred options and exit the process."""
            raise ValueError(message)

    trl = {"sft": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig}[method]
    return Parser((trl, ModelConfig, *OWN_OPTIONS), allow_abbrev=False)


def _content(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe file. Raises LoraComposeError("invalid_recipe")."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LoraComposeError(
            CommandCode.INVALID_RECIPE, f"{path} cannot be read: {error}", "recipe"
        ) from error
    if not isinstance(content, dict):
        raise LoraComposeError(CommandCode.INVALID_RECIPE, f"{path} is not a YAML mapping", "recipe")
    if "env" in content:
        raise LoraComposeError(
            CommandCode.INVALID_RECIPE,
            f"{path}: 'env' is not allowed, because a recipe must not set environment variables",
            "recipe",
        )
    return content


def _explained(error: Exception, parser: Any) -> str:
    """The message for `error`. For an unknown key, it suggests the most similar known key."""
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
    return f"Unknown option: {', '.join(hints)}"


def _check(recipe: Recipe) -> None:
    """Check rules that the libraries would check only after hours of training, or not at all.

    Raises LoraComposeError("invalid_recipe"), and the errors of PublishArguments.check.
    """
    faults = [message for is_met, message in _rules(recipe) if not is_met]
    if faults:
        raise LoraComposeError(CommandCode.INVALID_RECIPE, "; ".join(faults), "recipe")
    recipe.publish.check()


def _rules(recipe: Recipe) -> list[tuple[bool, str]]:
    data, score, model, training = recipe.data, recipe.score, recipe.model, recipe.training
    labels = recipe.labels
    labelled = labels.label_column is not None or labels.good_from is not None or bool(labels.good_labels)
    stops = score.patience is not None
    scored = score.domain_tasks or score.general_tasks
    evaluates = str(training.eval_strategy) not in ("no", "IntervalStrategy.NO")
    return [
        (model.model_name_or_path is not None, "model_name_or_path is missing: name the base model"),
        (bool(training.output_dir), "output_dir is missing: name the directory of the run"),
        (bool(data.domain), "domain is missing: name the files to train on"),
        (
            bool(data.general) == (data.ratio is not None),
            "general and ratio (GENERAL:DOMAIN) must be given together",
        ),
        (0 <= data.held_out_share < 1, f"held_out_share ({data.held_out_share}) must be in [0, 1)"),
        (not (data.held_out and data.held_out_share), "give held_out or held_out_share, not both"),
        (
            not evaluates or bool(data.held_out or data.held_out_share),
            "eval_strategy needs held_out or held_out_share",
        ),
        (
            not data.held_out or evaluates,
            "held_out needs an evaluation: set eval_strategy (steps or epoch)",
        ),
        (
            not data.held_out_share or evaluates,
            "held_out_share needs an evaluation: set eval_strategy (steps or epoch)",
        ),
        (not stops or evaluates, "patience needs eval_strategy"),
        (not stops or training.load_best_model_at_end, "patience needs load_best_model_at_end: true"),
        (
            not score.score_each_evaluation or bool(scored),
            "score_each_evaluation needs domain_tasks or general_tasks",
        ),
        (not model.load_in_4bit or model.use_peft, "load_in_4bit (QLoRA) needs use_peft"),
        (recipe.start.init_adapter is None or model.use_peft, "init_adapter needs use_peft"),
        (recipe.publish.publish is None or model.use_peft, "publish needs use_peft: it registers an adapter"),
        (
            recipe.method == "kto" or not labelled,
            "label_column, good_from and good_labels are only for kto",
        ),
        (
            labels.good_from is None or not labels.good_labels,
            "give good_from (for numbers) or good_labels (for words), not both",
        ),
        (
            recipe.method != "kto"
            or training.loss_type != "kto"
            or (training.per_device_train_batch_size > 1 and training.per_device_eval_batch_size > 1),
            "kto compares each row with others of its batch: per_device_train_batch_size and "
            "per_device_eval_batch_size must be at least 2. gradient_accumulation_steps does not count",
        ),
        *_rank_rules(recipe),
        (
            not recipe.publish.require or bool(scored or score.general_text),
            "require needs domain_tasks, general_tasks or general_text",
        ),
    ]


def _rank_rules(recipe: Recipe) -> list[tuple[bool, str]]:
    rank = recipe.adapter.rank
    return [
        (
            rank is None or rank == AUTO or (rank.isdecimal() and int(rank) > 0),
            f"rank ({rank}) must be {AUTO} or a number above 0",
        ),
        (rank is None or "lora_r" not in recipe.given, "give rank or lora_r, not both"),
        (rank is None or recipe.model.use_peft, "rank needs use_peft"),
        (
            rank is None or recipe.start.init_adapter is None,
            "rank cannot be changed: init_adapter has a rank already",
        ),
    ]
