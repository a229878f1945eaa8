"""Runs work in a child process and kills it before its N-th system call that changes a file.

A killed process leaves on disk what its system calls did until then. Killing it before each call that
creates, writes, renames, chmods or deletes a file therefore tries every state that it can leave between two
calls. This includes the states inside SQLite's commit, which cannot be reached by tracing Python lines or C
functions. Calls that do not change a file (reads, fsync, locks) are not counted, because a kill before or
after such a call leaves the same state. A call that is interrupted is not covered; `killed_after` kills at
any time instead. Linux only.
"""

import ctypes
import os
import platform
import signal
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

Steps = tuple[Callable[[], object], Callable[[], object]]
Start = Callable[[Path], Steps]
"""Prepares in a directory, untraced.

Returns the work to do, and a function to call when it was acknowledged.
"""

_CALLS = {
    "x86_64": {
        1: "write", 18: "pwrite64", 20: "writev", 76: "truncate", 77: "ftruncate", 82: "rename", 83: "mkdir",
        84: "rmdir", 86: "link", 87: "unlink", 88: "symlink", 90: "chmod", 91: "fchmod", 257: "openat",
        258: "mkdirat", 263: "unlinkat", 264: "renameat", 265: "linkat", 268: "fchmodat", 285: "fallocate",
        296: "pwritev", 316: "renameat2", 326: "copy_file_range", 452: "fchmodat2",
    },
    "aarch64": {
        34: "mkdirat", 35: "unlinkat", 36: "symlinkat", 37: "linkat", 38: "renameat", 45: "truncate",
        46: "ftruncate", 47: "fallocate", 52: "fchmod", 53: "fchmodat", 56: "openat", 64: "write",
        66: "writev", 68: "pwrite64", 70: "pwritev", 276: "renameat2", 285: "copy_file_range",
        452: "fchmodat2",
    },
}  # fmt: skip
CHANGING = _CALLS.get(platform.machine(), {})
_CREATES = os.O_CREAT | os.O_TRUNC

_TRACEME, _SYSCALL, _SETOPTIONS, _SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_SYSGOOD_AND_EXITKILL = 0x1 | 0x100000
_ENTRY, _INFO_BYTES, _NUMBER_OFFSET = 1, 88, 24
_SYSCALL_STOP = signal.SIGTRAP | 0x80


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    calls: tuple[str, ...]
    """The changing calls that it made, and the call that it was killed before.

    Empty if calls were not counted.
    """
    killed: bool
    acknowledged: bool
    """Whether the work had returned, so that its caller may already know of the success."""


def killed_before(start: Start, home: Path, number: int | None) -> Ended:
    """Kill the child before its changing call `number`, counted from 1.

    With None, or if there are fewer calls, the child ends by itself.
    """
    pid, acknowledgement = _fork(start, home, traced=True)
    _wait(pid)
    _ptrace(_SETOPTIONS, pid, _SYSGOOD_AND_EXITKILL)
    calls: list[str] = []
    pending, status = 0, None
    while status is None or os.WIFSTOPPED(status):
        _ptrace(_SYSCALL, pid, pending)
        status = _wait(pid)
        pending = 0
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) != _SYSCALL_STOP:
            pending = os.WSTOPSIG(status)
        elif os.WIFSTOPPED(status) and (name := _changing_call(pid)):
            calls.append(name)
            if len(calls) == number:
                os.kill(pid, signal.SIGKILL)
                status = _wait(pid)
    return _ended(status, acknowledgement, tuple(calls))


def killed_after(start: Start, home: Path, seconds: float) -> Ended:
    """Kill the child `seconds` after its work began. It may have ended before."""
    pid, acknowledgement = _fork(start, home, traced=False)
    os.read(acknowledgement, 1)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return _ended(_wait(pid), acknowledgement, ())


def _fork(start: Start, home: Path, traced: bool) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(start, home, writing, traced)
    os.close(writing)
    return pid, reading


def _child(start: Start, home: Path, acknowledge: int, traced: bool) -> NoReturn:
    """Never returns, and runs no exit handlers of the parent."""
    try:
        work, end = start(home)
        if traced:
            _ptrace(_TRACEME, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            os.write(acknowledge, b"b")
        work()
        os.write(acknowledge, b"a")
        end()
    except BaseException:  # noqa: BLE001  the child must not continue as a second test process
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _ended(status: int, acknowledgement: int, calls: tuple[str, ...]) -> Ended:
    acknowledged = os.read(acknowledgement, 1) == b"a"
    os.close(acknowledgement)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed, see above"
    return Ended(calls, os.WIFSIGNALED(status), acknowledged)


def _wait(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def _changing_call(pid: int) -> str | None:
    """The name of the call that the child is about to make, if it changes a file."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    _ptrace(_SYSCALL_INFO, pid, ctypes.addressof(info), _INFO_BYTES)
    number, _, _, flags = struct.unpack_from("<4Q", info.raw, _NUMBER_OFFSET)
    name = CHANGING.get(number) if info.raw[0] == _ENTRY else None
    return None if name == "openat" and not flags & _CREATES else name


def _ptrace(request: int, pid: int, data: int, address: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), "this machine does not allow tracing a process")
