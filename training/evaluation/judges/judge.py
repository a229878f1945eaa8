"""What a judge is: a function from a question and an answer to a score, with its direction and options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.evaluation.judges.question import Question

Options = Mapping[str, Any]
Grade = Callable[[Question, str, Options], float]
"""The score of an answer, between 0 and 1."""


def _any_row(_question: Question, _options: Options) -> None:
    """A judge with this check can judge every row."""


@dataclass(frozen=True)
class Judge:
    """`judge(question, answer)` is a score between 0 and 1, where 1 is right.

    A judge with `needs_likelihood` does not read answers: the task is scored by the likelihood that the model
    gives to the right answers. Lower is then better.
    """

    name: str
    grade: Grade
    check_row: Callable[[Question, Options], None] = _any_row
    """Raises ValueError with the reason if the row cannot be judged."""
    option_names: frozenset[str] = frozenset()
    """Options that the name may set (`numeric:tolerance=0.1`). A column of the row with this name wins."""
    options: Options = field(default_factory=dict)
    figures: Mapping[str, Grade] = field(default_factory=dict)
    """Further figures of an answer, between 0 and 1, by name."""
    needs_likelihood: bool = False

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower score is a better one, as for a loss."""
        return self.needs_likelihood

    def __call__(self, question: Question, answer: str) -> float:
        """The score of `answer`. Raises LoraComposeError("cannot_judge") if the judge fails on it."""
        return self._checked(self.grade, question, answer)

    def figures_of(self, question: Question, answer: str) -> dict[str, float]:
        """The further figures of `answer`. Raises as a call does."""
        return {name: self._checked(grade, question, answer) for name, grade in self.figures.items()}

    def check(self, question: Question) -> None:
        """Check that the judge can judge answers to `question`.

        Raises LoraComposeError("cannot_judge") with the place of the row, for example if the right answer
        has no number.
        """
        try:
            self.check_row(question, self._options_for(question))
        except ValueError as error:
            raise self._refused(question, str(error)) from error

    def _checked(self, grade: Grade, question: Question, answer: str) -> float:
        try:
            return float(grade(question, answer, self._options_for(question)))
        except ValueError as error:
            raise self._refused(question, str(error)) from error

    def _options_for(self, question: Question) -> Options:
        own = {name: question.fields[name] for name in self.option_names if name in question.fields}
        return {**self.options, **{name: value for name, value in own.items() if value is not None}}

    def _refused(self, question: Question, reason: str) -> LoraComposeError:
        at = question.place or "A row"
        return LoraComposeError(
            CommandCode.CANNOT_JUDGE, f"{at}: the judge {self.name} cannot judge the row: {reason}", "judge"
        )
