"""How a server with a base writes chats and where it stops: by the chat template and end tokens in its files.

What is scored must be what is served. TRL changes the tokenizer and the generation config of a model in
memory when a recipe names another template or end token, so both are copied before a trainer is made.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.data.messages import Message


@dataclass(frozen=True)
class ServedChat:
    """A copy of a base's tokenizer, and its end tokens."""

    tokenizer: Any
    """It has a pad token, and pads on the left, so that an answer follows its prompt directly."""
    end_ids: tuple[int, ...]
    """The token ids at which a server stops: vLLM stops at the tokenizer's and the generation config's."""
    _generation: Any

    @classmethod
    def of(cls, tokenizer: Any, model: Any) -> Self:
        """That of a base as it was loaded from its files."""
        tokenizer, generation = deepcopy(tokenizer), deepcopy(model.generation_config)
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        listed = generation.eos_token_id
        ends = [tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])]
        return cls(tokenizer, tuple(dict.fromkeys(end for end in ends if end is not None)), generation)

    def generation(self, max_tokens: int) -> Any:
        """The generation config for greedy answers of at most `max_tokens` tokens."""
        generation = deepcopy(self._generation)
        generation.update(
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_length=None,
            max_new_tokens=max_tokens,
            eos_token_id=list(self.end_ids),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return generation

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> Any:
        """Token ids and attention mask, on the CPU, of shape (conversations, longest).

        Raises as `_written` does.
        """
        return self._written(
            [list(conversation) for conversation in conversations],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )

    def ids(self, conversation: Sequence[Message], *, answers_next: bool = False) -> list[int]:
        """The token ids of one conversation. Raises as `_written`."""
        written = self._written(list(conversation), add_generation_prompt=answers_next, return_dict=True)
        ids: list[int] = written["input_ids"]
        return ids

    def length(self, text: str) -> int:
        """Tokens of an answer, with one for its end."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1

    def _written(self, conversations: Any, **options: Any) -> Any:
        """Raises LoraComposeError("chat_template_failed") if there is no template, or it refuses the chat."""
        from jinja2 import TemplateError

        if self.tokenizer.chat_template is None:
            raise LoraComposeError(
                CommandCode.CHAT_TEMPLATE_FAILED,
                "The base has no chat template, so it cannot answer chats. Put one into the base's directory "
                "as chat_template.jinja",
                "model",
            )
        try:
            return self.tokenizer.apply_chat_template(conversations, **options)
        except TemplateError as error:
            raise LoraComposeError(
                CommandCode.CHAT_TEMPLATE_FAILED, f"The base's chat template refuses a chat: {error}", "model"
            ) from error
