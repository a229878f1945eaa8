"""Separates the words of `serve` into our options and vLLM's, and refuses what neither has.

Every flag is rewritten to its long form, so that vLLM's parser never sees an abbreviation or a flag that is
refused here. The words of a `--config` file come first, so that the command line wins.
"""

import json
from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

from typing_extensions import override

from lora_compose.server.options.catalogue import OwnOption, VllmOption, options
from lora_compose.server.options.config_file import words_of
from lora_compose.server.options.decisions import REFUSED, SERVER
from lora_compose.server.options.refusals import check_value, invalid, refused, unknown

JOINED = frozenset({"served-model-name"})
"""Options of vLLM whose values are joined if the option is given more than once."""


@dataclass(frozen=True)
class Occurrence:
    """One use of an option. A switch has no values."""

    flag: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class SplitLine:
    """The words for our own parser, and those for vLLM's."""

    own: list[str]
    vllm: list[str]


class _Parser(ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)


class _Collect(Action):
    """Appends what was given to `namespace.found`."""

    @override
    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = (values,) if isinstance(values, str) else tuple(values or ())
        namespace.found.append((self.dest, Occurrence(option_string or "", given)))


def split(words: Sequence[str], own: Mapping[str, OwnOption]) -> SplitLine:
    """Split the words. `own` has our options by name, the long flag without dashes.

    Raises LoraComposeError if an option is unknown or refused, or its value cannot be read.
    """
    reader = _Reader(own)
    line = reader.read(words, "")
    files = [value for occurrence in line.found["config"] for value in occurrence.values]
    if len(files) > 1:
        raise invalid("--config may be given once. Put all options into one file.")
    from_file = reader.read(words_of(files[0], reader.shapes), f"{files[0]}: ") if files else _Line()
    if from_file.found.pop("config", None):
        raise invalid(f"{files[0]}: a file of options cannot name another one with config.")
    line.found.pop("config", None)
    found = {**from_file.found, **line.found}
    model = _model(line, found)
    if model is not None:
        found["model"] = [Occurrence("--model", (model,))]
    dotted = [*from_file.dotted, *line.dotted]
    _check(found, dotted)
    return SplitLine(
        own=[word for name in found if name in own for word in _own_words(own[name], found[name])],
        vllm=[
            *(word for name in found if name not in own for word in _vllm_words(name, found[name])),
            *chain.from_iterable(dotted),
        ],
    )


class _Line:
    """What one source of words gives: options by name, JSON parts as `--name.key value`, other words."""

    def __init__(self) -> None:
        self.found: dict[str, list[Occurrence]] = defaultdict(list)
        self.dotted: list[tuple[str, str]] = []
        self.others: list[str] = []


class _Reader:
    """Reads words with argparse, which vLLM uses too."""

    def __init__(self, own: Mapping[str, OwnOption]) -> None:
        self._parser = _Parser(add_help=False, allow_abbrev=False, exit_on_error=False)
        self.shapes: dict[str, VllmOption | OwnOption] = {**own, **options()}
        for name, option in self.shapes.items():
            flags = option.flags if isinstance(option, VllmOption) else (option.flag,)
            self._parser.add_argument(*flags, dest=name, action=_Collect, nargs=_nargs(option))
        self._known = [
            flag for flag in self._parser._option_string_actions if flag.partition("--")[2] not in REFUSED
        ]

    def read(self, words: Sequence[str], place: str) -> _Line:
        line = _Line()
        plain = self._without_dotted([*chain.from_iterable(map(_plain_word, words))], line, place)
        namespace = Namespace(found=[])
        try:
            _, rest = self._parser.parse_known_args(plain, namespace)
        except ArgumentError as error:
            raise self._misused(error, place) from error
        for word in rest:
            if word.startswith("-") and word != "-":
                raise unknown(word, self._known, place)
        for name, occurrence in namespace.found:
            line.found[name].append(occurrence)
        line.others = rest
        return line

    def _without_dotted(self, words: Sequence[str], line: _Line, place: str) -> list[str]:
        """Move vLLM's form of JSON values, `--name.key value`, from `words` to `line.dotted`."""
        kept, rest = [], iter(words)
        for word in rest:
            key, equals, value = word.partition("=")
            flag, dot, keys = key.partition(".")
            action = self._parser._option_string_actions.get(flag)
            if dot and flag.startswith("--") and action is None:
                raise unknown(flag, self._known, place)
            if not dot or action is None:
                kept.append(word)
                continue
            given = value if equals else next(rest, None)
            if given is None:
                raise invalid(f"{place}{word} needs a value.")
            line.dotted.append((f"--{action.dest}.{keys}", given))
        return kept

    def _misused(self, error: ArgumentError, place: str) -> Exception:
        """argparse's message about a flag without its value, or with a value that it does not take."""
        flag = (error.argument_name or "").partition("/")[0]
        option = options().get(flag.removeprefix("--"))
        if "ignored explicit argument" in error.message:
            off = (
                f" Use {flag.replace('--', '--no-', 1)} to turn it off."
                if option and option.is_toggle
                else ""
            )
            return invalid(f"{place}{flag} takes no value.{off}")
        if "expected" in error.message:
            return invalid(f"{place}{flag} needs a value.")
        return invalid(f"{place}{error}.")


