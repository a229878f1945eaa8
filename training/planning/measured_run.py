"""One training run in a separate process, which prints its peak memory.

`calibration.py` starts it for each case.

The figure is the peak resident memory of the process during training, minus its resident memory after all
imports and a first tiny run, which loads libraries that are loaded late. Linux only. ENVIRONMENT makes the C
library return freed memory to the system at once, so that resident memory is allocated memory.
"""

import ctypes
import gc
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
}
ACCUMULATED: Final = 2
"""Steps of gradient accumulation, so that gradients and activations are in memory together."""
STEPS: Final = 2
"""Optimizer steps. The optimizer's states exist from the second step on."""
TINY: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
"""The model of the first tiny run."""


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def reset_peak() -> None:
    """Return free memory to the system, and reset the peak of resident memory."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def build(config: dict[str, Any], method: str, double_quant: bool, scratch: str) -> Any:
    """A Llama with random weights in float32, quantized by bitsandbytes for qlora."""
    set_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=torch.float32)
    if method != "qlora":
        return model
    model.save_pretrained(scratch)
    del model
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=torch.float32,
    )
    loaded = AutoModelForCausalLM.from_pretrained(
        scratch, quantization_config=quantization, device_map="cpu", dtype=torch.float32
    )
    for parameter in loaded.parameters():  # copy out of the mapped file: only its used pages are resident
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.clone()
    return loaded


def padding_tokenizer() -> Any:
    """A tokenizer with two tokens. TRL needs one for padding; the rows already have token ids."""
    model = WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), pad_token="<pad>", eos_token="</s>")


def trainer_for(model: Any, case: dict[str, Any], scratch: str) -> SFTTrainer:
    count = case["batch"] * ACCUMULATED * STEPS
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(8, 200, (count, case["seq_len"]), generator=generator).tolist()
    config = SFTConfig(
        output_dir=scratch,
        max_steps=STEPS,
        per_device_train_batch_size=case["batch"],
        gradient_accumulation_steps=ACCUMULATED,
        gradient_checkpointing=case["gradient_checkpointing"],
        optim=case["optimizer"],
        max_length=case["seq_len"],
        bf16=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    lora = LoraConfig(r=case["rank"], lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return SFTTrainer(
        model,
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
        processing_class=padding_tokenizer(),
        peft_config=None if case["method"] == "full" else lora,
    )


def run(config: dict[str, Any], case: dict[str, Any]) -> int:
    """Build and train. Returns the peak of resident memory minus the resident memory before, in bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        reset_peak()
        before = resident("VmRSS")
        trainer = trainer_for(build(config, case["method"], case["double_quant"], scratch), case, scratch)
        reset_peak()
        trainer.train()
        return resident("VmHWM") - before


def main() -> None:
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    run(request["config"] | TINY, request["case"] | {"seq_len": 16})
    sys.stdout.write("\n" + json.dumps({"peak": run(request["config"], request["case"])}) + "\n")


if __name__ == "__main__":
    main()
