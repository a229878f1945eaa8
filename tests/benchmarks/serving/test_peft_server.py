"""transformers + PEFT behind the endpoint, which gives the expected answers."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE
from lora_compose.benchmarks.serving.peft_server import Generator


def test_the_tokens_are_those_of_generate_with_an_adapter_and_without() -> None:
    generator = Generator(str(EMBEDDED_BASE), {"roll": str(EMBEDDED_ADAPTERS / "roll")})
    asked = [{"role": "user", "content": "roll table"}]
    prompt = AutoTokenizer.from_pretrained(EMBEDDED_BASE).apply_chat_template(
        asked, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(EMBEDDED_BASE, dtype=torch.float32)
    plain.generation_config.eos_token_id = None
    ids = torch.tensor([prompt])
    output = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    base, roll = ([token for token, _ in generator.generate(name, prompt, 6)] for name in ("base", "roll"))
    assert base == output[0, len(prompt) :].tolist()
    assert roll != base
