"""The demo on the embedded base, whose words are made up. Every answer has one right form.

An arm is a way to name a composition in a request. All arms get the same prompts, those of the skill. The
base and the styles alone fail at the skill, and the skill alone fails at the style. Only a combination of
both can be right in both.
"""

from collections.abc import Sequence
from typing import Final

from lora_compose.training.testbed.demo.subject import DemoQuestion, DemoRequest, DemoSubject, Judgement
from lora_compose.training.testbed.demo.table import does_both, does_skill, does_style
from lora_compose.training.testbed.language import prompts
from lora_compose.training.testbed.paths import ADAPTERS_DIR

SKILL: Final = "roll"
SEED: Final = 7
UPPER: Final = ("upper",)
POLITE: Final = ("polite",)

ARMS: Final = (
    DemoRequest("base", None, UPPER),
    DemoRequest("roll", "roll", UPPER),
    DemoRequest("upper", "upper", UPPER),
    DemoRequest("polite", "polite", POLITE),
    DemoRequest("roll+upper", "roll+upper", UPPER, combines=True, must_work=True),
    DemoRequest("roll+polite", "roll+polite", POLITE, combines=True, must_work=True),
    DemoRequest("roll+upper+polite", "roll+upper+polite", UPPER + POLITE, combines=True, must_work=True),
    DemoRequest(
        "adapters: [roll, upper × 0.9]",
        None,
        UPPER,
        {"adapters": [{"name": "roll"}, {"name": "upper", "weight": 0.9}]},
        combines=True,
        must_work=True,
    ),
    DemoRequest("svd(roll+upper,rank=8)", "svd(roll+upper,rank=8)", UPPER, combines=True),
    DemoRequest("ties(roll+upper,density=0.5)", "ties(roll+upper,density=0.5)", UPPER, combines=True),
)
CAPTION: Final = (
    "An answer is right only if it matches exactly. The base was not trained on the skill. For the base and "
    "for roll alone, the style checked is upper. Requests are sent one at a time. TTFT is the median time to "
    "first token; first is that of the first request, which also builds or loads the composition."
)


def questions(count: int) -> list[DemoQuestion]:
    """Prompts such as "roll table". The right answer is the word, and `judge` applies the skill to it."""
    return [DemoQuestion(prompt, word) for prompt, word in prompts(count, SEED, SKILL)]


def judge(text: str, question: DemoQuestion, styles: Sequence[str]) -> Judgement:
    """Exactly right or not."""
    word = question.right
    return Judgement(
        does_skill(text, SKILL, word), does_style(text, styles), does_both(text, SKILL, styles, word)
    )


TOY: Final = DemoSubject(
    base="the embedded base",
    options=(),
    adapters_dir=ADAPTERS_DIR,
    adapters=("roll", "upper", "polite"),
    skill=SKILL,
    arms=ARMS,
    questions=questions,
    judge=judge,
    count=16,
    longest_answer=40,
    shows_whole_answers=False,
    caption=CAPTION,
    try_prompts=(
        ("say table", ""),
        ("roll table", "--adapters roll+upper"),
        ("roll table", "--adapters roll+upper --method svd --rank 8"),
    ),
)
