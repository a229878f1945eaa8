"""Keys survive restarts, secrets are not stored, and changes by another process take effect."""

import shutil
from pathlib import Path

import pytest

from lora_compose.adapters.errors import Conflict, NotFound
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.tenants.key import OPERATOR, Key, Quotas, digest_of
from lora_compose.server.tenants.key_store import KeyStore
from lora_compose.server.tenants.keyring import REFRESH_SECONDS, Keyring

MADE_BY_0_1_0 = Path(__file__).parents[2] / "adapters/registry/data/registry-0.1.0"
ACME = Key("", "acme", "inference", ("acme-*",), Quotas(in_flight=2))


def scope(secret: str, scheme: str = "Bearer") -> dict[str, object]:
    return {"headers": [(b"authorization", f"{scheme} {secret}".encode())]}


def test_a_key_is_found_again_and_its_secret_is_not_on_the_disk(tmp_path: Path) -> None:
    with KeyStore(tmp_path) as store:
        made, secret = store.create(ACME)
        with pytest.raises(Conflict):
            store.create(ACME)
    with Registry(tmp_path), KeyStore(tmp_path) as store:
        assert store.by_digest() == {digest_of(secret.encode()): made}
        assert (made.adapters, made.quotas) == (ACME.adapters, ACME.quotas)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()


def test_rotating_and_revoking_count_within_a_second(tmp_path: Path) -> None:
    now = [0.0]
    with KeyStore(tmp_path) as ours, KeyStore(tmp_path) as theirs:
        made, first = theirs.create(ACME)
        ring = Keyring(ours.by_digest, (), BenchmarkTraffic(), clock=lambda: now[0])
        assert ring.owner(scope(first)) == made
        _, second = theirs.rotate("acme")
        now[0] += REFRESH_SECONDS
        assert (ring.owner(scope(first)), ring.owner(scope(second))) == (None, made)
        theirs.revoke("acme")
        now[0] += REFRESH_SECONDS
        assert ring.owner(scope(second)) is None
        with pytest.raises(NotFound):
            theirs.revoke("acme")


def owner_of_nothing(ring: Keyring, now: list[float]) -> Key | None:
    """The key of a request without a key, after the ring has seen all changes."""
    now[0] += REFRESH_SECONDS
    return ring.owner({"headers": []})


def ring_of(store: KeyStore, now: list[float]) -> Keyring:
    """The keyring of a server on a loopback address, as after a start."""
    return Keyring(
        store.by_digest, (), BenchmarkTraffic(), lambda: not store.are_required(), clock=lambda: now[0]
    )


def test_an_open_server_closes_with_the_first_key_until_it_is_opened_by_command(tmp_path: Path) -> None:
    now = [0.0]
    with KeyStore(tmp_path) as store:
        ring = ring_of(store, now)
        assert owner_of_nothing(ring, now) == OPERATOR
        assert not store.open()
        store.create(ACME)
        assert owner_of_nothing(ring, now) is None
        with pytest.raises(Conflict, match="revoke acme"):
            store.open()
        store.revoke("acme")
        assert owner_of_nothing(ring, now) is None
    with KeyStore(tmp_path) as store:  # the rule is the same after a restart
        ring = ring_of(store, now)
        assert owner_of_nothing(ring, now) is None
        assert store.open()
        assert owner_of_nothing(ring, now) == OPERATOR
        store.create(ACME)
        assert owner_of_nothing(ring, now) is None


def test_a_registry_of_0_1_0_with_keys_stays_closed_when_they_are_revoked(tmp_path: Path) -> None:
    old = Path(shutil.copytree(MADE_BY_0_1_0, tmp_path / "old"))
    with KeyStore(old) as store:
        store.revoke("ops")
        assert store.are_required()


@pytest.mark.parametrize("header", ["Basic own", "Bearer  own", "Bearer own ", "Bearerown", "own", "Bearer"])
def test_anything_but_one_bearer_token_is_nobody_s(header: str) -> None:
    ring = Keyring(dict, ("own",), BenchmarkTraffic())
    assert ring.owner({"headers": [(b"authorization", header.encode())]}) is None
    assert ring.owner(scope("own", "bearer")) == OPERATOR
    assert ring.owner({"headers": [(b"authorization", b"Bearer own")] * 2}) is None
