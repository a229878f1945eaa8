"""The relay of stderr leaves out lines of the table, and no others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lora_compose.server.http.harmless_lines import LINES, HarmlessLineFilter

RECORDED = Path(__file__).with_name("recorded_stderr.txt").read_text()
UNKNOWN = """\
(EngineCore pid=1) WARNING 11-27 17:05:59 [cpu.py:1] Triton does something that nobody has seen yet.
(EngineCore pid=1) ERROR 11-27 17:05:59 [core.py:1] EngineCore encountered a fatal error.
Traceback (most recent call last):
  File "x.py", line 1, in f
 - an item of a list
FutureWarning: `torch.something` is deprecated
Fatal Python error: Segmentation fault
"""


def test_the_lines_of_a_usual_start_and_stop_are_left_out() -> None:
    harmless = HarmlessLineFilter()
    assert [line for line in RECORDED.splitlines() if not harmless.drops(line)] == []


def test_no_other_line_is_left_out() -> None:
    harmless = HarmlessLineFilter()
    assert [line for line in UNKNOWN.splitlines() if harmless.drops(line)] == []


def test_only_the_source_line_under_a_warning_belongs_to_it() -> None:
    harmless = HarmlessLineFilter()
    assert harmless.drops("x.py:1: FutureWarning: `torch.distributed.reduce_op` is deprecated")
    assert not harmless.drops("Traceback (most recent call last):")
    assert not harmless.drops("  a line with the indent of a source line")


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.pattern[:30])
def test_every_row_matches_a_recorded_line_and_has_a_reason(line: object) -> None:
    row = next(row for row in LINES if row is line)
    assert any(re.search(row.pattern, recorded) for recorded in RECORDED.splitlines())
    assert len(row.reason) > 20


PROGRAM = """
import os, subprocess, sys
from lora_compose.server.http.harmless_lines import harmless_lines_left_out
with harmless_lines_left_out() as real:
    os.write(2, b"native\\nnanobind: leaked 5 types!\\n50 %\\r")
    subprocess.run(["sh", "-c", "echo a child >&2; echo 'nanobind: leaked 1 functions!' >&2"])
    sys.stderr.write("no newline")
    print("straight", file=real)
print("after", file=sys.stderr)
"""


def test_children_and_native_code_are_relayed_and_nothing_is_lost_at_the_end() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    lines = ended.stderr.replace(b"straight\n", b"")
    assert (lines, b"straight\n" in ended.stderr) == (b"native\n50 %\ra child\nno newlineafter\n", True)


LOST = """
import os, sys
from lora_compose.server.http.harmless_lines import harmless_lines_left_out
with harmless_lines_left_out():
    for _ in range(10000):
        os.write(2, b"a line of forty characters, more or less\\n")
print("done")
"""


def test_a_closed_stderr_does_not_block_the_writer() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", LOST], stdout=subprocess.PIPE, stderr=writer, timeout=60, check=True
    )
    os.close(writer)
    assert ended.stdout == b"done\n"
