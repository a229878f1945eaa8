"""The demo's arms, the checks of their answers, and the table of the results.

An arm is a way to name a composition in a request. All arms get the same prompts, those of the skill. The
base and the styles alone fail at the skill, and the skill alone fails at the style. Only a combination of
both can be right in both.
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
    """A way to name a composition in a request, and the styles to check in its answers."""

    label: str
    model: str | None = None
    """None means the base."""
    styles: tuple[str, ...] = ("upper",)
    body: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request."""
    kind: Literal["single", "stack", "merge"] = "single"
    """A stack or merge has the skill and the styles, so its answers should be right in both."""


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
    """Whether the content is exactly right, in any styles."""
    subsets = chain.from_iterable(combinations(STYLES, n) for n in range(len(STYLES) + 1))
    return any(text == answer(skill, styles, word) for styles in subsets)


def does_style(text: str, styles: Sequence[str]) -> bool:
    """Whether the form is exactly that of `styles`, with any content."""
    before, after = styled("\0", styles).split("\0")
    content = text.removeprefix(before).removesuffix(after)
    return bool(content) and text == styled(content.lower(), styles)


def does_both(text: str, skill: str, styles: Sequence[str], word: str) -> bool:
    """Whether `text` is the only right answer."""
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
    "An answer is right only if it matches exactly. The base was not trained on the skill. For the base and "
    "for roll alone, the style checked is upper. Requests are sent one at a time. TTFT is the median time to "
    "first token; first is that of the first request, which also builds or loads the composition."
)


@dataclass
class DemoResult:
    """The answers of an arm, one for each word, up to the first refusal."""

    arm: DemoRequest
    words: Sequence[str]
    answers: list[ChatAnswer] = field(default_factory=list)
    error: str | None = None

    @property
    def skill(self) -> int:
        """The number of answers with the right content."""
        return sum(does_skill(text, SKILL, word) for text, word in self._texts())

    @property
    def style(self) -> int:
        """The number of answers with the right form."""
        return sum(does_style(text, self.arm.styles) for text, _ in self._texts())

    @property
    def both(self) -> int:
        """The number of answers that are right in content and form."""
        return sum(does_both(text, SKILL, self.arm.styles, word) for text, word in self._texts())

    @property
    def worked(self) -> bool:
        """Whether there are answers to all prompts, and for a stack, whether more than half are right in
        both.

        A merge is lossy, so its right answers are shown but not required.
        """
        if self.error is not None or not all(answer.text for answer in self.answers):
            return False
        return self.arm.kind != "stack" or self.both > len(self.words) / 2

    @property
    def ttft(self) -> float:
        """Median time to first token, in seconds, of all but the first request."""
        return median(map(_first_token, self.answers[1:]))

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second of all but the first request, with the time to the first token."""
        rest = self.answers[1:]
        tokens = sum(int(answer.usage["completion_tokens"]) for answer in rest if answer.usage)
        return tokens / sum(answer.total_seconds for answer in rest)

    def _texts(self) -> list[tuple[str, str]]:
        return [(answer.text, word) for answer, word in zip(self.answers, self.words, strict=False)]


def _first_token(answer: ChatAnswer) -> float:
    """Seconds until the first token. For an answer without text, seconds until its end."""
    return answer.time_to_first_token or answer.total_seconds


def result_table(results: Sequence[DemoResult]) -> Table:
    """One row for each arm."""
    word = results[0].words[0]
    count = len(results[0].words)
    title = f"{count} prompts such as “{SKILL} {word}”, the same for every composition"
    table = Table(title=title, title_justify="left", caption_justify="left", caption=CAPTION)
    table.add_column("composition", overflow="fold", min_width=16)
    table.add_column("example\nanswer", overflow="fold", min_width=8)
    for header in HEADERS:
        table.add_column(header, justify="right")
    for result in results:
        table.add_row(*_row(result, count))
    return table


def _row(result: DemoResult, count: int) -> list[str]:
    label = escape(result.arm.label)
    if result.error is not None or len(result.answers) < 2:
        return [label, f"[red]{escape(result.error or 'no answer')}[/]"]
    return [
        label,
        escape(result.answers[0].text),
        f"{result.skill}/{count}",
        f"{result.style}/{count}",
        f"{result.both}/{count}" if result.arm.kind != "single" else "",
        f"{result.ttft * 1000:.0f}",
        f"{_first_token(result.answers[0]) * 1000:.0f}",
        f"{result.tokens_per_second:.0f}",
    ]
