"""Faults of an adapter's life: it is registered, removed or replaced while it is used."""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.campaigns.faults.broken_adapter import Break, each, made
from tests.campaigns.faults.fault import Fault, checked
from tests.campaigns.faults.target import GOOD, Target

ROUNDS = 200
NOT_FUSED = ("400 invalid_model", "400 unknown_field", "400 invalid_composition", "404 model_not_found")
LONG = {"max_tokens": 400, "ignore_eos": True, "stream": True}


def _scaled(factor: float) -> Break:
    return each(lambda t: t * factor, "lora_B")


def _text(target: Target, model: str) -> str:
    text: str = target.generate({"model": model}).raise_for_status().json()["choices"][0]["text"]
    return text


def _removed_while_streaming(target: Target) -> list[str]:
    with target.registered(made(target, _scaled(0.9))):
        body = {"model": "case", "prompt": "roll table", "temperature": 0} | LONG
        with target.http.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert target.http.delete("/v1/adapters/case").status_code == 204
            gone = checked(target.generate({"model": "case"}), "404 model_not_found")
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert not any('"error"' in line for line in rest)
    return ["200, to its end", gone]


def _removed_twice(target: Target) -> list[str]:
    with target.registered(made(target, _scaled(0.9))):
        first = checked(target.http.delete("/v1/adapters/case"), "204")
        return [first, checked(target.http.delete("/v1/adapters/case"), "404 model_not_found")]


def _removed_while_needed(target: Target) -> list[str]:
    with target.registered(made(target, _scaled(0.9))):
        saved = target.http.post("/v1/compositions", json={"name": "needs", "model": "case+roll"})
        assert saved.status_code == 201, saved.text
        outcome = checked(target.http.delete("/v1/adapters/case"), "409 in_use")
        assert target.http.delete("/v1/compositions/needs").status_code == 204
    return [outcome]


def _in_parallel(target: Target) -> list[str]:
    """Register and remove an adapter many times in parallel. Each reply must be possible in some order."""
    directory = made(target, _scaled(0.8))

    def one(number: int) -> str:
        reply = target.register(directory) if number % 2 else target.http.delete("/v1/adapters/case")
        return checked(reply, "201", "200", "204", "404 model_not_found")

    with ThreadPoolExecutor(8) as pool:
        outcome = list(pool.map(one, range(ROUNDS)))
    target.http.delete("/v1/adapters/case")
    counts = Counter(outcome)
    assert 0 <= counts["201"] - counts["204"] <= 1, counts
    return outcome


def _replaced_under_load(target: Target) -> list[str]:
    """Each answer comes from the old or from the new version; after the acknowledgement, from the new one."""
    one, other = made(target, _scaled(1.0), "one"), made(target, _scaled(-1.0), "other")
    with target.registered(one) as version:
        first = _text(target, "case")
        done = threading.Event()
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(_asked_until, target, done) for _ in range(4)]
            reply = target.register(other)
            assert reply.status_code == 201
            after = _text(target, "case")
            done.set()
            seen = {text for future in asking for text in future.result()}
        assert after == _text(target, reply.json()["id"])
        assert first == _text(target, version["id"])
        assert seen <= {first, after}
        assert first != after
    return ["200, one or the other"]


def _asked_until(target: Target, done: threading.Event) -> set[str]:
    seen = set()
    while not done.is_set():
        seen.add(_text(target, "case"))
    return seen


def _files_deleted(target: Target) -> Iterator[str]:
    """Delete files from the store, of an adapter that the engine may not have read yet."""
    with target.registered(made(target, _scaled(0.7))) as version:
        _delete(target.data_dir / "store" / version["digest"])
        yield checked(target.generate({"model": "case+upper:0.3"}), "503 adapter_files_missing", "200")
        again = target.register(made(target, _scaled(0.7)))
        yield checked(again, "200", "201")
        yield checked(target.generate({"model": "case"}), "200")


def _delete(directory: Path) -> None:
    directory.chmod(0o755)
    shutil.rmtree(directory)


def _clients_gone(target: Target) -> list[str]:
    """A hundred streams whose clients disconnect after the first event."""

    def leave(number: int) -> str:
        body = {"model": f"roll:0.{number:03d}1", "prompt": "roll table"} | LONG
        with target.http.stream("POST", "/v1/completions", json=body) as stream:
            next(stream.iter_lines())
            return str(stream.status_code)

    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(leave, range(1, 101)))


def _stream_refused(target: Target) -> list[str]:
    """An error that is known before the first byte is sent as a status, not as an event."""
    reply = target.generate({"model": "unknown", "stream": True})
    assert reply.headers["content-type"].startswith("application/json")
    return [checked(reply, "404 model_not_found")]


def _alias_moved(target: Target) -> list[str]:
    """Move an alias to a version that does not exist, and remove the version that an alias points to."""
    outcome = []
    with target.registered(made(target, _scaled(0.6))) as version:
        alias = "/v1/adapters/case/aliases/prod"
        outcome.append(
            checked(target.http.put(alias, json={"version": version["version"] + 1}), "404 model_not_found")
        )
        for wrong in (0, -1, "1", 1.5, True, None, 10**12):
            reply = target.http.put(alias, json={"version": wrong})
            outcome.append(checked(reply, "400 invalid_version", "404 model_not_found"))
        assert target.http.put(alias, json={"version": version["version"]}).status_code == 200
        assert _text(target, "case@prod") == _text(target, version["id"])
    outcome.append(checked(target.generate({"model": "case@prod"}), "404 model_not_found"))
    return outcome


def _fused_wrongly(target: Target) -> list[str]:
    outcome = []
    bodies: tuple[dict[str, object], ...] = (
        {}, {"model": 7}, {"model": "unknown"}, {"model": "roll", "x": 1}, {"model": "testbed-base"},
    )  # fmt: skip
    for body in bodies:
        outcome.append(checked(target.http.put("/v1/fusion", json=body), *NOT_FUSED))
    return outcome


def _same_bytes(target: Target) -> list[str]:
    """Registering the same bytes again changes nothing."""
    reply = target.register(GOOD, "roll")
    assert isinstance(reply, httpx.Response)
    assert reply.json()["version"] == 1
    return [checked(reply, "200")]


FAULTS = (
    Fault("The same bytes under the same name again", {"roll": _same_bytes}, audited=True),
    Fault("An adapter removed while it streams", {"one stream": _removed_while_streaming}),
    Fault("An adapter removed twice", {"one after the other": _removed_twice}),
    Fault("An adapter removed while a saved composition needs it", {"one": _removed_while_needed}),
    Fault("Adapters registered and removed in parallel", {f"{ROUNDS} rounds": _in_parallel}),
    Fault("An adapter replaced under load", {"four clients": _replaced_under_load}),
    Fault("An adapter's files deleted by hand", {"before it was read": _files_deleted}),
    Fault("A hundred clients that disconnect", {"after the first event": _clients_gone}),
    Fault("A stream that is refused", {"an unknown adapter": _stream_refused}),
    Fault("An alias to a version that does not exist", {"nine ways": _alias_moved}),
    Fault("An invalid composition to fuse", {"five ways": _fused_wrongly}),
)
