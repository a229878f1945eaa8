"""Tables in pipes are whole, and progress without a terminal is lines."""

import pytest
from rich.table import Table

from lora_compose.adapters import terminal
from lora_compose.adapters.terminal import progress_bar, status, stdout


def long_table() -> Table:
    table = Table("name", "value", box=None, pad_edge=False)
    table.add_row("x" * 90, "y" * 90)
    return table


def test_a_table_in_a_pipe_is_as_wide_as_its_content(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    stdout().print(long_table())
    assert f"{'x' * 90}  {'y' * 90}" in capsys.readouterr().out


def test_a_table_in_a_pipe_is_as_wide_as_columns_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stdout().print(long_table())
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_progress_without_a_terminal_is_lines_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.0)
    with status("reading") as on_progress:
        on_progress("sorting")
    with progress_bar("modules") as step:
        step(1, 4, "q_proj")
        step(2, None, "")
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines() == ["reading …", "sorting …", "modules: 1 of 4 q_proj", "modules: 2"]


def test_progress_is_not_printed_more_often_than_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("modules") as step:
        for done in range(100):
            step(done, 100, "")
    assert capsys.readouterr().err == ""
