"""What runs in vLLM's workers at our call: vLLM mixes this class into its own (`worker_extension_cls`)."""

from pathlib import Path
from typing import Any

import torch
from vllm.lora.request import LoRARequest

from lora_compose.server.engine.cpu.punica_wrapper import GroupedPunicaWrapper
from lora_compose.server.engine.spec import decode_spec
from lora_compose.server.engine.worker.background_build import State
from lora_compose.server.engine.worker.composition_manager import CompositionLoRAManager
from lora_compose.server.engine.worker.folding import folded_checkpoint
from lora_compose.server.engine.worker.stacking import load_stack


class CompositionWorkerExtension:
    """Methods `collective_rpc` can call by name. `model_runner` is vLLM's."""

    model_runner: Any

    @property
    def _lora_manager(self) -> CompositionLoRAManager[Any]:
        manager: CompositionLoRAManager[Any] = self.model_runner.lora_manager
        return manager

    def lora_backend(self) -> dict[str, Any]:
        """Which managers and kernels this worker really uses: a plugin that failed to load is only logged."""
        manager = self.model_runner.lora_manager
        wrappers = manager._adapter_manager.punica_wrapper_mapping.values()
        return {
            "composes": isinstance(manager, CompositionLoRAManager),
            "kernels": sorted({type(wrapper).__name__ for wrapper in wrappers}),
            "grouped": all(isinstance(wrapper, GroupedPunicaWrapper) for wrapper in wrappers),
            "runtime_weights": getattr(manager, "runtime_weights", False),
        }

    def prepare_adapter(self, lora_int_id: int, spec: str) -> tuple[State, str]:
        """Begin to build in the background, or see how far it is."""
        return self._lora_manager.prepare(LoRARequest(f"prepared {lora_int_id}", lora_int_id, spec))

    def forget_adapter(self, lora_int_id: int, spec: str) -> None:
        """Free an adapter's memory and slot. No request that uses it may be in flight."""
        self._lora_manager.forget(LoRARequest(f"prepared {lora_int_id}", lora_int_id, spec))

    def prepared_adapters(self) -> dict[str, Any]:
        """What is in host memory, with its bytes, and in order in the slots."""
        return self._lora_manager.prepared()

    def read_meter(self) -> dict[str, Any]:
        """Tokens and costs since the last time."""
        return self._lora_manager.read_meter()

    def load_base(self, checkpoint: str, spec: str, progress: str) -> None:
        """Load the base's weights again with a stack (perhaps an empty one) folded into them.

        Generation has to be paused. Writes its progress, a share of 1, to the file `progress`. Raises what
        reading raises; then the base may be half of each, and has to be loaded again.
        """
        components = decode_spec(spec)
        stack = load_stack(components, torch.float32)
        with Path(progress).open("w") as file:

            def tell(share: float) -> None:
                file.seek(0)
                file.write(f"{share:.4f}")
                file.flush()

            self.model_runner.reload_weights(
                weights_iterator=folded_checkpoint(Path(checkpoint), stack, tell)
            )
        self._lora_manager.fuse(components)
