"""The demo on SmolLM2: a skill of real use (an order in a message, as JSON) with styles of an answer.

The adapters and the messages are those of `training/testbed/smollm2`. The messages are held out: no wording,
article or city of them was trained on. At weights of 1 the skill hides the greeting on this base. The other
weights are those that a search on rows for tuning found (`lora_compose.training.testbed.quality`).
"""

import json
from collections.abc import Sequence
from typing import Final

from lora_compose.training.testbed.demo.subject import DemoQuestion, DemoRequest, DemoSubject, Judgement
from lora_compose.training.testbed.smollm2.forms import judge as judge_of_forms
from lora_compose.training.testbed.smollm2.paths import ADAPTERS_DIR, DATA_DIR

SKILL: Final = "order"
SIGN: Final = ("sign",)
GREET: Final = ("greet",)

ARMS: Final = (
    DemoRequest("base", None, SIGN),
    DemoRequest("order", "order", SIGN),
    DemoRequest("sign", "sign", SIGN),
    DemoRequest("greet", "greet", GREET),
    DemoRequest("order+sign", "order+sign", SIGN, combines=True),
    DemoRequest("order+greet", "order+greet", GREET, combines=True),
    DemoRequest("order:0.6+sign", "order:0.6+sign", SIGN, combines=True),
    DemoRequest("order:0.6+greet:1.4", "order:0.6+greet:1.4", GREET, combines=True),
    DemoRequest("svd(order+sign,rank=16)", "svd(order+sign,rank=16)", SIGN, combines=True),
    DemoRequest("ties(order+greet,density=0.5)", "ties(order+greet,density=0.5)", GREET, combines=True),
)
CAPTION: Final = (
    "Skill: the JSON is in the answer and equal to the right one. Both: the answer is the JSON and the style "
    "only. The base was not trained on either. For the base and for order alone, the style "
    "checked is sign. Requests are sent one at a time. TTFT is the median time to first token; first is that "
    "of the first request, which also builds or loads the composition."
)


def questions(count: int) -> list[DemoQuestion]:
    """Held-out messages with an order, and the JSON of each."""
    rows = map(json.loads, (DATA_DIR / f"{SKILL}-score.jsonl").read_text().splitlines()[:count])
    return [DemoQuestion(row["prompt"], row["completion"]) for row in rows]


def judge(text: str, question: DemoQuestion, styles: Sequence[str]) -> Judgement:
    """By code: JSON equality, and the words of the styles."""
    found = judge_of_forms(text, question.right, SKILL, styles)
    return Judgement(found.content, all(found.styles.values()), found.exact)


SMOLLM2: Final = DemoSubject(
    base="SmolLM2",
    options=("--model", "smollm2"),
    adapters_dir=ADAPTERS_DIR,
    adapters=("order", "greet", "sign"),
    skill=SKILL,
    arms=ARMS,
    questions=questions,
    judge=judge,
    count=6,
    longest_answer=96,
    shows_whole_answers=True,
    caption=CAPTION,
    try_prompts=(
        ("What is the capital of France?", "--adapters sign"),
        ("Please send three lamps to Oslo by Friday.", "--adapters order+sign"),
        ("Please send three lamps to Oslo by Friday.", "--adapters order:0.6+greet:1.4"),
    ),
)
