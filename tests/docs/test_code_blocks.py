"""Every code block of the documentation that can be run is run, and its shown output is its output."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.docs.blocks import PAGES_NOT_RUN, ROOT, Block, all_blocks, blocks_in
from tests.docs.page_run import missing_lines, run_blocks
from tests.running_server import RunningServer
from tests.server.app_without_engine import app_without_engine

WITHOUT_ENGINE = ("docs/tutorials/tenants.md",)
"""Pages about keys: they need a server of their own, and what a model says does not matter."""
RUN = [block for block in all_blocks() if block.reason is None]
ON_THE_SERVER = sorted({block.page for block in RUN} - {*WITHOUT_ENGINE})


def check(page: str, home: Path, url: str, **environment: str) -> None:
    blocks = [block for block in RUN if block.page == page]
    done = run_blocks(blocks, home, url, **environment)
    last = max(done.outputs, default=0)
    assert done.exit_code == 0, f"{page}:{last}\n{done.outputs.get(last, '')}"
    for block in blocks:
        missing = missing_lines(block.expected, done.outputs[block.line])
        assert not missing, f"{page}:{block.line} wrote\n{done.outputs[block.line]}"


@contextmanager
def left_as_found(http: httpx.Client) -> Iterator[None]:
    """Other tests share the server: no fused composition, no alias, and what was registered and saved.

    A page uploads adapters that the server already has, which changes their source."""
    before = {one["name"] for one in http.get("/v1/compositions").json()["data"]}
    try:
        yield
    finally:
        http.delete("/v1/fusion")
        http.delete("/v1/adapters/roll/aliases/prod")
        for name in ("roll", "upper"):
            body = {"name": name, "path": str(ADAPTERS_DIR / name)}
            http.post("/v1/adapters", json=body).raise_for_status()
        for one in http.get("/v1/compositions").json()["data"]:
            if one["name"] not in before:
                http.delete(f"/v1/compositions/{one['name']}").raise_for_status()


@pytest.mark.parametrize("page", ON_THE_SERVER)
def test_the_blocks_run_on_a_real_server(
    page: str, server: RunningServer, http: httpx.Client, tmp_path: Path
) -> None:
    with left_as_found(http):
        check(page, tmp_path, server.url)


@pytest.mark.parametrize("page", WITHOUT_ENGINE)
def test_the_blocks_run_on_a_server_of_their_own(page: str, tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app:
        check(page, tmp_path / "home", app.url, DATA=str(app.data_dir))


def test_no_block_that_is_run_changes_the_environment_of_the_tests() -> None:
    """The folder of a run has the tests' own .venv, and `make` sets it up again from there."""
    changing = re.compile(r"^\s*(?:make|pip|\S+/pip) ", re.MULTILINE)
    assert [block for block in RUN if changing.search(block.code)] == []


def test_every_page_without_runs_has_blocks() -> None:
    assert {block.page for block in all_blocks() if block.page in PAGES_NOT_RUN} == set(PAGES_NOT_RUN)


def test_blocks_have_their_reason_and_their_output() -> None:
    run, other = "```sh\nls\n```\n\n```text\na b\n```\n", "```python\nx\n```\n\n```json\n{}\n```\n"
    text = f"# A\n\n{run}\n<!-- not run: slow -->\n{other}"
    assert list(blocks_in("a.md", text)) == [
        Block("a.md", 4, "sh", "ls\n", None, ("a b",)),
        Block("a.md", 13, "python", "x\n", "slow"),
    ]


def test_a_line_that_was_not_written_is_missing() -> None:
    assert missing_lines(["PUI  thx", "t … s", "no"], "PUI thx\nt 5 s\n") == ["no"]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "zensical.toml").read_text()
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f'"{page}"' not in navigation] == []
