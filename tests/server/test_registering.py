"""Adapters are added, changed and removed while the server runs. Other answers stay the same, and no answer
is stale."""

import asyncio
import shutil
from pathlib import Path

import httpx
import torch
from safetensors.torch import load_file, save_file

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.test_mixed_batch import PROMPT, complete


def changed_copy(source: str, directory: Path, factor: float) -> Path:
    """The adapter with every B scaled: other files and another answer."""
    shutil.copytree(ADAPTERS_DIR / source, directory)
    weights = load_file(directory / "adapter_model.safetensors")
    scaled = {k: torch.mul(v, factor) if "lora_B" in k else v for k, v in weights.items()}
    save_file(scaled, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    return directory


async def register(http: httpx.AsyncClient, name: str, directory: Path) -> httpx.Response:
    reply = await http.post("/v1/adapters", json={"name": name, "path": str(directory)})
    assert reply.status_code in (200, 201), reply.text
    return reply


async def stream(http: httpx.AsyncClient, model: str, tokens: int, begun: asyncio.Event | None = None) -> str:
    """The complete text. `begun` is set with the first event."""
    body = {
        "model": model,
        "prompt": PROMPT,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    async with http.stream("POST", "/v1/completions", json=body) as reply:
        assert reply.status_code == 200
        lines = reply.aiter_lines()
        frames = [await anext(lines)]
        if begun is not None:
            begun.set()
        frames += [line async for line in lines if line.startswith("data: ")]
    assert frames[-1] == "data: [DONE]"
    return "".join(httpx.Response(200, text=f[6:]).json()["choices"][0]["text"] for f in frames[:-1])


async def test_streams_do_not_notice_registrations(async_http: httpx.AsyncClient, adapter_root: Path) -> None:
    models = ["testbed-base", "roll", "roll+upper", "polite"]
    before = [await stream(async_http, model, 200) for model in models]
    streams = asyncio.gather(*(stream(async_http, model, 200) for model in models))
    for number in range(8):
        directory = changed_copy("dbl", adapter_root / f"busy{number}", 1 + number / 8)
        await register(async_http, f"busy{number}", directory)
        await complete(async_http, f"busy{number}")
    assert await streams == before


async def test_changed_bytes_are_the_next_version_and_never_a_stale_answer(
    async_http: httpx.AsyncClient, adapter_root: Path
) -> None:
    first = (await register(async_http, "moving", changed_copy("upper", adapter_root / "m1", 1.0))).json()
    old = await complete(async_http, "moving")
    for version, factor in enumerate((-1.0, 0.25, 2.0), start=2):
        reply = await register(
            async_http, "moving", changed_copy("upper", adapter_root / f"m{version}", factor)
        )
        assert (reply.status_code, reply.json()["version"]) == (201, version)
        newest, pinned = await complete(async_http, "moving"), await complete(async_http, f"moving@{version}")
        assert newest["logprobs"] == pinned["logprobs"]
        assert newest["logprobs"]["token_logprobs"] != old["logprobs"]["token_logprobs"]
        again = await complete(async_http, "moving@1")
        assert again["logprobs"] == old["logprobs"]
    assert first["version"] == 1


async def test_the_same_bytes_again_are_the_same_version(async_http: httpx.AsyncClient) -> None:
    reply = await register(async_http, "roll", ADAPTERS_DIR / "roll")
    assert (reply.status_code, reply.json()["id"]) == (200, "roll@1")


async def test_an_alias_moves_in_one_step(async_http: httpx.AsyncClient, adapter_root: Path) -> None:
    await register(async_http, "aliased", changed_copy("upper", adapter_root / "al1", 1.0))
    await register(async_http, "aliased", changed_copy("upper", adapter_root / "al2", -1.0))
    for version in (1, 2, 1):
        reply = await async_http.put("/v1/adapters/aliased/aliases/prod", json={"version": version})
        assert reply.json()["aliases"] == ["prod"]
        body = {"model": "aliased@prod", "prompt": PROMPT, "max_tokens": 1}
        served = await async_http.post("/v1/completions", json=body)
        assert served.headers["x-lora-composition"] == f"aliased@{version}"


async def test_removing_while_streaming_lets_the_stream_finish(
    async_http: httpx.AsyncClient, adapter_root: Path
) -> None:
    await register(async_http, "leaving", changed_copy("upper", adapter_root / "leaving", 0.5))
    whole = await stream(async_http, "leaving", 400)
    begun = asyncio.Event()
    streaming = asyncio.create_task(stream(async_http, "leaving", 400, begun))
    await begun.wait()
    assert not streaming.done()
    assert (await async_http.delete("/v1/adapters/leaving")).status_code == 204
    refused = await async_http.post("/v1/completions", json={"model": "leaving", "prompt": PROMPT})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert await streaming == whole
    assert (await async_http.delete("/v1/adapters/leaving")).status_code == 404


async def test_a_number_is_never_given_twice(async_http: httpx.AsyncClient, adapter_root: Path) -> None:
    await register(async_http, "phoenix", changed_copy("upper", adapter_root / "p1", 0.5))
    await complete(async_http, "phoenix")
    await async_http.delete("/v1/adapters/phoenix")
    reply = await register(async_http, "phoenix", changed_copy("upper", adapter_root / "p2", -0.5))
    assert reply.json()["version"] == 2


async def test_an_upload_is_registered_as_a_directory_is(async_http: httpx.AsyncClient) -> None:
    source = ADAPTERS_DIR / "upper"
    files = {
        name: (source / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    reply = await async_http.post("/v1/adapters", data={"name": "uploaded", "alias": "prod"}, files=files)
    assert reply.status_code == 201, reply.text
    assert reply.json()["digest"] == (await async_http.get("/v1/adapters/upper")).json()["digest"]
    assert (await async_http.get("/v1/adapters/uploaded@prod")).json()["id"] == "uploaded@1"


async def test_what_is_told_of_its_training_is_shown_and_kept_when_the_bytes_come_again(
    async_http: httpx.AsyncClient, adapter_root: Path
) -> None:
    directory = changed_copy("upper", adapter_root / "told", 0.75)
    body = {"name": "told", "path": str(directory), "lineage": {"method": "sft", "scores": {"domain": 0.97}}}
    assert (await async_http.post("/v1/adapters", json=body)).json()["lineage"] == body["lineage"]
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    again = await async_http.post("/v1/adapters", data={"name": "told"}, files=files)
    assert (again.status_code, again.json()["lineage"]) == (200, body["lineage"])
    refused = await async_http.post("/v1/adapters", data={"name": "told", "lineage": "[]"}, files=files)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_lineage")
