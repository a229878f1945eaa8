"""What the demo's arms answered, and the table that shows it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.markup import escape
from rich.table import Table

from training.testbed.arms import SKILL, Arm, does_both, does_skill, does_style
from training.testbed.asking import Reply

HEADERS = (
    f"does the\nskill ({SKILL})",
    "does the\nstyle",
    "does\nboth",
    "TTFT\nms",
    "first\nms",
    "tokens\n/s",
)
CAPTION = (
    "Answers are checked exactly. The base never learnt the skill; in the base and in the skill alone, the "
    "style looked for is upper. One request at a time; TTFT is the median, first is the first request's, "
    "which had to make the composition ready."
)


@dataclass
class Outcome:
    """An arm's replies, one a word, up to the first refusal."""

    arm: Arm
    words: Sequence[str]
    replies: list[Reply] = field(default_factory=list)
    error: str | None = None

    @property
    def skill(self) -> int:
        """How many answers have the right content."""
        return sum(does_skill(text, SKILL, word) for text, word in self._answers())

    @property
    def style(self) -> int:
        """How many have the right form."""
        return sum(does_style(text, self.arm.styles) for text, _ in self._answers())

    @property
    def both(self) -> int:
        """How many are the one right answer."""
        return sum(does_both(text, SKILL, self.arm.styles, word) for text, word in self._answers())

    @property
    def worked(self) -> bool:
        """Whether all was answered, and for a stack whether more than half of it is right in both.

        A merge is lossy: how well it does is shown, and not asked for."""
        if self.error is not None or not all(reply.text for reply in self.replies):
            return False
        return self.arm.kind != "stack" or self.both > len(self.words) / 2

    @property
    def ttft(self) -> float:
        """Median time to first token, in seconds, of all but the first request."""
        return median(reply.first for reply in self.replies[1:])

    @property
    def tokens_per_second(self) -> float:
        """Of whole answers, the wait for the first token included, in all but the first request."""
        rest = self.replies[1:]
        return sum(reply.tokens for reply in rest) / sum(reply.total for reply in rest)

    def _answers(self) -> list[tuple[str, str]]:
        return [(reply.text, word) for reply, word in zip(self.replies, self.words, strict=False)]


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """One line an arm."""
    word = outcomes[0].words[0]
    count = len(outcomes[0].words)
    title = f"{count} prompts such as “{SKILL} {word}”, the same to every arm"
    table = Table(title=title, title_justify="left", caption_justify="left", caption=CAPTION)
    table.add_column("composition", overflow="fold", min_width=16)
    table.add_column("example\nanswer", overflow="fold", min_width=8)
    for header in HEADERS:
        table.add_column(header, justify="right")
    for outcome in outcomes:
        table.add_row(*_row(outcome, count))
    return table


def _row(outcome: Outcome, count: int) -> list[str]:
    label = escape(outcome.arm.label)
    if outcome.error is not None or len(outcome.replies) < 2:
        return [label, f"[red]{escape(outcome.error or 'no answer')}[/]"]
    return [
        label,
        escape(outcome.replies[0].text),
        f"{outcome.skill}/{count}",
        f"{outcome.style}/{count}",
        f"{outcome.both}/{count}" if outcome.arm.kind != "single" else "",
        f"{outcome.ttft * 1000:.0f}",
        f"{outcome.replies[0].first * 1000:.0f}",
        f"{outcome.tokens_per_second:.0f}",
    ]
