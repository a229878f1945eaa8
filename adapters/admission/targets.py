"""Compares the modules that a config targets with those of the base and of the weights file.

PEFT does not load a config that targets a module which cannot have a LoRA. It loads one whose weights are
incomplete, as after an interrupted save, and only warns.
"""

from collections.abc import Iterable, Sequence

from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.admission.tensors import TensorPair
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.config import AdapterConfig
from lora_compose.adapters.peft.module_matching import ALL_LINEAR, BadPattern, TargetedModules


def check_other_targets(config: AdapterConfig, base: BaseShapes) -> None:
    """Raises AdapterRejected("bad_adapter_config") if the config targets a norm, a block or the like."""
    targets = config.raw["target_modules"]
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        return
    for module in _targeted(sorted(base.others), config):
        message = (
            f"adapter_config.json: target_modules matches {module}, which is not a linear layer. PEFT does "
            "not load such an adapter. Name the linear layers that the weights adapt."
        )
        raise AdapterRejected(Code.BAD_ADAPTER_CONFIG, message, "target_modules")


def missing_tensors(pairs: Sequence[TensorPair], config: AdapterConfig, base: BaseShapes) -> list[str]:
    """A warning with the count of the modules that the config targets and the weights leave out, or nothing.

    The server does not change these modules. PEFT warns and gives them their initial values, whose delta is
    zero for the usual initialisations. Raises AdapterRejected bad_adapter_config if a pattern takes too long.
    """
    found = {pair.module for pair in pairs}
    missing = _targeted((module for module in base.linears if module not in found), config)
    if not missing:
        return []
    counts = f"{len(missing)} of the {len(missing) + len(found)} layers that adapter_config.json targets"
    return [
        f"missing_tensors: the file has no weights for {counts}. They stay as in the base. The first is "
        f"{missing[0]}. Was the adapter saved completely?"
    ]


def _targeted(modules: Iterable[str], config: AdapterConfig) -> list[str]:
    targets = TargetedModules.of(config.raw)
    try:
        return [module for module in modules if targets.excluding_field(module) is None]
    except BadPattern as error:
        raise AdapterRejected(Code.BAD_ADAPTER_CONFIG, f"adapter_config.json: {error}.") from error
