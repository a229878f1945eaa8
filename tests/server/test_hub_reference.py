"""`org/repo@revision` is understood, and other spellings are refused before the Hub is asked."""

import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.server.registration import hub_reference


@pytest.mark.parametrize(
    ("reference", "read"),
    [
        ("org/repo", ("org/repo", None)),
        ("repo", ("repo", None)),
        ("org/repo@main", ("org/repo", "main")),
        ("org/repo@3f2a9c1d", ("org/repo", "3f2a9c1d")),
        ("org/repo@refs/pr/1", ("org/repo", "refs/pr/1")),
        ("org/my.repo-v2_x@v1.0", ("org/my.repo-v2_x", "v1.0")),
    ],
)
def test_a_revision_follows_the_at(reference: str, read: tuple[str, str | None]) -> None:
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
            "org/repo:main",
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
