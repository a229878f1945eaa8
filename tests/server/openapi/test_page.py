from pathlib import Path

from server.openapi.page import page


def test_the_page_is_what_the_tables_say() -> None:
    assert (Path(__file__).resolve().parents[3] / "docs" / "http-api.md").read_text() == page()
