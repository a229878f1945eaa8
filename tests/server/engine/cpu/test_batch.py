"""The rows of a batch, by the members that they use."""

from hypothesis import given
from hypothesis import strategies as st

from lora_compose.server.engine.cpu.batch import share_rows

WANTED = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([1.0, 0.5, -2.0]), max_size=3)


@given(st.lists(st.tuples(WANTED, st.integers(1, 5)), max_size=10))
def test_every_row_is_in_the_share_of_each_of_its_members_with_its_weight(
    requests: list[tuple[dict[str, float], int]],
) -> None:
    batch = share_rows([wanted for wanted, _ in requests], [count for _, count in requests])
    expected = [wanted for wanted, count in requests for _ in range(count)]
    seen: list[dict[str, float]] = [{} for _ in expected]
    for share in batch.shares:
        rows = batch.rows[share.start : share.end].tolist()
        assert rows == sorted(set(rows))
        for row, weight in zip(rows, batch.weights[share.start : share.end].tolist(), strict=True):
            seen[row][share.member] = weight
    assert seen == expected
    assert batch.height == max((row + 1 for row, wanted in enumerate(expected) if wanted), default=0)


def test_the_order_of_a_row_s_members_does_not_depend_on_the_other_rows() -> None:
    for others in ([], [{"c": 1.0, "b": 1.0}], [{"b": 1.0}, {"a": 2.0}]):
        batch = share_rows([*others, {"b": 1.0, "a": 0.5}], [1] * (len(others) + 1))
        assert [share.member for share in batch.shares][:2] == ["a", "b"]
