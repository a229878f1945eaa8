"""Checks of the machine: memory, cores, shared memory, open files and the port."""

import os
import resource
import shutil
import socket
from functools import partial
from pathlib import Path

from lora_compose.server.cpu_defaults import find_cpu, threads_of
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.memory import GIB, PROCESS_BYTES, free_memory

SECTION = "machine"
ENOUGH_MEMORY = 4 * GIB
ENOUGH_SHARED = GIB // 4
ENOUGH_FILES = 4096
SHARED = Path("/dev/shm")


def checks(port: int) -> list[Check]:
    rows = (
        ("memory", memory),
        ("cores", cores),
        ("shared memory", shared_memory),
        ("open files", open_files),
        ("port", partial(port_is_free, port)),
    )
    return [Check(SECTION, name, run) for name, run in rows]


def memory() -> Finding:
    found = free_memory()
    free = f"{found / GIB:.1f} GiB are free"
    advice = "End other programs, or raise the container's memory limit"
    if found < PROCESS_BYTES:
        return fail(f"only {free}, and the server's processes need {PROCESS_BYTES / GIB:.1f} GiB", advice)
    if found < ENOUGH_MEMORY:
        return warn(f"only {free}", advice)
    return ok(free)


def cores() -> Finding:
    """More OpenMP threads than cores make each barrier wait. Raises LoraComposeError for no number."""
    count, threads = find_cpu().cores, threads_of(os.environ)
    if threads is not None and threads > count:
        advice = "Unset OMP_NUM_THREADS; then `serve` chooses the number, as `doctor` says for the model"
        return warn(f"OMP_NUM_THREADS is {threads}, but only {count} cores can be used", advice)
    if count < 2:
        return warn("the engine and the HTTP server share one core", "Use a machine with at least two cores")
    return ok(f"{count} cores, OMP_NUM_THREADS {'unset' if threads is None else threads}")


def shared_memory() -> Finding:
    if not SHARED.is_dir():
        return fail(
            f"{SHARED} does not exist, but vLLM's processes communicate through it", "Mount a tmpfs there"
        )
    free = shutil.disk_usage(SHARED).free
    if free < ENOUGH_SHARED:
        return warn(
            f"only {free >> 20} MiB are free in {SHARED}, which may be too little for several workers",
            "Start the container with --shm-size=1g or --ipc=host",
        )
    return ok(f"{SHARED} has {free / GIB:.1f} GiB free")


def open_files() -> Finding:
    """Each connection needs a file descriptor. Without a free one a client has to wait."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < ENOUGH_FILES:
        return warn(
            f"only {soft} files can be open", "Raise the limit: `ulimit -n 65536`, or LimitNOFILE= in systemd"
        )
    return ok("unlimited" if soft == resource.RLIM_INFINITY else f"{soft} files can be open")


def port_is_free(port: int) -> Finding:
    with socket.socket() as probe:
        # Servers set this too: a port whose last connections are closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return warn(
                f"the port 127.0.0.1:{port} cannot be used: {error.strerror}",
                f"Start `serve` with another --port, or check the running server: --url http://127.0.0.1:{port}",
            )
    return ok(f"127.0.0.1:{port} is free")
