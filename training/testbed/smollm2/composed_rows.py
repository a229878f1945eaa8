"""Write questions of a skill with right answers in the form of styles, for `lora-compose train weights`.

    python -m lora_compose.training.testbed.smollm2.composed_rows order+greet rows.jsonl

The wordings, goods, cities and problems are those of the held-out rows: no adapter was trained on them. The
style `terse` does not change an answer, because a skill's answers are short.
"""

from pathlib import Path
from typing import Annotated

import typer

from lora_compose.training.testbed.smollm2.forms import SKILLS, STYLES, styled
from lora_compose.training.testbed.smollm2.write_data import Row, as_lines, skill_rows


def composed_rows(mixture: str, count: int) -> list[Row]:
    """The first `count` held-out questions of the skill. Raises ValueError for other mixtures."""
    skill, *styles = mixture.split("+")
    if skill not in SKILLS or not set(styles) <= set(STYLES):
        raise ValueError(f"{mixture} is not a skill ({', '.join(SKILLS)}) with styles ({', '.join(STYLES)})")
    rows = skill_rows(skill, count, "held_out", 0)
    return [row | {"completion": styled(row["completion"], styles)} for row in rows]


def main(
    mixture: Annotated[str, typer.Argument(help="A skill and styles, such as order+greet.")],
    output: Annotated[Path, typer.Argument(help="The JSONL file to write.")],
    count: Annotated[int, typer.Option(min=4, help="How many rows.")] = 80,
) -> None:
    """Write composed questions of SmolLM2's adapters with right answers."""
    try:
        rows = composed_rows(mixture, count)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    output.write_text(as_lines(rows))
    typer.echo(f"Wrote {output}: {len(rows)} rows")


if __name__ == "__main__":
    typer.run(main)
