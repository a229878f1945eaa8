"""llama.cpp's server as a system under test: checks, files with our numbers, and its start."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from lora_compose.adapters.peft.checkpoint import Lora, open_adapter
from lora_compose.benchmarks.llamacpp.files import TYPES, check_adapter, write_adapter, write_base
from lora_compose.benchmarks.llamacpp.layouts import Layout, cannot_write
from lora_compose.benchmarks.llamacpp.server import Capacity, find_server, server_command
from lora_compose.benchmarks.servers import server_environment
from lora_compose.benchmarks.serving.results.plan import Plan
from lora_compose.server.client.process import ServerProcess, free_port

LEAST_SLOTS = 8

Started = tuple[ServerProcess, Sequence[str]]
"""A server, and its command without the directory of the program."""


@dataclass(frozen=True)
class LlamaCpp:
    """A program, a base that can be written for it, and adapters by name."""

    program: Path
    base: Path
    layout: Layout
    adapters: Mapping[str, Lora]

    @classmethod
    def checked(cls, program: Path | None, model: str, adapters: Mapping[str, Path]) -> "LlamaCpp":
        """Raises LoraComposeError("llamacpp_unavailable") if the program or a file cannot be used."""
        found, base = find_server(program), Path(model)
        if not base.is_dir():
            raise cannot_write(f"{model} is not a directory on this machine")
        layout = Layout.of(base)
        opened = {name: open_adapter(path) for name, path in adapters.items()}
        for lora in opened.values():
            check_adapter(lora, layout)
        return cls(found, base, layout, opened)

    @property
    def version(self) -> str:
        """What the program says about itself, such as `11434 (1a2b3c4)`."""
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=False)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("version: ")]
        return lines[0].removeprefix("version: ") if lines else "unknown"

    @contextmanager
    def started(self, home: Path, ours: str, plan: Plan) -> Iterator[Started]:
        """A server that is ready, in the data type of our server at the URL `ours`."""
        home.mkdir()
        name = httpx.get(f"{ours}/info").raise_for_status().json()["model_dtype"]
        dtype = next(known for known in TYPES if str(known) == name)
        base, files = home / "base.gguf", [home / f"{name}.gguf" for name in self.adapters]
        write_base(self.base, base, dtype)
        for file, lora in zip(files, self.adapters.values(), strict=True):
            write_adapter(lora, self.layout, file, dtype)
        port = free_port()
        environment = server_environment(str(self.base))
        threads = int(environment.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))
        slots = max(LEAST_SLOTS, *plan.concurrency)
        capacity = Capacity(threads, slots, plan.prompt_tokens + plan.output_tokens)
        command = server_command(self.program, port, base, files, capacity)
        log = home / "llamacpp.log"
        with ServerProcess.run(command, port, log, environment, ready_path="/health") as server:
            server.wait_until_ready()
            yield server, (self.program.name, *command[1:])
