"""The base class of the LoRA managers whose kernels apply weights per row: they build single adapters only.

A request's spec names members and weights, and each row of a stack uses several members. So other weights, or
another choice of members that are in memory, need no build, no slot and no copy.

vLLM gives its LoRA manager only LoRA ids. Requests for the same members at different weights share one id, so
their weights are read from the requests themselves, which only the model runner knows. It passes them on.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from typing_extensions import override
from vllm.lora.request import LoRARequest

from lora_compose.server.engine.spec import decode_spec
from lora_compose.server.engine.worker.background_build import State
from lora_compose.server.engine.worker.composition_manager import CompositionLoRAManager
from lora_compose.server.engine.worker.stacking import Yielding


class Sized(Protocol):
    """A build in host memory."""

    @property
    def nbytes(self) -> int:
        """Its bytes."""


@dataclass(frozen=True)
class RowCounts:
    """How many rows of the next batch each request has."""

    tokens: tuple[int, ...]
    """In the linear layers."""
    ids: tuple[int, ...]
    """In the input embedding: the tokens that the prompt gives as ids and not as embeddings."""
    sampled: tuple[int, ...]
    """In the output head."""


M = TypeVar("M", bound=Sized)


class MemberLoRAManager(CompositionLoRAManager[M]):
    """Keeps adapters by their directory in the store. vLLM's own adapter cache and slots stay empty."""

    runtime_weights = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._members: dict[str, M] = {}

    @abstractmethod
    def _build(self, directory: str, yielding: Yielding = iter) -> M:
        """Read an adapter, for this worker's share of the layers. Raises if it cannot be served."""

    @override
    def prepare(self, adapter: LoRARequest) -> tuple[State, str]:
        for component in decode_spec(adapter.lora_path):
            state, reason = self._prepare_member(component.directory)
            if state != "prepared":
                return state, reason
        return "prepared", ""

    def _prepare_member(self, directory: str) -> tuple[State, str]:
        if directory in self._members:
            return "prepared", ""
        build, keep = partial(self._build, directory), partial(self._members.__setitem__, directory)
        return self._advance(directory, build, keep)

    @override
    def unload(self, adapter: LoRARequest) -> None:
        for component in decode_spec(adapter.lora_path):
            self._builds.discard(component.directory)
            self._members.pop(component.directory, None)

    @override
    def prepared(self) -> dict[str, Any]:
        sizes = {directory: member.nbytes for directory, member in self._members.items()}
        return {"bytes": sizes, "slots": []}

    @override
    def add_adapter(self, lora_request: LoRARequest) -> bool:
        return True

    @override
    def add_dummy_lora(self, lora_request: LoRARequest, rank: int) -> bool:
        return True

    def _member(self, directory: str) -> M:
        if directory not in self._members:
            # It was not prepared, or was unloaded too early. A build here is slow, but the answer is right.
            self._members[directory] = self._build(directory)
        return self._members[directory]
