import pytest

from lora_compose.benchmarks.serving.tune_command import sentence, table_of
from lora_compose.benchmarks.serving.tuning_settings import Setting, Tried, best_of, settings_to_try

ONE, TWO = Setting(1, "float32"), Setting(2, "float32")
HALF = Setting(2, "bfloat16")


def tried(setting: Setting, *speeds: float) -> Tried:
    return Tried(setting, {str(number): speed for number, speed in enumerate(speeds)}, 2 << 30)


def test_the_default_is_tried_first_and_nothing_twice() -> None:
    assert settings_to_try(TWO, 2, has_bfloat16=False) == [TWO, ONE]
    assert settings_to_try(HALF, 2, has_bfloat16=True) == [HALF, ONE, TWO, Setting(1, "bfloat16")]


@pytest.mark.parametrize(("cores", "threads"), [(1, [1]), (2, [1, 2]), (4, [2, 3, 4]), (64, [32, 63, 64])])
def test_half_of_the_cores_all_but_one_and_all_are_tried(cores: int, threads: list[int]) -> None:
    default = Setting(cores, "float32")
    assert sorted(one.threads for one in settings_to_try(default, cores, has_bfloat16=False)) == threads


def test_the_fastest_over_all_loads_is_best() -> None:
    fast = tried(HALF, 40, 200)
    assert best_of([tried(ONE, 20, 100), tried(TWO, 50, 120), fast], ONE) is fast


def test_the_defaults_are_kept_if_the_gain_could_be_noise() -> None:
    own = tried(ONE, 100, 100)
    assert best_of([own, tried(TWO, 104, 104)], ONE) is own
    assert best_of([own, tried(TWO, 106, 106)], ONE) is not own


def test_a_setting_that_failed_is_never_best_and_all_failed_is_none() -> None:
    failed = Tried(TWO, {}, failure="The server ended.")
    assert best_of([failed, tried(ONE, 1)], TWO) == tried(ONE, 1)
    assert best_of([failed], TWO) is None
    assert sentence([failed], None, TWO, "m") == "No setting could be measured: The server ended."
    assert list(table_of([failed, tried(ONE, 1)]).columns[2].cells) == ["failed", "1"]


def test_the_advice_is_a_command_with_its_gain() -> None:
    rows = [tried(ONE, 10), tried(HALF, 25)]
    assert sentence(rows, rows[1], ONE, "smollm2") == (
        "Use: OMP_NUM_THREADS=2 lora-compose serve --model smollm2 --dtype bfloat16, "
        "2.50 times the speed of the defaults"
    )
    assert sentence(rows, rows[0], ONE, "smollm2") == "Use the defaults: lora-compose serve --model smollm2"
