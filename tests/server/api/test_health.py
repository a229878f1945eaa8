from pathlib import Path

from lora_compose.server.api.health import _free_bytes


def test_a_data_directory_that_is_gone_has_no_room_and_the_scrape_goes_on(tmp_path: Path) -> None:
    assert _free_bytes(tmp_path) > 0
    assert _free_bytes(tmp_path / "gone") == 0
