"""The two files of an adapter: their names, the largest sizes, and the code for one that is missing."""

from typing import Final

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"

MAX_CONFIG_BYTES: Final = 1 << 20
MAX_WEIGHTS_BYTES: Final = 4 << 30

MISSING: Final = {CONFIG_FILE: "missing_config", WEIGHTS_FILE: "missing_weights"}
FILES: Final = tuple(MISSING)
