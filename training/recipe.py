"""A recipe: options of TRL and PEFT and our own (`recipe_options.py`), from a file and the command line."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.cache import resolve
from lora_compose.training.deprecations import collected
from lora_compose.training.recipe_defaults import Method, defaults_of
from lora_compose.training.recipe_options import (
    OWN_OPTIONS,
    AdapterArguments,
    DataArguments,
    LabelArguments,
    PublishArguments,
    ScoreArguments,
    StartArguments,
)
from lora_compose.training.recipe_rules import faults_of
from lora_compose.training.reporters import check_reporters


@dataclass(frozen=True)
class Recipe:
    """All settings of a run. `training` is TRL's config of the method, `model` is its ModelConfig."""

    method: Method
    training: Any
    model: Any
    data: DataArguments
    labels: LabelArguments
    adapter: AdapterArguments
    start: StartArguments
    score: ScoreArguments
    publish: PublishArguments
    given: frozenset[str]
    """The names of the settings that the recipe or the command line gives. The others are defaults."""
    deprecated: tuple[str, ...] = ()
    """What TRL says about settings that it will remove."""

    @property
    def output(self) -> Path:
        """The run's directory."""
        return Path(self.training.output_dir)


def read_recipe(method: Method, path: Path | None, options: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file. `options` (`--name value`) override it.

    Raises LoraComposeError("invalid_recipe"). For an unknown key, the message suggests the most similar one.
    """
    parser = _parser(method)
    parser.set_defaults_with_config(**defaults_of(method))
    content = {} if path is None else _content(path)
    arguments = ([] if path is None else ["--config", str(path)]) + list(options)
    deprecated: list[str] = []
    try:
        with collected(deprecated):
            training, model, *own = parser.parse_args_and_config(arguments)
    except (ValueError, TypeError, OSError) as error:
        raise LoraComposeError(CommandCode.INVALID_RECIPE, _explained(error, parser), "recipe") from error
    if model.model_name_or_path is not None:
        model.model_name_or_path = resolve(model.model_name_or_path, "model_name_or_path")
    check_reporters(training.report_to)
    data, labels, adapter, start, score, publish = own
    given = frozenset(content) | _named(options)
    parts = (data, labels, adapter, start, score, publish, given, tuple(deprecated))
    recipe = Recipe(method, training, model, *parts)
    _check(recipe)
    return recipe


def _named(options: Sequence[str]) -> set[str]:
    """The settings that options of the command line give."""
    return {option[2:].partition("=")[0].replace("-", "_") for option in options if option.startswith("--")}


def _parser(method: Method) -> Any:
    from trl import DPOConfig, KTOConfig, ModelConfig, SFTConfig, TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> None:
            """Raise. argparse's method would print three hundred options and exit the process."""
            raise ValueError(message)

    trl = {"sft": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig}[method]
    return Parser((trl, ModelConfig, *OWN_OPTIONS), allow_abbrev=False)


def _content(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe file. Raises LoraComposeError("invalid_recipe")."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LoraComposeError(
            CommandCode.INVALID_RECIPE, f"{path} cannot be read: {error}", "recipe"
        ) from error
    if not isinstance(content, dict):
        raise LoraComposeError(CommandCode.INVALID_RECIPE, f"{path} is not a YAML mapping", "recipe")
    if "env" in content:
        raise LoraComposeError(
            CommandCode.INVALID_RECIPE,
            f"{path}: 'env' is not allowed, because a recipe must not set environment variables",
            "recipe",
        )
    return content


def _explained(error: Exception, parser: Any) -> str:
    """The message for `error`. For an unknown key, it suggests the most similar known key."""
    unknown = (
        re.findall(r"--([A-Za-z][\w-]*)", str(error))
        if "nknown" in str(error) or "not used" in str(error)
        else []
    )
    known = sorted({action.dest for action in parser._actions})
    if not unknown:
        return str(error)
    hints = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, 1)
        hints.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return f"Unknown option: {', '.join(hints)}"


def _check(recipe: Recipe) -> None:
    """Check rules that the libraries would check only after hours of training, or not at all.

    Raises LoraComposeError("invalid_recipe"), and the errors of PublishArguments.check.
    """
    faults = faults_of(recipe)
    if faults:
        raise LoraComposeError(CommandCode.INVALID_RECIPE, "; ".join(faults), "recipe")
    recipe.publish.check()
