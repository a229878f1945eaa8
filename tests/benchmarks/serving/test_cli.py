"""The options of `bench serve`."""

from dataclasses import fields

import typer
from typer.core import TyperGroup, TyperOption

from lora_compose.benchmarks.serving.cli import app
from lora_compose.benchmarks.serving.results.plan import Plan

WITHOUT_OPTION = {"pool", "heat_members"}


def options() -> dict[str, TyperOption]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return {one.name or "": one for one in group.commands["serve"].params if isinstance(one, TyperOption)}


def test_every_field_of_the_plan_is_an_option_with_help_and_the_field_s_default() -> None:
    found = options()
    for field in fields(Plan):
        if field.name in WITHOUT_OPTION:
            assert field.name not in found
            continue
        default = getattr(Plan(), field.name)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        assert (found[field.name].default, found[field.name].opts) == (
            shown,
            [f"--{field.name.replace('_', '-')}"],
        )
        assert found[field.name].help
