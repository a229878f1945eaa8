import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.adapters.names import check_alias, check_name, check_ref, is_version, suggestion

HOSTILE = [
    "",
    "../x",
    "a/b",
    "/etc",
    "..%2f",
    "a\n",
    "a\x00",
    'a"}',
    "a,b",
    "a b",
    "\u202egpt",
    "é",
    "a..b",
    "-a",
    ".a",
]


@pytest.mark.parametrize(
    "text", [*HOSTILE, "a" * 129, "a" * 20_000, None, 3, True, ["a"], "a+b", "a@1", "a:1", "a(b)"]
)
def test_what_could_be_misread_is_no_name(text: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_name(text)
    assert refused.value.code == "invalid_name"
    assert refused.value.param == "name"


@given(st.text(max_size=200))
def test_an_accepted_name_is_plain_ascii_and_returned_as_it_is(text: str) -> None:
    try:
        assert check_name(text) == text
    except InvalidRequest:
        return
    assert text.isascii()
    assert not set(text) & set("/\\@+:(),= \t\r\n\0\"'")


@given(st.text(max_size=200))
def test_a_refusal_cannot_forge_a_log_line(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_name(text + "\n")
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 2000


@pytest.mark.parametrize("text", ["a" * 128, "7", "sql", "Llama-3.1_v2", "0.5"])
def test_ordinary_names_pass(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize("text", [*HOSTILE, "3", "3a", "_a"])
def test_an_alias_never_reads_as_a_version(text: str) -> None:
    with pytest.raises(InvalidRequest):
        check_alias(text)


@pytest.mark.parametrize(
    ("ref", "number"), [("1", True), ("999999999", True), ("prod", False), ("v1", False)]
)
def test_a_reference_is_a_version_number_or_an_alias(ref: str, number: bool) -> None:
    assert check_ref(ref) == ref
    assert is_version(ref) is number


@pytest.mark.parametrize("ref", ["0", "01", "1000000000", "-1", "1.5", "\u0663", ""])
def test_a_version_number_has_one_spelling(ref: str) -> None:
    with pytest.raises(InvalidRequest):
        check_ref(ref)


def test_a_similar_name_is_suggested() -> None:
    assert suggestion("rol", ["upper", "roll"]) == " Did you mean 'roll'?"
    assert suggestion("xyz", ["upper", "roll"]) == ""
