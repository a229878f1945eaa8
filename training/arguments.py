"""What a recipe holds beside TRL's own options: the data, what the run is scored by, and where it goes.

Read by TRL's parser, so each field is a key of the recipe and an option of the command line.
"""

from dataclasses import dataclass, field
from typing import Literal

from adapters.names import check_alias, check_name
from training.requirements import parse_requirements


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
