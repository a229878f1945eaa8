"""`python -m lora_compose.benchmarks.serving.peft_server` serves transformers + PEFT at /v1/completions.

It answers one request at a time and has the same HTTP interface as the other servers. If it runs, it also
gives the expected answers, so that they do not come from the measured server.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from peft import PeftModel
from transformers import AutoModelForCausalLM

Answer = dict[str, Any]


class Generator:
    """A base in float32 with adapters by name. Each adapter is the exact sum of a composition."""

    def __init__(self, base: str, adapters: dict[str, str]) -> None:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model.generation_config.eos_token_id = None  # answers have a fixed length
        for number, (name, directory) in enumerate(adapters.items()):
            if number:
                model.load_adapter(directory, adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, directory, adapter_name=name)
        self._model = model.eval()
        self._adapters = adapters
        self._one_at_a_time = threading.Lock()

    def generate(self, name: str, prompt: list[int], tokens: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield each token when it is computed, with the log-probabilities of the two likeliest tokens."""
        with self._one_at_a_time, torch.inference_mode(), self._active(name):
            ids, past = torch.tensor([prompt]), None
            for _ in range(tokens):
                output = self._model(input_ids=ids, past_key_values=past, use_cache=True)
                past = output.past_key_values
                top = output.logits[0, -1].log_softmax(-1).topk(2)
                ids = top.indices[:1].unsqueeze(0)
                likely = zip(top.indices.tolist(), top.values.tolist(), strict=True)
                yield int(ids), {str(token): value for token, value in likely}

    def _active(self, name: str) -> AbstractContextManager[Any]:
        if name in self._adapters:
            self._model.set_adapter(name)
            return nullcontext()
        return self._model.disable_adapter() if self._adapters else nullcontext()


def handler(generator: Generator) -> type[BaseHTTPRequestHandler]:
    """A request handler for `GET /health` and `POST /v1/completions`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Write no access log, like the other servers."""

        def do_GET(self) -> None:
            self._whole({"status": "ok"})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            steps = generator.generate(request["model"], request["prompt"], request["max_tokens"])
            usage = {"prompt_tokens": len(request["prompt"]), "completion_tokens": request["max_tokens"]}
            if request.get("stream"):
                self._stream(steps, usage)
                return
            ids, tops = zip(*steps, strict=True)
            choice = {"token_ids": ids, "logprobs": {"top_logprobs": tops}}
            self._whole({"choices": [choice], "usage": usage})

        def _whole(self, content: Answer) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, steps: Iterator[tuple[int, dict[str, float]]], usage: Answer) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for token, _ in steps:
                self._event(json.dumps({"choices": [{"token_ids": [token]}]}))
            self._event(json.dumps({"choices": [], "usage": usage}))
            self._event("[DONE]")
            self.close_connection = True

        def _event(self, data: str) -> None:
            self.wfile.write(f"data: {data}\n\n".encode())
            self.wfile.flush()

    return Handler


def serve(
    base: Annotated[str, typer.Option(help="Directory or Hub id of the base.")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")],
    adapters: Annotated[Path, typer.Option(help="JSON file with adapter directories by name.")],
) -> None:
    """Serve the base and the adapters until the process is stopped."""
    generator = Generator(base, json.loads(adapters.read_text()))
    ThreadingHTTPServer(("127.0.0.1", port), handler(generator)).serve_forever()


if __name__ == "__main__":
    typer.run(serve)
