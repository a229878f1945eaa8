"""A message of a conversation, as chat templates take it."""

from typing import TypedDict


class Message(TypedDict):
    """`role` is system, user or assistant."""

    role: str
    content: str
