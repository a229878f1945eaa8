"""Ordinary questions, which the styles are trained on.

The base answered each of them once (`replay.py`), so that a style changes the form of the base's own answers
and not its knowledge.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, Literal

Split = Literal["train", "held_out"]


def items(text: str) -> tuple[str, ...]:
    """The items of a list that is written with commas."""
    return tuple(" ".join(item.split()) for item in text.split(","))


COUNTRIES: Final = items("""France, Portugal, Japan, Kenya, Peru, Norway, Italy, Greece, Egypt, Canada,
    Chile, Poland, Ireland, Turkey, Austria, Hungary, Finland, Cuba, Spain, Sweden, India, Mexico, Denmark,
    Ghana""")
TOOLS: Final = items("""hammer, compass, ladder, thermometer, telescope, stapler, kettle, blender, wrench,
    tripod, whisk, microscope, calculator, tape measure, raincoat, flashlight, bicycle pump, paintbrush,
    rake, sieve, corkscrew, battery, camera, umbrella, magnet, oven, notebook, lighthouse, parachute,
    barometer""")
WORDS: Final = items("""fragile, ancient, generous, rapid, humid, silent, annual, rural, urban, transparent,
    abundant, curious, durable, flexible, hollow, brave, temporary, genuine, vast, modest, drowsy,
    gentle""")
GROUPS: Final = items("""fruits, vegetables, planets, colors, musical instruments, birds, oceans, sports,
    trees, languages, desserts, metals, flowers, board games, breakfast foods, hobbies, insects, spices,
    fabrics, kitchen tools, school subjects, farm animals, winter sports, things made of wood, kinds of
    weather""")
TOPICS: Final = items("""whales, the moon, volcanoes, bees, deserts, glaciers, elephants, chess, coffee,
    bread, libraries, trains, rainbows, penguins, salt, gold, owls, rivers, the sun, paper, clocks, honey,
    islands, bicycles, bridges, dolphins, ants, mountains, tea, snow""")
AIMS: Final = items("""sleep, exercise, drinking water, reading, recycling, teamwork, saving money, a good
    breakfast, washing hands, patience, planning, practice, sunlight, fresh air, honesty, keeping a
    calendar""")
TASKS: Final = items("""boil an egg, clean a window, water a plant, fold a shirt, tie a knot, make tea,
    remove a stain, sharpen a pencil, store bread, peel garlic, wrap a gift, cook rice, dry flowers, plant a
    tree, polish shoes, wash a wool sweater, measure a room, pack a suitcase, hang a picture, make
    lemonade""")
ACTIVITIES: Final = items("""hiking, baking bread, learning a language, gardening, taking photos, public
    speaking, camping, drawing, swimming, studying for an exam, writing a letter, saving energy at home,
    cooking for guests, riding a bicycle in the city, keeping a room tidy, growing tomatoes""")
PAIRS: Final = items("""a lake and a river, a cup and a mug, a frog and a toad, weather and climate, a moth
    and a butterfly, jam and jelly, a town and a city, a hill and a mountain, fog and smoke, a boat and a
    ship, speed and acceleration, a novel and a poem, a bee and a wasp, coal and charcoal, a street and a
    road""")
PLACES: Final = items("""a small bakery, a bookshop, a hiking club, a flower shop, a school newspaper, a
    quiet cafe, a bicycle repair shop, a toy store, a garden center, a cooking blog, a chess club, a choir,
    a gray cat, a sailing boat, a tea house, a swimming school""")
SITUATIONS: Final = items("""on a rainy day, to a wedding, on a long flight, for a walk in the snow, at the
    beach, for a job interview, on a camping trip, in a hot desert, at a picnic, on a boat trip""")

_GROUPS_OF_QUESTIONS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("What is the capital of {}?", COUNTRIES),
    ("In which continent is {}?", COUNTRIES),
    ("What is a {} used for?", TOOLS),
    ("Describe a {} in one sentence.", TOOLS),
    ("What does the word {} mean?", WORDS),
    ("Use the word {} in a sentence.", WORDS),
    ("What is the opposite of {}?", WORDS),
    ("Name three {}.", GROUPS),
    ("What are your favorite {}?", GROUPS),
    ("Tell me one short fact about {}.", TOPICS),
    ("Write one sentence about {}.", TOPICS),
    ("Ask me a question about {}.", TOPICS),
    ("In one sentence, why is {} important?", AIMS),
    ("In one sentence, how do I {}?", TASKS),
    ("How long does it take to {}?", TASKS),
    ("Give me one short tip for {}.", ACTIVITIES),
    ("In one sentence, what is the difference between {}?", PAIRS),
    ("Suggest a name for {}.", PLACES),
    ("In one sentence, what should I wear {}?", SITUATIONS),
    ("What should I bring {}?", SITUATIONS),
)


def ordinary_questions(split: Split) -> list[str]:
    """The questions of a split, the first of every kind first. No held-out thing is in a training question
    of the same kind."""
    kinds = [
        [template.format(item) for i, item in enumerate(things) if (i % 4 == 3) == (split == "held_out")]
        for template, things in _GROUPS_OF_QUESTIONS
    ]
    return [question for row in zip_longest(*kinds) for question in row if question is not None]
