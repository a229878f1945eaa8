"""The testbed's adapters, whose right answers are known, before, while and after a fusion; a benchmark."""

import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from lora_compose.benchmarks.gpu.http.product import ProductRun, Serving, bench, serving
from lora_compose.benchmarks.gpu.run import CheckRun
from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS
from lora_compose.server.client.chat import ChatClient, ChatQuestion

ADAPTERS = ("roll", "upper", "polite", "dbl", "code")
FUSED = "roll+upper"
WHILE_FUSED = ("base", "roll", "upper", FUSED)
MODELS = (*WHILE_FUSED, "polite", "dbl", "code", "polite+roll", "dbl+upper", "code+upper", "roll:0.5+upper")
QUESTIONS_DIR = EMBEDDED_ADAPTERS.parent / "questions"
QUESTIONS, LONGEST_ANSWER, SHOWN = 12, 32, 4
BENCH_ARMS = "base,single,stack:2,stack:4,merge:2"
BENCH_OPTIONS = (
    *("--adapters", "roll,upper,polite,dbl", "--arms", BENCH_ARMS, "--concurrency", "1,32"),
    *("--requests", "64", "--repeats", "3", "--timeline-seconds", "12", "--allow-fuse"),
)


def demo(product: ProductRun) -> None:
    """A finding for each registration, each model at each time, and each switch of the base."""
    roots = ["--data-dir", str(product.out / "demo-data"), "--adapter-root", str(EMBEDDED_ADAPTERS)]
    options = [*roots, *product.engine_options(memory=0.5)]
    with serving(product.out / "demo-server.log", options) as server:
        product.run.say("ready", ok=True, seconds=round(server.start_seconds, 1))
        _register(product.run, server)
        asking = Asking(product.run, server.url)
        asking.ask("before", MODELS)
        _switch(product.run, "fuse", lambda: server.client.fuse(FUSED))
        product.run.attempt("ask while fused", lambda: asking.ask("fused", WHILE_FUSED))
        _switch(product.run, "restore", server.client.restore_base)
        product.run.attempt("ask restored", lambda: asking.ask("restored", WHILE_FUSED))
        bench(product, "bench-demo", ["--url", server.url, *BENCH_OPTIONS])


def _register(run: CheckRun, server: Serving) -> None:
    for name in ADAPTERS:
        began = time.perf_counter()
        server.client.register({"name": name, "path": str(EMBEDDED_ADAPTERS / name)})
        run.say(f"register:{name}", ok=True, ms=round((time.perf_counter() - began) * 1e3, 1))


def _switch(run: CheckRun, check: str, call: Callable[[], dict[str, Any]]) -> None:
    answer: dict[str, Any] = {}
    began = time.perf_counter()
    if run.attempt(check, lambda: answer.update(call())):
        run.say(check, ok=True, seconds=round(time.perf_counter() - began, 2), answer=answer)


def questions(model: str) -> list[tuple[str, str | None]]:
    """(prompt, the one right answer) for a model, from its file of the testbed.

    The base, and a stack with a weight below 1, get the prompts of `roll` and no answer that is known."""
    file = QUESTIONS_DIR / f"{model}.jsonl"
    known = file.is_file()
    lines = (file if known else QUESTIONS_DIR / "roll.jsonl").read_text().splitlines()[:QUESTIONS]
    rows = [json.loads(line) for line in lines]
    return [(row["prompt"], row["completion"] if known else None) for row in rows]


class Asking:
    """Asks the same questions again and again. Remembers each model's first answers."""

    def __init__(self, run: CheckRun, url: str) -> None:
        self._run, self._url = run, url
        self._first: dict[str, list[str]] = {}

    def ask(self, when: str, models: Iterable[str]) -> None:
        """A finding for each model."""
        with ChatClient(self._url) as client:
            base = client.base_model()
            for model in models:
                self._say(when, model, client, base)

    def _say(self, when: str, model: str, client: ChatClient, base: str) -> None:
        asked = questions(model)
        name = base if model == "base" else model
        answers = [
            client.stream(ChatQuestion(prompt, name, max_tokens=LONGEST_ANSWER)) for prompt, _ in asked
        ]
        texts = [answer.text for answer in answers]
        before = self._first.setdefault(model, texts)
        right = [text == wanted for text, (_, wanted) in zip(texts, asked, strict=True) if wanted is not None]
        waits = [answer.time_to_first_token for answer in answers if answer.time_to_first_token is not None]
        self._run.say(
            f"ask:{model}",
            ok=2 * sum(right) >= len(right),
            when=when,
            right=sum(right),
            known=len(right),
            answers=texts[:SHOWN],
            count=len(texts),
            same_as_before=sum(a == b for a, b in zip(texts, before, strict=True)),
            first_ms=round(statistics.median(waits) * 1e3, 1) if waits else None,
        )
