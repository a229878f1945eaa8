"""How much of each member of a composition remains in SmolLM2's answers to held-out questions.

A composition with skills is asked for each of its skills in turn. Without skills, it gets ordinary questions.
"""

import json
from collections.abc import Sequence
from statistics import mean

from lora_compose.training.testbed.smollm2.forms import ORDINARY, Judged, judge
from lora_compose.training.testbed.smollm2.paths import DATA_DIR
from lora_compose.training.testbed.subject import Ask, Cell, Part


def questions(kind: str, part: Part) -> list[tuple[str, str]]:
    """The prompts of held-out rows with their right answers without styles."""
    rows = map(json.loads, (DATA_DIR / f"{kind}-{part}.jsonl").read_text().splitlines())
    return [(row["prompt"], row["completion"]) for row in rows]


def judged(skill: str | None, styles: Sequence[str], ask: Ask, part: Part) -> list[Judged]:
    """The judgements of the answers to all rows of one skill, or to the ordinary questions."""
    asked = questions(skill or ORDINARY, part)
    answers = ask([prompt for prompt, _ in asked])
    return [judge(text, right, skill, styles) for text, (_, right) in zip(answers, asked, strict=True)]


def shares_of(skills: Sequence[str], styles: Sequence[str], ask: Ask, part: Part) -> Cell:
    """The shares over all rows."""
    by_skill = [(skill, judged(skill, styles, ask, part)) for skill in skills or (None,)]
    every = [row for _, rows in by_skill for row in rows]
    members = {skill: mean(row.content for row in rows) for skill, rows in by_skill if skill is not None}
    members |= {style: mean(row.styles[style] for row in every) for style in styles}
    return {
        "joint": mean(row.exact for row in every),
        "content": mean(row.content for row in every),
        "style": mean(all(row.styles.values()) for row in every),
        "members": members,
        "n": len(every),
    }
