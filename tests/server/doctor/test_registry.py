"""doctor and `adapters --data-dir` say what a server on a base would not serve or restore."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.admission.fingerprint import fingerprint
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Base
from lora_compose.adapters.registry.versions import Terms
from lora_compose.server.client.adapters_command import app
from lora_compose.server.doctor.check import examine
from lora_compose.server.doctor.registry import checks
from tests.adapters.adapter_files import write_base
from tests.adapters.registries import add_merge, register


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


@pytest.fixture
def data_dir(tmp_path: Path, base: Path) -> Path:
    """Two versions for the base, and one for another base, which is pinned and fused."""
    own = Base(fingerprint(base), "base")
    with Registry(tmp_path / "data") as registry:
        register(registry, "sql", "one", Terms(base=own))
        register(registry, "sql", "two", Terms("prod", Base("0" * 64, "old/llama"), 3600))
        register(registry, "polite", "three", Terms(base=own))
        registry.bases.serve(own)
        registry.kept.pin(registry.resolve("sql", "2"))
        registry.kept.pin(registry.resolve("polite"))
        registry.kept.fuse("polite@1+sql@2")
        add_merge(registry, "key", "merged", [])
    return tmp_path / "data"


def found(data_dir: Path, model: Path) -> dict[str, tuple[str, str]]:
    results = [examine(check) for check in checks(data_dir, model)]
    return {result.name: (result.status, f"{result.sentence} {result.advice}") for result in results}


def test_versions_of_other_bases_are_counted_with_the_way_out(data_dir: Path, base: Path) -> None:
    status, text = found(data_dir, base)["bases"]
    assert status == "warn"
    assert "1 versions were registered for another base" in text
    assert "llama (000000000000)" in text
    assert "--accept-base 000000000000" in text


def test_pins_and_fusion_that_would_not_come_back_are_listed(data_dir: Path, base: Path) -> None:
    status, text = found(data_dir, base)["pins and fusion"]
    assert (status, "does not restore sql@2, polite@1+sql@2:" in text) == ("warn", True)
    with Registry(data_dir) as registry:
        registry.kept.unpin(registry.resolve("sql", "2"))
        registry.kept.fuse("sql@1")
    assert found(data_dir, base)["pins and fusion"] == ("ok", "the next start restores 1 pins and sql@1 ")


def test_the_merges_are_counted(data_dir: Path, base: Path, tmp_path: Path) -> None:
    assert found(data_dir, base)["merges"][1].startswith("1 built merges (0.0 MB)")
    assert {status for status, _ in found(tmp_path / "none", base).values()} == {"ok"}


def listed(*arguments: object) -> list[tuple[str, bool | None]]:
    result = CliRunner().invoke(app, ["list", "--json", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return [(one["id"], one["served"]) for one in json.loads(result.stdout)]


def test_adapters_are_listed_without_a_server(data_dir: Path, base: Path, tmp_path: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in data_dir.iterdir())
    expected = [("polite@1", True), ("sql@2", False), ("sql@1", True)]
    assert listed("--data-dir", data_dir) == expected  # the base that was served last
    moved = shutil.copytree(base, tmp_path / "moved")
    assert listed("--data-dir", data_dir, "--model", moved) == expected
    other = write_base(tmp_path / "other")
    assert listed("--data-dir", data_dir, "--model", other) == [(name, False) for name, _ in expected]
    table = CliRunner().invoke(app, ["list", "--data-dir", str(data_dir)], env={"COLUMNS": "200"}).stdout
    assert "other: llama 000000000000" in table
    assert sorted(path.stat().st_mtime_ns for path in data_dir.iterdir()) == before


def test_one_adapter_is_shown_without_a_server(data_dir: Path) -> None:
    def shown(reference: str) -> dict[str, object]:
        result = CliRunner().invoke(app, ["show", reference, "--data-dir", str(data_dir), "--json"])
        return dict(json.loads(result.stdout))

    assert shown("sql")["id"] == "sql@1"
    assert (shown("sql@prod")["served"], shown("sql@prod")["base"]) == (False, "old/llama")
    assert shown("sql@2")["expires_at"] is not None
    assert CliRunner().invoke(app, ["list", "--data-dir", str(data_dir / "typo")]).exit_code != 0
    assert not (data_dir / "typo").exists()
