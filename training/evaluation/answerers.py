"""Who is asked: a model in this process, or a running server by its model name. Greedy, one answer each."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from adapters.client import unreachable
from adapters.errors import LoraComposeError
from training.data.messages import Message

IN_FLIGHT = 16
"""Requests a server has at a time."""


class Answerer(Protocol):
    """Answers each conversation greedily, in order, in at most `max_tokens` tokens."""

    def answer(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]: ...


class LocalModel:
    """A transformers or PEFT model. What it was, training or not, it is again afterwards."""

    def __init__(self, model: Any, tokenizer: Any, batch: int = 64) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch = batch

    def answer(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]:
        """See Answerer."""
        was_training, side = self._model.training, self._tokenizer.padding_side
        self._model.eval()
        self._tokenizer.padding_side = "left"  # an answer begins where its prompt ends
        try:
            starts = range(0, len(prompts), self._batch)
            return [
                text
                for start in starts
                for text in self._batched(prompts[start : start + self._batch], max_tokens)
            ]
        finally:
            self._tokenizer.padding_side = side
            self._model.train(was_training)

    def _batched(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]:
        import torch

        inputs = self._tokenizer.apply_chat_template(
            [list(prompt) for prompt in prompts],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        ).to(self._model.device)
        with torch.no_grad():
            output = self._model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        answers: list[str] = self._tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return answers


class ServedModel:
    """`model` of an OpenAI-compatible server: a base, an adapter or a composition.

    What the server refuses is raised as LoraComposeError with its own code; none there: "server_unreachable".
    """

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        from openai import OpenAI

        self._client = OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key=api_key or "none")
        self._url = url
        with self._refusals():
            self.name = model or self._client.models.list().data[0].id

    def answer(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]:
        """See Answerer."""
        with self._refusals(), ThreadPoolExecutor(IN_FLIGHT) as pool:
            return list(pool.map(lambda prompt: self._one(prompt, max_tokens), prompts))

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        from openai import APIConnectionError, APIError

        try:
            yield
        except APIConnectionError as error:
            raise unreachable(self._url, str(error.__cause__ or error)) from error
        except APIError as error:
            raise LoraComposeError(str(error.code or "refused"), error.message, error.param) from error

    def _one(self, prompt: Sequence[Message], max_tokens: int) -> str:
        reply = self._client.chat.completions.create(
            model=self.name,
            messages=list(prompt),  # type: ignore[arg-type]
            max_completion_tokens=max_tokens,
            temperature=0,
        )
        return reply.choices[0].message.content or ""
