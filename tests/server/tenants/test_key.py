import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.server.app import routes
from lora_compose.server.paths import PROBES
from lora_compose.server.tenants.access import may, roles_of
from lora_compose.server.tenants.key import Key, Quotas

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)


@given(NAMES, NAMES)
def test_a_key_sees_what_its_patterns_say(prefix: str, name: str) -> None:
    assert Key("k", "k", "inference", (name,)).sees(name)
    assert Key("k", "k", "inference", (f"{prefix}*",)).sees(name) == name.startswith(prefix)
    assert not Key("k", "k", "inference", ()).sees(name)
    assert Key("k", "k", "inference").sees(name)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "../x"}, {"role": "root"}, {"adapters": ("a b",)}, {"adapters": ("",)}, {"adapters": ("a*b",)}],
)
def test_a_key_that_is_not_well_formed_cannot_be_made(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        Key(**{"id": "k", "name": "k", "role": "inference"} | wrong)  # type: ignore[arg-type]


def test_quotas_below_zero_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="in_flight"):
        Quotas(in_flight=-1)


def test_what_no_rule_names_is_the_operator_s_alone() -> None:
    admin = Key("k", "k", "admin", ("acme-*",))
    operator = Key("k", "k", "admin")
    for path in (
        "/v1/fusion",
        "/v1/benchmarks",
        "/v1/residency",
        "/v1/adapters/a/pin",
        "//metrics",
        "/v1/new",
    ):
        assert not may(admin, "PUT", path)
        assert may(operator, "PUT", path)


def test_inference_and_monitoring_change_nothing() -> None:
    allowed = {
        (method, route.path)  # type: ignore[attr-defined]
        for route in routes()
        for method in route.methods  # type: ignore[attr-defined]
        for role in ("inference", "monitor")
        if role in roles_of(method, route.path_format)  # type: ignore[attr-defined]
        or route.path in PROBES  # type: ignore[attr-defined]
    }
    reading = {("POST", "/api/show"), ("POST", "/lora-adapters")}  # the second is always refused
    allowed -= {("POST", "/ping"), ("POST", "/v1/responses/{id}/cancel")}  # the key's own responses only
    assert {method for method, _ in allowed - reading} <= {"GET", "HEAD"}
    assert ("GET", "/metrics") in allowed
