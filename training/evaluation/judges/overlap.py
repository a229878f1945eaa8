"""Judges that measure how much two texts share: ROUGE-L by `rouge-score`, chrF by `sacrebleu`."""

from functools import cache
from typing import Any, Final

import regex  # type: ignore[import-untyped]

from lora_compose.training.evaluation.judges.judge import Options
from lora_compose.training.evaluation.judges.question import Question

_WORD: Final = regex.compile(
    r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{M}\p{N}]+"
)


class Words:
    """The words of a text. rouge-score's own tokenizer drops every letter that is not a to z.

    Scripts without spaces between words are split into characters.
    """

    def tokenize(self, text: str) -> list[str]:
        """The words in lower case, in order."""
        words: list[str] = _WORD.findall(text.casefold())
        return words


def rouge_l(question: Question, answer: str, _options: Options) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, aclanthology.org/W04-1013)."""
    return float(_rouge().score(question.answer, answer)["rougeL"].fmeasure)


def chrf(question: Question, answer: str, _options: Options) -> float:
    """F2 of character n-grams, n = 1 to 6 (Popović 2015, aclanthology.org/W15-3049), divided by 100."""
    return float(_chrf().sentence_score(answer, [question.answer]).score) / 100


def check_words(question: Question, _options: Options) -> None:
    """Raises ValueError if the right answer has no word."""
    if not Words().tokenize(question.answer):
        raise ValueError("the right answer has no words")


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=Words())


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()
