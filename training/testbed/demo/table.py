"""The results of the demo's arms, their table, and the judges of the embedded base's answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from statistics import median

from rich.markup import escape
from rich.table import Table

from lora_compose.server.client.chat import ChatAnswer
from lora_compose.training.testbed.demo.subject import DemoQuestion, DemoRequest, DemoSubject, Judgement
from lora_compose.training.testbed.language import STYLES, answer, styled

SHOWN_LETTERS = 400
"""The most letters of an answer that is listed below the table."""


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


@dataclass
class DemoResult:
    """The answers of an arm, one for each question, up to the first refusal."""

    subject: DemoSubject
    arm: DemoRequest
    questions: Sequence[DemoQuestion]
    answers: list[ChatAnswer] = field(default_factory=list)
    error: str | None = None

    @property
    def judgements(self) -> list[Judgement]:
        """One for each answer."""
        pairs = zip(self.answers, self.questions, strict=False)
        return [self.subject.judge(answer.text, question, self.arm.styles) for answer, question in pairs]

    @property
    def worked(self) -> bool:
        """Whether there are answers to all prompts, and more than half are right in both if they must be."""
        if self.error is not None or not all(answer.text for answer in self.answers):
            return False
        return not self.arm.must_work or sum(one.both for one in self.judgements) > len(self.questions) / 2

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


def _first_token(answer: ChatAnswer) -> float:
    """Seconds until the first token. For an answer without text, seconds until its end."""
    return answer.time_to_first_token or answer.total_seconds


def result_table(results: Sequence[DemoResult]) -> Table:
    """One row for each arm."""
    subject, questions = results[0].subject, results[0].questions
    example = "" if subject.shows_whole_answers else f" such as “{questions[0].prompt}”"
    title = f"{len(questions)} prompts{example}, the same for every composition"
    table = Table(title=title, title_justify="left", caption_justify="left", caption=subject.caption)
    table.add_column("composition", overflow="fold", min_width=16)
    if not subject.shows_whole_answers:
        table.add_column("example\nanswer", overflow="fold", min_width=8)
    headers = (f"does the\nskill ({subject.skill})", "does the\nstyle", "does\nboth", "TTFT\nms", "first\nms")
    for header in (*headers, "tokens\n/s"):
        table.add_column(header, justify="right")
    for result in results:
        table.add_row(*_row(result))
    return table


def answers_table(results: Sequence[DemoResult]) -> Table:
    """The whole answer of each arm to the first question."""
    table = Table("composition", "answer", title_justify="left", show_lines=True)
    table.title = f"Answers to: {results[0].questions[0].prompt}"
    for result in results:
        text = result.answers[0].text if result.answers else result.error or "no answer"
        table.add_row(escape(result.arm.label), escape(text[:SHOWN_LETTERS]))
    return table


def _row(result: DemoResult) -> list[str]:
    label, count = escape(result.arm.label), len(result.questions)
    if result.error is not None or len(result.answers) < 2:
        return [label, f"[red]{escape(result.error or 'no answer')}[/]"]
    judged = result.judgements
    both = f"{sum(one.both for one in judged)}/{count}" if result.arm.combines else ""
    return [
        label,
        *(() if result.subject.shows_whole_answers else (escape(result.answers[0].text),)),
        f"{sum(one.skill for one in judged)}/{count}",
        f"{sum(one.style for one in judged)}/{count}",
        both,
        f"{result.ttft * 1000:.0f}",
        f"{_first_token(result.answers[0]) * 1000:.0f}",
        f"{result.tokens_per_second:.0f}",
    ]
