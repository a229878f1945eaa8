"""A judge that is a function of the user: `module:function` or `file.py:function`.

The function gets the row (its columns, with `prompt` as messages and `answer` as the right answer) and the
model's answer. It returns a number between 0 and 1, or True or False. Only an option or a recipe can name
it, never a row, because naming it runs its code.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.evaluation.judges.judge import Judge, Options
from lora_compose.training.evaluation.judges.question import Question

Function = Callable[[dict[str, Any], str], float]


def own_judge(name: str) -> Judge:
    """The judge of a function. Raises LoraComposeError("bad_judge") if it cannot be imported."""
    function = _function(name)

    def grade(question: Question, answer: str, _options: Options) -> float:
        return _checked(_called(function, question, answer))

    def check_row(question: Question, options: Options) -> None:
        grade(question, question.answer, options)

    return Judge(name, grade, check_row)


def _function(name: str) -> Function:
    where, _, attribute = name.rpartition(":")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else _from_module(where)
    except (Exception, SystemExit) as error:
        raise _bad(f"The judge {name} cannot be imported: {_line(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise _bad(f"The judge {name} cannot be used: {where} has no function {attribute}")
    found: Function = function
    return found


def _from_file(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(f"judge_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_module(name: str) -> Any:
    """Import a module, also from the current directory, which a command does not search by itself."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def _called(function: Function, question: Question, answer: str) -> Any:
    row = {**question.fields, "prompt": list(question.prompt), "answer": question.answer}
    try:
        return function(row, answer)
    except (Exception, SystemExit) as error:
        raise ValueError(f"it raised {_line(error)}") from error


def _checked(value: Any) -> float:
    """The score as a number. NumPy's and torch's numbers are numbers too."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"it returned {value!r:.60}, not a number between 0 and 1")
    return number


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.200}" if text else type(error).__name__


def _bad(message: str) -> LoraComposeError:
    return LoraComposeError(CommandCode.BAD_JUDGE, message, "judge")
