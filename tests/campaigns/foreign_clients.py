"""Runs the Python clients of LoRAX, TGI, Hugging Face and Ollama, unchanged, against a running server.

python3.11 -m venv .venv-clients
.venv-clients/bin/pip install lorax-client text-generation huggingface_hub ollama
.venv-clients/bin/python tests/campaigns/foreign_clients.py http://127.0.0.1:8000

The server must have the embedded base and the adapters `roll` and `upper`. Each answer is compared with that
of the OpenAI routes. The exit code is the number of differences. The clients are not dependencies.
"""

import json
import sys
import urllib.request
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import ollama  # type: ignore[import-not-found]
from huggingface_hub import InferenceClient
from huggingface_hub.errors import TextGenerationError
from lorax import Client as LoraxClient  # type: ignore[import-not-found]
from lorax import MergedAdapters
from lorax.errors import ValidationError as LoraxError  # type: ignore[import-not-found]
from text_generation import Client as TgiClient  # type: ignore[import-not-found]

QUESTION = "roll table"
MESSAGES = [{"role": "user", "content": QUESTION}]
RAW = f"<|user|>{QUESTION}<|assistant|>"
TIES = {"ids": ["roll", "upper"], "weights": [1, 1], "merge_strategy": "ties", "density": 0.5}
LINEAR = {"ids": ["roll", "upper"], "weights": [0.7, 0.3], "density": 0.0}
HOW: dict[str, dict[str, Any]] = {
    "testbed-base": {},
    "roll": {"adapter_id": "roll"},
    "roll:0.7+upper": {"adapter_id": "roll:0.7+upper"},
    "ties(roll+upper,density=0.5)": {"merged_adapters": MergedAdapters(**TIES)},
    "linear(roll:0.7+upper:0.3)": {"merged_adapters": MergedAdapters(**LINEAR)},
}
differences: list[str] = []


def main(url: str) -> int:
    expected = {model: chat(url, model) for model in HOW}
    lorax(url, expected)
    tgi(url, expected)
    ollama_client(url, expected)
    return len(differences)


def chat(url: str, model: str) -> str:
    """The greedy answer of /v1/chat/completions."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as reply:
        content: str = json.load(reply)["choices"][0]["message"]["content"]
    return content


def show(what: str, answer: object, expected: object) -> None:
    if answer != expected:
        differences.append(what)
    wrong = "" if answer == expected else f" EXPECTED {expected!r}"
    sys.stdout.write(f"{what:56} {answer!r}{wrong}\n")


def refused(what: str, call: Callable[[], object]) -> None:
    """Show the client's own exception."""
    try:
        answer = call()
    except (ollama.ResponseError, LoraxError, TextGenerationError) as error:
        sys.stdout.write(f"{what:56} {type(error).__name__}: {error}\n")
    else:
        show(what, answer, "a refusal")


def text_of(events: Iterable[Any]) -> str:
    return "".join(event.token.text for event in events if not event.token.special)


def lorax(url: str, expected: dict[str, str]) -> None:
    client = LoraxClient(url)
    for model, how in HOW.items():
        whole = client.generate(RAW, max_new_tokens=8, **how)
        show(f"lorax generate {model}", whole.generated_text, expected[model])
        events = list(client.generate_stream(RAW, max_new_tokens=8, **how))
        show(f"lorax generate_stream {model}", text_of(events), expected[model])
        show("  tokens", events[-1].details.generated_tokens, whole.details.generated_tokens)
    answer = client.generate(RAW, adapter_id="roll", adapter_source="local").generated_text
    show("lorax generate, without a limit", answer, expected["roll"])
    stopped = client.generate(RAW, adapter_id="roll", max_new_tokens=8, stop_sequences=["l"])
    show(
        "lorax generate, stop",
        (stopped.generated_text, stopped.details.finish_reason.value),
        ("abl", "stop_sequence"),
    )
    for name, value in (("adapter_id", "nosuch"), ("watermark", True), ("typical_p", 0.5)):
        refused(f"lorax generate, {name}={value}", partial(client.generate, RAW, **{name: value}))
    refused("lorax generate_stream, unknown", lambda: list(client.generate_stream(RAW, adapter_id="nosuch")))


def tgi(url: str, expected: dict[str, str]) -> None:
    show(
        "text-generation",
        TgiClient(url).generate(RAW, max_new_tokens=8).generated_text,
        expected["testbed-base"],
    )
    client = InferenceClient(url)
    for model in ("testbed-base", "roll", "roll:0.7+upper"):
        how = HOW[model]
        show(
            f"huggingface_hub {model}", client.text_generation(RAW, max_new_tokens=8, **how), expected[model]
        )
        parts = client.text_generation(RAW, max_new_tokens=8, stream=True, **how)
        show(f"huggingface_hub, stream {model}", "".join(parts), expected[model])
    refused("huggingface_hub, unknown", lambda: client.text_generation(RAW, adapter_id="nosuch"))


def ollama_client(url: str, expected: dict[str, str]) -> None:
    client = ollama.Client(url)
    options = {"temperature": 0, "num_predict": 8}
    names = {model.model for model in client.list().models}
    show("ollama list", {"testbed-base:latest", "roll:latest", "upper:latest"} <= names, True)
    for model, answer in expected.items():
        show(f"ollama chat {model}", client.chat(model, MESSAGES, options=options).message.content, answer)
        parts = client.chat(model, MESSAGES, options=options, stream=True)
        show(f"ollama chat, stream {model}", "".join(part.message.content for part in parts), answer)
        show(f"ollama generate {model}", client.generate(model, QUESTION, options=options).response, answer)
    show("ollama chat roll:latest", client.chat("roll:latest", MESSAGES, options=options).model, "roll@1")
    show("ollama generate, no prompt", client.generate("upper").done_reason, "load")
    show("ollama show", client.show("roll").modelinfo["lora_compose.model"], "roll@1")
    show("ollama ps", "upper@1:latest" in {model.model for model in client.ps().models}, True)
    refused("ollama chat, unknown", lambda: client.chat("nosuch", MESSAGES))
    refused("ollama chat, images", lambda: client.chat("roll", [{**MESSAGES[0], "images": [b"x"]}]))
    refused("ollama pull", lambda: client.pull("roll"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
