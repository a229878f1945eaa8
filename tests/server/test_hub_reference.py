"""`org/repo@revision:directory` is understood, and other spellings are refused before the Hub is asked."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.server.registration import hub_reference
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import app_without_engine


@pytest.mark.parametrize(
    ("reference", "read"),
    [
        ("org/repo", ("org/repo", None, None)),
        ("repo", ("repo", None, None)),
        ("org/repo@main", ("org/repo", "main", None)),
        ("org/repo@3f2a9c1d", ("org/repo", "3f2a9c1d", None)),
        ("org/repo@refs/pr/1", ("org/repo", "refs/pr/1", None)),
        ("org/repo:sql", ("org/repo", None, "sql")),
        ("org/repo@v1:out/checkpoint-500", ("org/repo", "v1", "out/checkpoint-500")),
        ("org/my.repo-v2_x@v1.0", ("org/my.repo-v2_x", "v1.0", None)),
    ],
)
def test_a_revision_follows_the_at(reference: str, read: tuple[str, str | None, str | None]) -> None:
    assert hub_reference(reference) == read


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "",
            "org/repo@",
            "@main",
            "org/",
            "/repo",
            "org/repo/sub",
            "org/repo:",
            "org/repo:/sql",
            "org/repo:a//b",
            "org/repo:a:b",
            "hf://org/repo",
            "../x",
        ),
        *(
            "https://huggingface.co/org/repo",
            "org/repo@a@b",
            "org/repo@../x",
            "org/repo\n",
            "org/ré",
            "o/r@/a",
        ),
    ],
)
def test_another_spelling_says_which_is_right(reference: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        hub_reference(reference)
    assert (refused.value.code, refused.value.param) == ("invalid_source", "hf")
    assert "org/repo@revision" in refused.value.message


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub that cannot be reached, and its cache with the repository `org/adapters`. Returns its files."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--org--adapters"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    snapshot = repo / "snapshots" / ("0" * 40)
    for name in ("roll", "upper"):
        shutil.copytree(ADAPTERS_DIR / name, snapshot / "out" / name)
    return snapshot


def test_an_adapter_in_a_directory_of_a_repository_is_registered(tmp_path: Path, hub: Path) -> None:
    with app_without_engine(tmp_path, allow_hf=True) as app, app.client() as client:
        for name in ("roll", "upper"):
            added = client.post("/v1/adapters", json={"name": name, "hf": f"org/adapters:out/{name}"})
            assert added.status_code == 201
            local = client.post("/v1/adapters", json={"name": name, "path": str(ADAPTERS_DIR / name)})
            assert local.json()["digest"] == added.json()["digest"]


@pytest.mark.parametrize(
    ("reference", "status", "words"),
    [
        (
            "org/adapters",
            422,
            "out/roll, out/upper. Register one of these directories (of the Hub as org/repo:",
        ),
        (
            "org/adapters:sql",
            404,
            "has no directory 'sql' on the Hub. It has adapters in: out/roll, out/upper.",
        ),
        ("org/adapters:out", 422, "roll, upper. Register one of these"),
        ("org/other:sql", 404, "was not found on the Hub"),
    ],
)
def test_the_refusal_names_the_directories(
    tmp_path: Path, hub: Path, reference: str, status: int, words: str
) -> None:
    with app_without_engine(tmp_path, allow_hf=True) as app, app.client() as client:
        refused = client.post("/v1/adapters", json={"name": "x", "hf": reference})
    assert refused.status_code == status
    assert words in refused.json()["error"]["message"]