def _nargs(option: VllmOption | OwnOption) -> int | str | None:
    if isinstance(option, OwnOption):
        return None if option.takes_value else 0
    return None if option.values == 1 else option.values


def _plain_word(word: str) -> list[str]:
    """`word` with dashes for underscores in its flag, and vLLM's `-O3` in its long form."""
    if word.startswith("-O"):
        return ["--optimization-level", *([word[2:].removeprefix("=")] if word[2:] else [])]
    if not word.startswith("--"):
        return [word]
    flag, equals, value = word.partition("=")
    name, dot, keys = flag.partition(".")
    return [name.replace("_", "-") + dot + keys + equals + value]


def _model(line: _Line, found: Mapping[str, list[Occurrence]]) -> str | None:
    """The model of `serve MODEL`, or None."""
    if len(line.others) > 1:
        raise invalid(f"{' '.join(line.others)}: give one model. Other words need a flag before them.")
    if not line.others:
        return None
    if "model" in line.found and line.found["model"][-1].values != (line.others[0],):
        raise invalid(f"{line.others[0]} and --model {found['model'][-1].values[0]}: give one model.")
    return line.others[0]


def _check(found: Mapping[str, list[Occurrence]], dotted: Sequence[tuple[str, str]]) -> None:
    """Raise LoraComposeError for an option of vLLM that is refused, or whose value it could not read."""
    parts = {flag.partition(".")[0].removeprefix("--"): flag for flag, _ in dotted}
    for name, flag in parts.items():
        if name in found:
            raise invalid(f"--{name} and {flag}: give the value once, as JSON or in parts.")
        if name in REFUSED or name in SERVER:
            raise refused(flag, REFUSED[name]) if name in REFUSED else invalid(f"{flag} has no parts.")
    for name in found.keys() & options().keys():
        for occurrence in found[name]:
            _check_occurrence(options()[name], occurrence)


def _check_occurrence(option: VllmOption, occurrence: Occurrence) -> None:
    _check_refusal(option, occurrence)
    if option.name not in SERVER or option.kind in {"int", "float"}:
        for value in occurrence.values:
            check_value(option, value)


def _check_refusal(option: VllmOption, occurrence: Occurrence) -> None:
    refusal = REFUSED.get(option.name)
    if refusal is None:
        return
    is_off = option.turns_off(occurrence.flag)
    is_harmless = occurrence.values != () and set(occurrence.values) <= set(refusal.harmless)
    if not is_harmless and is_off == refusal.when_off:
        raise refused(occurrence.flag, refusal)


def _own_words(own: OwnOption, occurrences: Sequence[Occurrence]) -> list[str]:
    """The words of one of our options, in the form that our own parser reads."""
    if not own.takes_value:
        is_on = not occurrences[-1].flag.startswith("--no-")
        return [own.flag] if is_on else []
    values = [value for occurrence in occurrences for value in occurrence.values]
    option = options().get(own.flag.removeprefix("--"))
    if option is not None and option.kind == "json":
        values = [item for value in values for item in _list_of(own.flag, value)]
    elif not own.is_repeatable:
        values = values[-1:]
    return [f"{own.flag}={value}" for value in values]


def _list_of(flag: str, text: str) -> list[str]:
    """The texts in a JSON list, which is how vLLM takes the CORS options."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        shown = "*" if set(text) & set('"[]{}') or not text else text
        raise invalid(f"{flag} ({text}) must be a JSON list of texts, as {flag} '[\"{shown}\"]'.")
    return values


def _vllm_words(name: str, occurrences: Sequence[Occurrence]) -> list[str]:
    """The words of one of vLLM's options, in its long form."""
    option, last = options()[name], occurrences[-1]
    if name in REFUSED:
        return [option.flag] if REFUSED[name].when_off else []
    if option.values == 0:
        return [f"--no-{name}" if option.turns_off(last.flag) else option.flag]
    if option.values == 1:
        return [f"{option.flag}={last.values[0]}"]
    used = occurrences if name in JOINED else [last]
    return [option.flag, *chain.from_iterable(occurrence.values for occurrence in used)]
