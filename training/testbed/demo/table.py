"""What the demo's arms answered, and the table that shows it.

The demo's arms: what each asks the server for, and the two things an answer can get right.

Every arm is asked the same prompts, the skill's. So the base and the styles alone are shown failing at the
skill, and the skill alone at the style: only where both are combined can both be right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from statistics import median
from typing import Any, Final, Literal

from rich.markup import escape
from rich.table import Table

from lora_compose.server.client.chat import ChatAnswer
from lora_compose.training.testbed.language import STYLES, answer, styled

SKILL: Final = "roll"


@dataclass(frozen=True)
class DemoRequest:
    """One way to name a composition in a request, and the styles to look for in what it answers."""

    label: str
    model: str | None = None
    """None is the base."""
    styles: tuple[str, ...] = ("upper",)
    body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request."""
    kind: Literal["single", "stack", "merge"] = "single"
    """A stack or merge holds the skill and the styles, so its answers should be right in both."""


ARMS: Final = (
    DemoRequest("base"),
    DemoRequest("roll", "roll"),
    DemoRequest("upper", "upper"),
    DemoRequest("polite", "polite", ("polite",)),
    DemoRequest("roll+upper", "roll+upper", kind="stack"),
    DemoRequest("roll+polite", "roll+polite", ("polite",), kind="stack"),
    DemoRequest("roll+upper+polite", "roll+upper+polite", ("upper", "polite"), kind="stack"),
    DemoRequest(
        "adapters: [roll, upper × 0.9]",
        body={"adapters": [{"name": "roll"}, {"name": "upper", "weight": 0.9}]},
        kind="stack",
    ),
    DemoRequest("svd(roll+upper,rank=8)", "svd(roll+upper,rank=8)", kind="merge"),
    DemoRequest("ties(roll+upper,density=0.5)", "ties(roll+upper,density=0.5)", kind="merge"),
)
ADAPTERS: Final = ("roll", "upper", "polite")


def does_skill(text: str, skill: str, word: str) -> bool:
    """Whether the content is exactly right, in whichever styles it is written."""
    every = chain.from_iterable(combinations(STYLES, n) for n in range(len(STYLES) + 1))
    return any(text == answer(skill, styles, word) for styles in every)


def does_style(text: str, styles: Sequence[str]) -> bool:
    """Whether the form is exactly that of `styles`, whatever the content."""
    before, after = styled("\0", styles).split("\0")
    content = text.removeprefix(before).removesuffix(after)
    return bool(content) and text == styled(content.lower(), styles)


def does_both(text: str, skill: str, styles: Sequence[str], word: str) -> bool:
    """Whether it is the one right answer."""
    return text == answer(skill, styles, word)


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
class DemoResult:
    """An arm's answers, one a word, up to the first refusal."""

    arm: DemoRequest
    words: Sequence[str]
    answers: list[ChatAnswer] = field(default_factory=list)
    error: str | None = None

    @property
    def skill(self) -> int:
        """How many answers have the right content."""
        return sum(does_skill(text, SKILL, word) for text, word in self._texts())

    @property
    def style(self) -> int:
        """How many have the right form."""
        return sum(does_style(text, self.arm.styles) for text, _ in self._texts())

    @property
    def both(self) -> int:
        """How many are the one right answer."""
        return sum(does_both(text, SKILL, self.arm.styles, word) for text, word in self._texts())

    @property
    def worked(self) -> bool:
        """Whether all was answered, and for a stack whether more than half of it is right in both.

        A merge is lossy: how well it does is shown, and not asked for."""
        if self.error is not None or not all(answer.text for answer in self.answers):
            return False
        return self.arm.kind != "stack" or self.both > len(self.words) / 2

    @property
    def ttft(self) -> float:
        """Median time to first token, in seconds, of all but the first request."""
        return median(map(_first_token, self.answers[1:]))

    @property
    def tokens_per_second(self) -> float:
        """Of whole answers, the wait for the first token included, in all but the first request."""
        rest = self.answers[1:]
        tokens = sum(int(answer.usage["completion_tokens"]) for answer in rest if answer.usage)
        return tokens / sum(answer.total_seconds for answer in rest)

    def _texts(self) -> list[tuple[str, str]]:
        return [(answer.text, word) for answer, word in zip(self.answers, self.words, strict=False)]


def _first_token(answer: ChatAnswer) -> float:
    """Seconds until the first token; of an answer without text, until its end."""
    return answer.time_to_first_token or answer.total_seconds


def outcome_table(outcomes: Sequence[DemoResult]) -> Table:
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


def _row(outcome: DemoResult, count: int) -> list[str]:
    label = escape(outcome.arm.label)
    if outcome.error is not None or len(outcome.answers) < 2:
        return [label, f"[red]{escape(outcome.error or 'no answer')}[/]"]
    return [
        label,
        escape(outcome.answers[0].text),
        f"{outcome.skill}/{count}",
        f"{outcome.style}/{count}",
        f"{outcome.both}/{count}" if outcome.arm.kind != "single" else "",
        f"{outcome.ttft * 1000:.0f}",
        f"{_first_token(outcome.answers[0]) * 1000:.0f}",
        f"{outcome.tokens_per_second:.0f}",
    ]
