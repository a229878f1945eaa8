"""What runs in vLLM's workers at our call: vLLM mixes this class into its own (`worker_extension_cls`)."""

from typing import Any

from server.engine.cpu_lora import GroupedPunicaWrapper
from server.engine.lora_manager import CompositionWorkerLoRAManager


class CompositionWorkerExtension:
    """Methods `collective_rpc` can call by name. `model_runner` is vLLM's."""

    model_runner: Any

    def lora_backend(self) -> dict[str, Any]:
        """Which managers and kernels this worker really uses: a plugin that failed to load is only logged."""
        manager = self.model_runner.lora_manager
        wrappers = manager._adapter_manager.punica_wrapper_mapping.values()
        return {
            "composes": isinstance(manager, CompositionWorkerLoRAManager),
            "kernels": sorted({type(wrapper).__name__ for wrapper in wrappers}),
            "grouped": all(isinstance(wrapper, GroupedPunicaWrapper) for wrapper in wrappers),
        }

    def prepared_adapters(self) -> dict[str, Any]:
        """The `lora_int_id`s in host memory and, in order, in the slots."""
        manager = self.model_runner.lora_manager
        return {
            "prepared": sorted(manager.list_adapters()),
            "slots": list(manager._adapter_manager.lora_index_to_id),
        }
