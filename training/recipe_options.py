"""Our own options of a recipe, beside those of TRL and PEFT: data, scores, and where the adapter goes.

TRL's parser reads them, so each field is a key of a recipe and an option of the command line.
"""

from dataclasses import dataclass, field
from typing import Literal

from lora_compose.adapters.names import check_alias, check_name
from lora_compose.training.evaluation.judges.named import DEFAULT
from lora_compose.training.evaluation.requirements import parse_requirements


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
