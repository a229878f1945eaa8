import pytest

from benchmarks.session import check_adapters
from benchmarks.settings import Settings


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"concurrency": 0}, {"output_tokens": 0}, {"requests": 12}])
def test_what_cannot_be_measured_is_refused_naming_the_flag_and_its_value(wrong: dict[str, int]) -> None:
    ((field, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"--{field.replace('_', '-')} \\({value}\\)"):
        Settings(**wrong)


def test_quick_never_measures_more() -> None:
    assert Settings(rounds=1).quick().rounds == 1
    assert Settings().quick().requests < Settings().requests


@pytest.mark.parametrize("names", [["a", "b", "c"], ["a", "b", "c", "a"], ["a", "b", "c", "d", "d"]])
def test_the_arms_need_four_different_adapters(names: list[str]) -> None:
    with pytest.raises(ValueError, match="4 different adapters"):
        check_adapters(names)
