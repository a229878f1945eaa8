"""Has the machine what a server wants: memory, cores, shared memory, descriptors, a free port?"""

import os
import resource
import shutil
import socket
from functools import partial
from pathlib import Path

from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn

SECTION = "machine"
GIB = 1 << 30
ENOUGH_MEMORY = 4 * GIB
LEAST_MEMORY = 1 * GIB
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
    return [Check(SECTION, name, look) for name, look in rows]


def available_memory() -> int:
    """Bytes this process may still take: the system's, or its control group's where that is less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return min(int(fields["MemAvailable"].split()[0]) * 1024, _left_in_group())


def _left_in_group() -> int:
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return 1 << 62
    return 1 << 62 if limit == "max" else max(0, int(limit) - used)


def memory() -> Finding:
    found = available_memory()
    words = f"{found / GIB:.1f} GiB are free"
    advice = "End what else runs, raise the container's limit, or set VLLM_CPU_KVCACHE_SPACE=1"
    if found < LEAST_MEMORY:
        return fail(f"only {words}: vLLM alone takes about one", advice)
    if found < ENOUGH_MEMORY:
        return warn(f"only {words}", advice)
    return ok(words)


def cores() -> Finding:
    """A team of threads on every core waits at each barrier for the one the HTTP server is on."""
    count = len(os.sched_getaffinity(0))
    asked = os.environ.get("OMP_NUM_THREADS")
    advice = f"Unset OMP_NUM_THREADS: `serve` takes {max(1, count - 1)} then"
    if asked is not None and not asked.isdecimal():
        return fail(f"OMP_NUM_THREADS is {asked!r}, which is no number", advice)
    if asked is not None and int(asked) >= count > 1:
        return warn(
            f"OMP_NUM_THREADS is {asked} and there are {count} cores: none is left for the HTTP server",
            advice,
        )
    if count < 2:
        return warn("there is one core, which engine and HTTP server share", "Give it two or more")
    return ok(f"{count} cores, OMP_NUM_THREADS {asked or 'unset'}")


def shared_memory() -> Finding:
    if not SHARED.is_dir():
        return fail(f"there is no {SHARED}: vLLM's processes talk through it", "Mount a tmpfs there")
    free = shutil.disk_usage(SHARED).free
    if free < ENOUGH_SHARED:
        return warn(
            f"{SHARED} has {free >> 20} MiB free, which is little for several workers",
            "Start the container with --shm-size=1g or --ipc=host",
        )
    return ok(f"{SHARED} has {free / GIB:.1f} GiB free")


def open_files() -> Finding:
    """A stream is a descriptor, and one that cannot be accepted is a client that waits."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < ENOUGH_FILES:
        return warn(
            f"at most {soft} files can be open", "Raise it: `ulimit -n 65536`, LimitNOFILE= in systemd"
        )
    return ok("unlimited" if soft == resource.RLIM_INFINITY else f"{soft} files can be open")


def port_is_free(port: int) -> Finding:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are only closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return warn(
                f"127.0.0.1:{port} cannot be had: {error.strerror}",
                f"Give `serve` another --port, or look at what runs: --url http://127.0.0.1:{port}",
            )
    return ok(f"127.0.0.1:{port} is free")
