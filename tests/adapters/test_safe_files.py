import os
from pathlib import Path

import psutil
import pytest

from lora_compose.adapters.safe_files import confined_directory


def test_what_is_opened_stays_the_same_whatever_takes_its_place(tmp_path: Path) -> None:
    inner, outside = tmp_path / "root" / "a" / "b", tmp_path / "outside"
    inner.mkdir(parents=True)
    outside.mkdir()
    (inner / "ours").touch()
    with confined_directory(tmp_path / "root", inner) as descriptor:
        inner.rename(tmp_path / "root" / "moved")
        inner.symlink_to(outside)
        assert [entry.name for entry in os.scandir(descriptor)] == ["ours"]


@pytest.mark.parametrize("linked", ["a", "a/b"])
def test_a_link_anywhere_on_the_way_is_not_followed(tmp_path: Path, linked: str) -> None:
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    link = tmp_path / "root" / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    before = psutil.Process().num_fds()
    with pytest.raises(NotADirectoryError), confined_directory(tmp_path / "root", tmp_path / "root/a/b"):
        pass
    assert psutil.Process().num_fds() == before
