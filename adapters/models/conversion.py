"""Converts a GGUF file to what transformers and vLLM read: safetensors, config, tokenizer, chat template.

The weights are unpacked to float32. The conversion runs as a process of its own, because libraries print
progress that cannot be switched off otherwise, and keep memory.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from lora_compose.adapters.errors import CommandCode, LoraComposeError

QUIET: Final = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
MEMORY: Final = "1.5 GB"
"""What a conversion of SmolLM2 uses at most."""


def convert_gguf(gguf: Path, output: Path) -> None:
    """Write the model in `gguf` to the directory `output`, which is made.

    Raises LoraComposeError: not_enough_memory, output_not_written."""
    command = [sys.executable, "-m", __name__, str(gguf), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **QUIET})
    if done.returncode == -signal.SIGKILL:
        raise LoraComposeError(
            CommandCode.NOT_ENOUGH_MEMORY,
            f"The conversion was killed. It needs {MEMORY} of memory: end other programs and try again.",
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise LoraComposeError(
            CommandCode.OUTPUT_NOT_WRITTEN, f"{gguf.name} could not be converted: {last.rstrip('.')}."
        )


def _convert(gguf: Path, output: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    # safetensors makes files that only their owner can read.
    mode = (output / "config.json").stat().st_mode
    for path in output.iterdir():
        path.chmod(mode)


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
