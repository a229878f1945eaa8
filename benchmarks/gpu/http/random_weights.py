"""`lora-compose bench serve` on an 8B shape with random weights, with the embedded base's tokenizer."""

import json
import shutil
from dataclasses import replace

from lora_compose.benchmarks.gpu.http.product import ProductRun, bench
from lora_compose.benchmarks.gpu.models import LLAMA_8B, TINY, write_adapters, write_config
from lora_compose.training.testbed.paths import BASE_DIR

ADAPTERS, RANK = 8, 16
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
)
LOAD = (
    *("--adapters", "a0,a1,a2,a3", "--requests", "128", "--repeats", "3"),
    *("--prompt-tokens", "64", "--output-tokens", "64", "--timeline-seconds", "0"),
    *("--load-format", "dummy", "--max-model-len", "1024"),
)


def big(product: ProductRun) -> None:
    """Two findings: the files are written, and the benchmark's end."""
    run = product.run
    vocabulary = json.loads((BASE_DIR / "config.json").read_text())["vocab_size"]
    shape = replace(TINY if run.on_cpu else LLAMA_8B, vocabulary=vocabulary)
    model, adapters = run.work / "http-big", run.work / "http-adapters"
    write_config(model, shape)
    for name in TOKENIZER_FILES:
        if (BASE_DIR / name).exists():
            shutil.copyfile(BASE_DIR / name, model / name)
    write_adapters(adapters, shape, [RANK] * ADAPTERS, run.device)
    run.say("written", ok=True)
    chosen = ["--arms", product.arms, "--concurrency", product.concurrency]
    where = ["--model", str(model), "--adapter-root", str(adapters)]
    bench(product, "bench-big", [*where, *chosen, *LOAD, *product.engine_options(memory=0.4)])
