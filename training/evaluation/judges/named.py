"""The judges by name, as `--judge`, a recipe or a row's column `judge` names them."""

import difflib
from dataclasses import replace
from typing import Final, NoReturn

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.evaluation.judges import choices, json_values, numbers, overlap, texts
from lora_compose.training.evaluation.judges.judge import Judge, Options
from lora_compose.training.evaluation.judges.own_function import own_judge
from lora_compose.training.evaluation.judges.question import Question

DEFAULT: Final = "exact"


def _no_answer(_question: Question, _answer: str, _options: Options) -> NoReturn:
    raise ValueError("it needs the likelihood of the right answer, which only a model in this process gives")


_CASE: Final = frozenset({"case"})
_WANTED: Final = frozenset({"case", "contains"})
_FIGURES: Final = {"json_leaves": json_values.same_leaves}

JUDGES: Final = {
    judge.name: judge
    for judge in (
        Judge("exact", texts.exact, texts.check_case, _CASE),
        Judge("contains", texts.contains_all, texts.check_wanted, _WANTED),
        Judge("contains-all", texts.contains_all, texts.check_wanted, _WANTED, {"lines": True}),
        Judge("contains-any", texts.contains_any, texts.check_wanted, _WANTED, {"lines": True}),
        Judge("regex", texts.matches, texts.check_pattern, frozenset({"pattern"})),
        Judge("json", json_values.same_value, json_values.check_json, figures=_FIGURES),
        Judge(
            "json-inside",
            json_values.same_value,
            json_values.check_json,
            options={"inside": True},
            figures=_FIGURES,
        ),
        Judge("numeric", numbers.near, numbers.check_number, frozenset({"tolerance", "relative", "units"})),
        Judge("choice", choices.chooses, choices.check_choice, frozenset({"options"})),
        Judge("rouge-l", overlap.rouge_l, overlap.check_words),
        Judge("chrf", overlap.chrf, overlap.check_words),
        Judge("loss", _no_answer, needs_likelihood=True),
        Judge("perplexity", _no_answer, needs_likelihood=True),
    )
}
"""A new judge is a new row."""


def judge_named(name: str) -> Judge:
    """The judge `NAME` or `NAME:option=value,...`, or a function as `module:function` or `file.py:function`.

    Raises LoraComposeError("unknown_judge"), or ("bad_judge") for an option or a function that is wrong.
    """
    head, colon, rest = name.strip().partition(":")
    if head in JUDGES:
        return replace(JUDGES[head], name=name.strip(), options=_options(JUDGES[head], rest, name))
    if colon and "=" not in rest:
        return own_judge(name.strip())
    raise _unknown(name)


def judge_of_row(name: object, place: str) -> Judge:
    """The judge that a row's column `judge` names. A row cannot name a function, because that runs code.

    Raises LoraComposeError("unknown_judge") and ("bad_judge") with the place of the row.
    """
    if not isinstance(name, str) or name.strip().partition(":")[0] not in JUDGES:
        raise _unknown(name, f"{place}: ")
    try:
        return judge_named(name)
    except LoraComposeError as error:
        raise LoraComposeError(CommandCode.BAD_JUDGE, f"{place}: {error}", "judge") from error


def _options(judge: Judge, text: str, name: str) -> Options:
    options = dict(judge.options)
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in judge.option_names:
            known = ", ".join(sorted(judge.option_names)) or "none"
            message = f"The judge {name} has the unknown option {part!r:.40}. Its options are: {known}"
            raise LoraComposeError(CommandCode.BAD_JUDGE, message, "judge")
        options[key] = value
    return options


def _unknown(name: object, place: str = "") -> LoraComposeError:
    near = difflib.get_close_matches(str(name), JUDGES, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    message = f"{place}There is no judge {name!r:.60}.{hint} Judges are: {', '.join(JUDGES)}"
    return LoraComposeError(CommandCode.UNKNOWN_JUDGE, message, "judge")
