"""The two files of an adapter: their names, their largest sizes, and the error code if one is missing."""

from typing import Final

from lora_compose.adapters.errors import Code

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"

MAX_CONFIG_BYTES: Final = 1 << 20
MAX_WEIGHTS_BYTES: Final = 4 << 30

MISSING: Final = {CONFIG_FILE: Code.MISSING_CONFIG, WEIGHTS_FILE: Code.MISSING_WEIGHTS}
FILES: Final = tuple(MISSING)
