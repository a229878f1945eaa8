from pathlib import Path

from lora_compose.server.openapi_page import page


def test_the_page_is_what_the_tables_say() -> None:
    assert (Path(__file__).resolve().parents[2] / "docs" / "http-api.md").read_text() == page()
