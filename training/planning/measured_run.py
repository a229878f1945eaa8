"""One training run in a process of its own, and the memory it took: `measure.py` starts it, one a case.

What is reported is the process's peak resident memory while it trains, less what was resident after all was
imported and a first tiny run had loaded what is loaded late. Linux only. The C library is told to give
freed memory back at once (ENVIRONMENT), so that resident means allocated.
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
"""Steps a gradient is accumulated over, so that gradients and activations are held together."""
STEPS: Final = 2
"""The optimizer's states exist from the second on."""
TINY: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
"""A first run's model: it loads what is loaded late."""


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def settle() -> None:
    """Give back what is free, and begin the high-water mark anew."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def build(config: dict[str, Any], method: str, double_quant: bool, scratch: str) -> Any:
    """A Llama of random weights, in float32, quantized by bitsandbytes for qlora."""
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
    for parameter in loaded.parameters():  # out of the mapped file, of which only touched pages are resident
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.clone()
    return loaded


def padding_tokenizer() -> Any:
    """A tokenizer of two tokens. TRL asks for one to pad with; the rows hold token ids already."""
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
    """Build, train, and say how much more was resident at the peak than before: bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        settle()
        before = resident("VmRSS")
        trainer = trainer_for(build(config, case["method"], case["double_quant"], scratch), case, scratch)
        settle()
        trainer.train()
        return resident("VmHWM") - before


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    run(asked["config"] | TINY, asked["case"] | {"seq_len": 16})
    sys.stdout.write("\n" + json.dumps({"peak": run(asked["config"], asked["case"])}) + "\n")


if __name__ == "__main__":
    main()
