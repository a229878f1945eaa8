"""The made-up vocabulary of our files for llama.cpp: the text of token 17 is "17,".

The benchmark sends token ids, and reads the ids of an answer from its text.
"""

from typing import Final

END: Final = ","


def token_text(number: int) -> str:
    """The text of a token."""
    return f"{number}{END}"


def token_ids(text: str) -> list[int]:
    """The ids of the tokens in an answer. Raises ValueError if it has another vocabulary."""
    return [int(number) for number in text.split(END) if number]
