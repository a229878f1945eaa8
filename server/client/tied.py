"""Ties a command to the process that starts it: it gets SIGTERM when that process ends, however it ends.

A process that is killed, or ended twice while it stops its children, cannot end them itself. Linux can.
"""

import errno
import os
import shutil
import sys
import threading
from collections.abc import Sequence

PROGRAM = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):  # otherwise the parent has ended already
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def tied(command: Sequence[str]) -> list[str]:
    """`command`, as a child of this process that ends with it. Its process id and its words stay the same.

    Linux watches the thread that starts the child. So in a thread that may end first, `command` is unchanged.
    Raises FileNotFoundError if there is no such program."""
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    if threading.current_thread() is not threading.main_thread():
        return list(command)
    return [sys.executable, "-I", "-S", "-c", PROGRAM, str(os.getpid()), *command]
