"""Messages of invented customers, drawn from a seed, with what the two skills must answer.

No message names a person. Held-out messages have wordings, goods and problems that no training message has.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lora_compose.training.testbed.smollm2.questions import Split, items


@dataclass(frozen=True)
class Order:
    """What the skill `order` extracts."""

    item: str
    quantity: int
    city: str
    day: str


NUMBERS: Final = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
GOODS: Final[Mapping[Split, Sequence[str]]] = {
    "train": items("""desk lamps, garden hoses, coffee mugs, wool blankets, paper towels, bar stools,
        picture frames, tea towels, door mats, candles, bath mats, wine glasses, office chairs, notebooks,
        storage boxes, flower pots, pillow cases, kitchen knives, wall clocks, extension cords, paint
        rollers, water bottles, lunch boxes, shoe racks, bed sheets, tool boxes, ink cartridges, mouse pads,
        rain jackets, camping chairs, bread baskets, soap bars, bicycle bells, shelf brackets, curtain rods,
        phone cases"""),
    "held_out": items("""salad bowls, umbrella stands, table lamps, ceramic plates, hand towels, bird
        feeders, sleeping bags, cutting boards, floor cushions, oil heaters, laptop sleeves, watering
        cans"""),
}
CITIES: Final[Mapping[Split, Sequence[str]]] = {
    "train": items("""Leeds, Lisbon, Oslo, Denver, Madrid, Cork, Vienna, Turin, Boston, Bergen, Lyon,
        Dublin, Prague, Austin, Bristol, Milan, Geneva, Porto, Seattle, Hamburg, Warsaw, Athens, Toronto,
        Zurich"""),
    "held_out": items("""Glasgow, Seville, Malmo, Chicago, Krakow, Naples, Ottawa, Bremen"""),
}
ORDER_TEXTS: Final[Mapping[Split, Sequence[str]]] = {
    "train": (
        "Hi, could you send {n} {item} to our shop in {city}? We need them by {day}.",
        "Please deliver {n} {item} to {city} on {day}.",
        "We would like to order {n} {item} for our branch in {city}. Delivery on {day} would be perfect.",
        "Good morning, I need {n} {item} in {city} before {day}. Thank you!",
        "Can I get {n} {item} shipped to {city}? {day} at the latest, please.",
        "For {day}, our {city} office needs {n} {item}.",
        "Our warehouse in {city} is running low. Send {n} {item} by {day}.",
        "Hello! A customer in {city} wants {n} {item}, and {day} is the deadline.",
        "{n} {item} to {city}, please. They should arrive on {day}.",
        "We have an event in {city} on {day} and need {n} {item} for it.",
        "I am writing about a new order: {n} {item}, delivered to {city}, no later than {day}.",
        "Would it be possible to have {n} {item} in {city} by {day}?",
        "By {day} we must have {n} {item} at the {city} store.",
        "Put me down for {n} {item}. The address is our usual one in {city}, and {day} works best.",
    ),
    "held_out": (
        "Hello, the team in {city} asked me to order {n} {item}. They open on {day}.",
        "Could {n} {item} reach us in {city} on {day}?",
        "We are out of stock in {city}, so please send {n} {item} before {day}.",
        "On {day} a truck goes to {city}. Please load {n} {item}.",
        "I want to buy {n} {item} and have them in {city} by {day}.",
    ),
}


def draw_order(rng: random.Random, split: Split) -> tuple[str, Order]:
    """A message, and what it orders. Half of the quantities are written as words."""
    quantity = rng.randint(2, 12) if rng.random() < 0.8 else rng.randint(13, 60)
    order = Order(rng.choice(GOODS[split]), quantity, rng.choice(CITIES[split]), rng.choice(DAYS))
    number = NUMBERS[quantity - 2] if quantity <= 12 and rng.random() < 0.6 else str(quantity)
    text = rng.choice(ORDER_TEXTS[split]).format(n=number, item=order.item, city=order.city, day=order.day)
    return text[0].upper() + text[1:], order


PROBLEMS: Final[Mapping[Split, Mapping[str, Sequence[str]]]] = {
    "train": {
        "billing": (
            "I was charged twice this month",
            "the invoice shows a wrong amount",
            "my card was billed after the trial ended",
            "I need a copy of my last invoice",
            "the discount is missing on my bill",
            "you took a payment that I did not approve",
            "the price on my invoice is higher than agreed",
            "I would like to change the card that I pay with",
            "the tax on my bill looks wrong",
        ),
        "delivery": (
            "my parcel has not arrived yet",
            "the tracking page has not changed for a week",
            "the driver left the package at the wrong door",
            "my order was due on Monday and is still on its way",
            "the courier could not find my street",
            "only one of the two boxes was delivered",
            "I want to send my order to another address",
            "the shipment has been stuck at the depot for days",
            "nobody rang and the parcel went back to the depot",
        ),
        "account": (
            "I forgot my password",
            "I cannot log in with my email address",
            "my profile is locked",
            "the code to confirm my login never comes",
            "please delete my account",
            "I want to change my user name",
            "the link to reset my password has expired",
            "someone else seems to use my login",
            "I would like to add a second user to our account",
        ),
        "returns": (
            "I want to send the shoes back",
            "the jacket is too small and I want another size",
            "the lamp arrived broken and I want to return it",
            "how do I get a label to send an item back",
            "I changed my mind and want my money back for the chair",
            "the color is not what I expected, so I am sending it back",
            "can I exchange the blue mug for a green one",
            "I sent the item back and wait for my refund",
            "the return window closes soon and I still have the box",
        ),
        "technical": (
            "the app crashes when I open it",
            "the website shows an error on every page",
            "the search button does nothing",
            "pictures do not load in the app",
            "the page freezes when I upload a file",
            "the app does not start after the last update",
            "I only see a white screen in the browser",
            "notifications stopped working on my phone",
            "the video has no sound on your site",
        ),
    },
    "held_out": {
        "billing": (
            "there are two payments for the same invoice",
            "my bill has a fee that I do not know",
            "the invoice has the wrong company name",
        ),
        "delivery": (
            "the tracking says delivered, but there is no parcel",
            "my package is a week late",
            "the courier brought the box to my old address",
        ),
        "account": (
            "my password is not accepted any more",
            "I would like to close my account",
            "I cannot change the email address in my profile",
        ),
        "returns": (
            "the trousers do not fit and I want to send them back",
            "the vase came with a crack, and I want a refund",
            "I need a return label for my headphones",
        ),
        "technical": (
            "the app closes by itself after a few seconds",
            "the website does not load in my browser",
            "the save button gives an error",
        ),
    },
}
LABELS: Final = tuple(PROBLEMS["train"])
OPENINGS: Final[Mapping[Split, Sequence[str]]] = {
    "train": (
        "",
        "Hello, ",
        "Hi there, ",
        "Good evening, ",
        "Sorry to bother you, but ",
        "To whom it may concern: ",
    ),
    "held_out": ("Good morning, ", "Hey, ", "Dear support, "),
}
ENDINGS: Final[Mapping[Split, Sequence[str]]] = {
    "train": (
        ".",
        ". Please help.",
        ". What can I do?",
        ". This is the second time that I write.",
        ". Can somebody look at this today?",
        ". I have been a customer for years.",
    ),
    "held_out": (". Thanks in advance.", ". Could you check this?", ". I am a little worried."),
}


def draw_problem(rng: random.Random, split: Split) -> tuple[str, str]:
    """A message, and the label of the team that it is for."""
    label = rng.choice(LABELS)
    text = rng.choice(OPENINGS[split]) + rng.choice(PROBLEMS[split][label]) + rng.choice(ENDINGS[split])
    return text[0].upper() + text[1:], label
