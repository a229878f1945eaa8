"""DoRA and `lora_bias` on a base whose own layers have biases, which DoRA does not scale (as in Qwen2).

The checkpoint is in several files. vLLM serves q_proj, k_proj and v_proj as one layer.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from lora_compose.training.testbed.paths import BASE_DIR
from tests.running_server import RunningServer
from tests.server.test_dora import (
    ADAPTERS,
    COMPOSITIONS,
    EXACT,
    PROMPTS,
    Reference,
    body_of,
    difference,
    save,
)

pytestmark = pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")

NAME = "testbed-base"


def write_base(directory: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    sizes = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **sizes, **heads))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.5)
        elif parameter.dim() == 2:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(directory, max_shard_size="100KB")
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Reference]]:
    home = tmp_path_factory.mktemp("biased-base")
    base, root = write_base(home / "base"), home / "adapters"
    for name in ADAPTERS:
        save(name, root / name, base)
    options = ["--model", str(base), "--served-model-name", NAME, "--adapter-root", str(root)]
    running = RunningServer.start(home / "data", home / "log", options)
    try:
        running.wait_until_ready()
        for name in ADAPTERS:
            body = {"name": name, "path": str(root / name)}
            httpx.post(f"{running.url}/v1/adapters", json=body, timeout=60).raise_for_status()
        yield running.url, Reference(root, base)
    finally:
        running.stop()


@pytest.mark.parametrize("fused", [None, "dora", "dora:0.7+ordinary:-0.4+biased:1.3"])
async def test_every_row_of_a_mixed_batch_is_peft_s(biased: tuple[str, Reference], fused: str | None) -> None:
    url, reference = biased
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        if fused is not None:
            (await http.put("/v1/fusion", json={"model": fused})).raise_for_status()
        jobs = [(model, prompt) for model in COMPOSITIONS for prompt in PROMPTS]
        replies = await asyncio.gather(*(http.post("/v1/completions", json=body_of(*job)) for job in jobs))
        (await http.delete("/v1/fusion")).raise_for_status()
    for job, reply in zip(jobs, replies, strict=True):
        assert difference(reference, *job, reply) < EXACT
