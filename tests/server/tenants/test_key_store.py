"""Keys survive restarts, secrets are not stored, and changes by another process take effect."""

from pathlib import Path

import pytest

from lora_compose.adapters.errors import Conflict, NotFound
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.tenants.key import OPERATOR, Key, Quotas, digest_of
from lora_compose.server.tenants.key_store import KeyStore
from lora_compose.server.tenants.keyring import REFRESH_SECONDS, Keyring

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


def test_an_open_server_closes_with_the_first_key_and_stays_closed(tmp_path: Path) -> None:
    now = [0.0]
    with KeyStore(tmp_path) as store:
        ring = Keyring(store.by_digest, (), BenchmarkTraffic(), is_open=True, clock=lambda: now[0])
        assert ring.owner({"headers": []}) == OPERATOR
        store.create(ACME)
        now[0] += REFRESH_SECONDS
        assert ring.owner({"headers": []}) is None
        store.revoke("acme")
        now[0] += REFRESH_SECONDS
        assert ring.owner({"headers": []}) is None


@pytest.mark.parametrize("header", ["Basic own", "Bearer  own", "Bearer own ", "Bearerown", "own", "Bearer"])
def test_anything_but_one_bearer_token_is_nobody_s(header: str) -> None:
    ring = Keyring(dict, ("own",), BenchmarkTraffic())
    assert ring.owner({"headers": [(b"authorization", header.encode())]}) is None
    assert ring.owner(scope("own", "bearer")) == OPERATOR
    assert ring.owner({"headers": [(b"authorization", b"Bearer own")] * 2}) is None
