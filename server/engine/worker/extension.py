"""Methods that run in vLLM's workers: vLLM adds this class to its worker class (`worker_extension_cls`)."""

from contextlib import suppress
from ctypes import CDLL
from pathlib import Path
from typing import Any

import torch
from vllm.lora.request import LoRARequest

from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.server.engine.cpu.punica_wrapper import GroupedPunicaWrapper
from lora_compose.server.engine.spec import decode_spec
from lora_compose.server.engine.worker.background_build import State
from lora_compose.server.engine.worker.composition_manager import CompositionLoRAManager
from lora_compose.server.engine.worker.folding import folded_checkpoint, without


class CompositionWorkerExtension:
    """Methods that `collective_rpc` calls by name. vLLM provides `model_runner`."""

    model_runner: Any

    @property
    def _lora_manager(self) -> CompositionLoRAManager[Any]:
        manager: CompositionLoRAManager[Any] = self.model_runner.lora_manager
        return manager

    def lora_backend(self) -> dict[str, Any]:
        """The managers and kernels that this worker uses. vLLM only logs it if a plugin cannot be loaded."""
        manager = self.model_runner.lora_manager
        wrappers = manager._adapter_manager.punica_wrapper_mapping.values()
        return {
            "composes": isinstance(manager, CompositionLoRAManager),
            "kernels": sorted({type(wrapper).__name__ for wrapper in wrappers}),
            "grouped": all(isinstance(wrapper, GroupedPunicaWrapper) for wrapper in wrappers),
            "runtime_weights": getattr(manager, "runtime_weights", False),
        }

    def use_checkpoint(self, directory: str) -> None:
        """Set the directory of the base's files, which DoRA needs. vLLM may know only its name on the Hub."""
        self._lora_manager.reader.base = BaseWeights(Path(directory))

    def give_back_memory(self) -> None:
        """Give the system what was freed since the model was loaded: the weights that oneDNN has copied.

        The C library keeps freed memory between pieces that are in use, until it is told to."""
        with suppress(AttributeError):  # a C library other than glibc
            CDLL(None).malloc_trim(0)

    def lora_modules(self) -> set[str]:
        """The last parts of the names of the modules that can have factors here, such as "q_proj"."""
        return {name.rpartition(".")[2] for name in self._lora_manager.module_names()}

    def embedding_modules(self) -> dict[str, Any]:
        """`names`: the last parts of the names of the input embedding and the head, if they can have factors
        here. `tied`: whether the head has the weight of the input embedding."""
        return {"names": self._lora_manager.embedding_names(), "tied": self._is_tied}

    @property
    def _is_tied(self) -> bool:
        config = self.model_runner.model_config
        return any(
            getattr(c, "tie_word_embeddings", False) for c in (config.hf_config, config.hf_text_config)
        )

    def prepare_adapter(self, lora_int_id: int, spec: str) -> tuple[State, str]:
        """Start a build in the background, or return its state."""
        return self._lora_manager.prepare(LoRARequest(f"prepared {lora_int_id}", lora_int_id, spec))

    def unload_adapter(self, lora_int_id: int, spec: str) -> None:
        """Free an adapter's memory and slot. No request that uses it may be in flight."""
        self._lora_manager.unload(LoRARequest(f"prepared {lora_int_id}", lora_int_id, spec))

    def prepared_adapters(self) -> dict[str, Any]:
        """The builds in host memory with their bytes, and the ids in the slots, in order."""
        return self._lora_manager.prepared()

    def read_meter(self) -> dict[str, Any]:
        """Tokens and LoRA costs since the last call."""
        return self._lora_manager.read_meter()

    def load_base(self, checkpoint: str, spec: str, progress: str) -> None:
        """Load the base weights again with a stack, which may be empty, folded into them.

        If the head has the weight of the input embedding, nothing is folded into it, because each of the two
        would get the other's delta.

        Generation must be paused. Writes the share that is done, from 0 to 1, to the file `progress`. If this
        raises, some weights may be old and some new, and the base must be loaded again.
        """
        components = decode_spec(spec)
        whole = self._lora_manager.reader.load_stack(components, torch.float32)
        stack = without(whole, self._lora_manager.embedding_names() if self._is_tied else ())
        with Path(progress).open("w") as file:

            def write_progress(share: float) -> None:
                file.seek(0)
                file.write(f"{share:.4f}")
                file.flush()

            self.model_runner.reload_weights(
                weights_iterator=folded_checkpoint(Path(checkpoint), stack, write_progress)
            )
        self._lora_manager.fuse(components, embeddings_too=len(stack) == len(whole))
