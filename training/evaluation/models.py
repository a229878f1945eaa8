"""The models that an evaluation asks: one in this process, or one at a running server. Decoding is greedy.

A composition in this process is one PEFT adapter, built as `lora-compose compose` builds it.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lora_compose.adapters.errors import CommandCode, InvalidRequest, LoraComposeError
from lora_compose.server.client.chat import ChatClient
from lora_compose.training.data.messages import Message
from lora_compose.training.evaluation.held_out_text import HeldOutText, text_likelihoods
from lora_compose.training.evaluation.likelihood import Likelihood, check_length, likelihoods
from lora_compose.training.evaluation.served_chat import ServedChat

IN_FLIGHT = 16
"""Concurrent requests at a server."""
MAX_RETRIES = 2
"""How often a request is repeated after a failure or a refusal because of a quota."""


NOT_OVER_HTTP = (
    "Losses, perplexities and preferences need the model in this process: use --model in place of --url"
)


class Answerer(Protocol):
    """Answers each conversation greedily, in order, with at most `max_tokens` tokens."""

    def answer(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]: ...

    def length(self, answer: str) -> int:
        """Tokens of a right answer with its end, or an upper bound."""
        ...

    def likelihoods(self, pairs: Sequence[tuple[Sequence[Message], str]], /) -> list[Likelihood]:
        """The likelihood of each answer after its prompt."""
        ...

    def windows(self, text: HeldOutText, /) -> list[Likelihood]:
        """The likelihood of each window of a text."""
        ...


class LocalModel:
    """A transformers or PEFT model, asked as a server with the same base would ask it.

    The chat template and the end tokens are those of `chat`. After answering, the model is in training or
    eval mode as before.
    """

    def __init__(self, model: Any, chat: ServedChat, batch: int = 64) -> None:
        self._model = model
        self._chat = chat
        self._batch = batch

    def answer(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]:
        """See Answerer."""
        was_training = self._model.training
        self._model.eval()
        try:
            starts = range(0, len(prompts), self._batch)
            return [
                text
                for start in starts
                for text in self._batched(prompts[start : start + self._batch], max_tokens)
            ]
        finally:
            self._model.train(was_training)

    def length(self, answer: str) -> int:
        """See Answerer."""
        return self._chat.length(answer)

    def likelihoods(self, pairs: Sequence[tuple[Sequence[Message], str]]) -> list[Likelihood]:
        """See Answerer."""
        return likelihoods(self._model, self._chat, pairs)

    def windows(self, text: HeldOutText) -> list[Likelihood]:
        """See Answerer."""
        return text_likelihoods(self._model, self._chat.tokenizer, text)

    def _batched(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]:
        import torch

        inputs = self._chat.prompts(prompts).to(self._model.device)
        check_length(self._model, inputs["input_ids"].shape[1] + max_tokens)
        generation = self._chat.generation(max_tokens)
        with torch.no_grad():
            output = self._model.generate(**inputs, generation_config=generation)
        answers: list[str] = self._chat.tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return answers


class WithoutLikelihoods:
    """The part of an Answerer that a server cannot be asked for."""

    def likelihoods(self, _pairs: Sequence[tuple[Sequence[Message], str]]) -> list[Likelihood]:
        """Raises InvalidRequest("not_over_http"): a server does not give the likelihood of a given answer."""
        raise InvalidRequest(CommandCode.NOT_OVER_HTTP, NOT_OVER_HTTP, "url")

    def windows(self, _text: HeldOutText) -> list[Likelihood]:
        """Raises InvalidRequest("not_over_http")."""
        raise InvalidRequest(CommandCode.NOT_OVER_HTTP, NOT_OVER_HTTP, "url")


class ServedModel(WithoutLikelihoods):
    """`model` of an OpenAI-compatible server: a base, an adapter or a composition.

    A refusal is raised as LoraComposeError with the server's code. If no server answers, the code is
    `server_unreachable`.
    """

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        self._client = ChatClient(url, api_key, MAX_RETRIES)
        self.name = model or self._client.base_model()

    def answer(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]:
        """See Answerer."""
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return list(pool.map(lambda prompt: self._client.answer(self.name, prompt, max_tokens), prompts))

    def length(self, answer: str) -> int:
        """See Answerer. A token has at least one byte."""
        return len(answer.encode()) + 1


@dataclass(frozen=True)
class Loaded:
    """A base, and perhaps an adapter on it, which `model.disable_adapter()` switches off."""

    model: Any
    chat: ServedChat
    digests: Mapping[str, str] = field(default_factory=dict)
    """The digest of each member, by `name@version` or the name of a directory, in the composition's order."""


@contextmanager
def composed(
    base: str, composition: str | None, directories: Mapping[str, Path], data_dir: Path
) -> Iterator[Loaded]:
    """Load the base, with the composition on it as one adapter.

    Raises LoraComposeError("base_not_loaded"), and the errors of parsing, finding and merging.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    except Exception as error:  # a damaged config or file raises errors of every kind
        raise _not_loaded(f"The base model {base} cannot be loaded", error) from error
    chat = ServedChat.of(tokenizer, model)
    if composition is None:
        yield Loaded(model, chat)
        return
    with tempfile.TemporaryDirectory(prefix="lora-compose-eval-") as scratch:
        adapter = Path(scratch, "adapter")
        digests = _write(composition, directories, data_dir, adapter)
        from peft import PeftModel

        try:
            adapted = PeftModel.from_pretrained(model, adapter)
        except (OSError, ValueError, RuntimeError) as error:
            raise _not_loaded(f"{composition} does not fit the base model {base}", error) from error
        yield Loaded(adapted, chat, digests)


def _not_loaded(what: str, error: Exception) -> LoraComposeError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return LoraComposeError(CommandCode.BASE_NOT_LOADED, f"{what}: {reason:.300}", "model")


def _write(composition: str, directories: Mapping[str, Path], data_dir: Path, output: Path) -> dict[str, str]:
    from lora_compose.adapters.composition.grammar import parse
    from lora_compose.adapters.export import export, find_members
    from lora_compose.adapters.registry.store import content_of

    parsed = parse(composition, "composition")
    found = find_members(parsed, directories, data_dir)
    export(parsed, found, output)
    return {member.id: content_of(member.directory).digest for member in found}
