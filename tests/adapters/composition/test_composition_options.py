import pytest

from lora_compose.adapters.composition.composition import (
    METHOD_NAMES,
    NEEDS_DENSITY,
    MethodOptions,
    check_method,
    check_options,
    read_options,
)
from lora_compose.adapters.errors import InvalidRequest


@pytest.mark.parametrize(
    ("method", "options", "code"),
    [
        ("stack", {"rank": 8}, "invalid_rank"),
        ("svd", {"rank": 0}, "invalid_rank"),
        ("svd", {"rank": 8.0}, "invalid_rank"),
        ("svd", {"rank": True}, "invalid_rank"),
        ("svd", {"density": 0.5}, "invalid_density"),
        ("ties", {"density": 0}, "invalid_density"),
        ("ties", {"density": 1.01}, "invalid_density"),
        ("ties", {"density": float("nan")}, "invalid_density"),
        ("ties", {"density": "0.3"}, "invalid_density"),
        ("ties", {"density": None}, "missing_density"),
        ("ties", {"density": 0.3, "seed": 0}, "invalid_seed"),
        ("dare_ties", {"density": 0.3, "seed": -1}, "invalid_seed"),
        ("dare_ties", {"density": 0.3, "seed": 2**31}, "invalid_seed"),
        ("dare_linear", {"density": 0.3, "majority_sign_method": "total"}, "invalid_majority_sign_method"),
        ("ties", {"density": 0.3, "majority_sign_method": "both"}, "invalid_majority_sign_method"),
        ("ties", {"density": 0.3, "top_k": 1}, "unknown_field"),
    ],
)
def test_an_option_must_be_well_formed_and_go_with_its_method(
    method: str, options: dict[str, object], code: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_options(method, options)
    assert refused.value.code == code
    assert str(refused.value.param).startswith("composition.")


@pytest.mark.parametrize("method", sorted(NEEDS_DENSITY))
def test_a_sparsifying_method_cannot_be_built_without_a_density(method: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_options(method, MethodOptions())
    assert refused.value.code == "missing_density"
    check_options(method, MethodOptions(density=1.0))


def test_every_method_is_known_and_cat_is_the_stack() -> None:
    assert [check_method(name) for name in METHOD_NAMES] == list(METHOD_NAMES)
    assert check_method("cat") == "stack"


@pytest.mark.parametrize("method", ["", "Stack", "slerp", None, 3, ["ties"], {}])
def test_an_unknown_method_is_refused(method: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_method(method)
    assert refused.value.code == "unknown_method"
