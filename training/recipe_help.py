"""Shows the options of a recipe in the help of `train sft` and `train dpo`.

TRL's parser reads them, together with some hundred options of TRL and PEFT, so typer must not parse them.
"""

import inspect
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand
from typing_extensions import override

from lora_compose.training.recipe_options import OWN_OPTIONS

PANEL = "Options of a recipe, also as keys of RECIPE"


class RecipeCommand(TyperCommand):
    """A command whose help also lists our own options of a recipe."""

    @override
    def format_help(self, ctx: Any, formatter: Any) -> None:
        parsed = self.params
        self.params = [*parsed, *_documented()]
        try:
            super().format_help(ctx, formatter)
        finally:
            self.params = parsed


def _documented() -> list[Any]:
    """Our options as typer would parse them, to be shown only."""

    def options(**_: object) -> None: ...

    shown = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    f"--{field.name.replace('_', '-')}",
                    help=field.metadata["help"],
                    metavar=_metavar(get_type_hints(own)[field.name]),
                    rich_help_panel=PANEL,
                ),
            ],
        )
        for own in OWN_OPTIONS
        for field in fields(own)
    ]
    vars(options)["__signature__"] = inspect.Signature(shown)
    options.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    app = typer.Typer(add_completion=False)
    app.command()(options)
    return list(typer.main.get_command(app).params)


def _metavar(kind: Any) -> str:
    """FILE... for lists, the choices of a literal, else the name of the type in capitals."""
    text = str(kind)
    if text.startswith("list"):
        return "VALUE..."
    if "Literal" in text:
        return "|".join(str(choice) for choice in kind.__args__)
    if "bool" in text:
        return "BOOL"
    return "NUMBER" if "int" in text or "float" in text else "TEXT"
