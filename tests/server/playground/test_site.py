"""The files of the page over HTTP: who gets which, with which headers, and what does not exist."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lora_compose.adapters.composition.composition import (
    ELECTS_SIGN,
    METHOD_NAMES,
    NEEDS_DENSITY,
    SEEDED,
    TAKES_RANK,
)
from lora_compose.server.http.stack import around
from lora_compose.server.options.http_options import HttpOptions
from lora_compose.server.playground.site import PAGE, STATIC, files
from lora_compose.server.supervision.app_switch import AppSwitch
from tests.server.app_without_engine import OPERATOR_KEY, AppWithoutEngine, app_without_engine

BROWSER_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
VENDOR = STATIC / "vendor"
VENDORED = json.loads((VENDOR / "vendored.json").read_text())
ASSETS = sorted(set(files()) - {"/"})


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWithoutEngine]:
    with app_without_engine(tmp_path_factory.mktemp("keyed"), api_keys=[OPERATOR_KEY]) as app:
        yield app


def get(app: AppWithoutEngine, path: str = "/", method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.request(method, app.url + path, headers={"accept": BROWSER_ACCEPT} | headers)


def test_a_browser_gets_the_page_without_a_key(keyed: AppWithoutEngine) -> None:
    reply = get(keyed)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "playground" in reply.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/*", "text/html-but-other"])
def test_another_client_needs_a_key_and_reads_that_the_server_runs(
    keyed: AppWithoutEngine, accept: str
) -> None:
    assert get(keyed, accept=accept).status_code == 401
    reply = get(keyed, accept=accept, authorization=f"Bearer {OPERATOR_KEY}")
    assert reply.text.startswith("lora-compose is running")


def test_the_page_may_use_its_own_files_only(keyed: AppWithoutEngine) -> None:
    headers = get(keyed).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


def test_the_page_is_one_line_of_the_log(keyed: AppWithoutEngine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lora_compose.server.http.access_log"):
        for path in ("/playground/none.js", "/", *ASSETS):
            get(keyed, path)
    assert [record.fields["status"] for record in caplog.records] == [401, 200]  # type: ignore[attr-defined]


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    page = (STATIC / PAGE).read_text()
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|https?:", page) == []


def test_nothing_in_the_page_parses_text_as_a_script_or_as_html() -> None:
    own = "".join(path.read_text() for path in (STATIC / "js").glob("*.js"))
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", own) == []


def test_every_script_is_loaded_ahead() -> None:
    page = (STATIC / PAGE).read_text()
    scripts = {path.rpartition(f"{files_folder()}/")[2] for path in ASSETS if path.endswith("js")}
    assert set(re.findall(r'"\{files\}/([^"]+js)"', page)) == scripts


def files_folder() -> str:
    return "/".join(ASSETS[0].split("/")[:3])


@pytest.mark.parametrize("path", ASSETS)
def test_a_file_is_kept_by_the_browser_under_the_digest(keyed: AppWithoutEngine, path: str) -> None:
    reply = get(keyed, path)
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert reply.headers["x-content-type-options"] == "nosniff"
    again = get(keyed, path, **{"if-none-match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert get(keyed, path, **{"accept-encoding": "identity"}).content == reply.content


def test_head_has_the_headers_and_no_body(keyed: AppWithoutEngine) -> None:
    plain, head = (get(keyed, method=method, **{"accept-encoding": "identity"}) for method in ("GET", "HEAD"))
    assert head.content == b""
    assert head.headers["content-length"] == plain.headers["content-length"] == str(len(plain.content))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_answered_without_a_key(keyed: AppWithoutEngine, method: str) -> None:
    assert get(keyed, ASSETS[0], method).status_code == 401
    assert get(keyed, "/", method).status_code == 401


OUTSIDE = [
    "/playground",
    "/playground/",
    "/playground/0123456789abcdef/js/app.js",
    f"{ASSETS[0]}/",
    f"{ASSETS[0]}%00",
    f"{files_folder()}/..%2f..%2fv1%2fmodels",
    f"{files_folder()}/vendor/vendored.json",
    f"{files_folder()}/vendor/LICENSE.preact",
    f"{files_folder()}/%2e%2e/site.py",
    f"/{files_folder()}/js/app.js",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_else_is_there(keyed: AppWithoutEngine, path: str) -> None:
    with httpx.Client(base_url=keyed.url) as client:
        request = client.build_request("GET", keyed.url, headers={"accept": BROWSER_ACCEPT})
        request.url = httpx.URL(keyed.url, raw_path=path.encode())
        assert client.send(request).status_code == 401
        request.headers["authorization"] = f"Bearer {OPERATOR_KEY}"
        assert client.send(request).status_code == 404


def test_the_page_is_served_under_a_root_path(tmp_path: Path) -> None:
    with app_without_engine(tmp_path, http=HttpOptions(root_path="/llm")) as app:
        page = get(app, "/llm/")
        assert page.status_code == 200
        assert get(app, f"/llm{ASSETS[0]}").status_code == 200
        assert f'src="{files_folder()[1:]}/js/app.js"' in page.text, (
            "relative, so that a proxy may be before it"
        )


async def test_the_page_is_there_while_the_model_loads() -> None:
    transport = httpx.ASGITransport(around(AppSwitch(), HttpOptions()))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        assert (await client.get("/", headers={"accept": BROWSER_ACCEPT})).status_code == 200
        assert (await client.get("/v1/models")).json()["error"]["code"] == "engine_loading"


@pytest.mark.parametrize("name", VENDORED)
def test_a_library_is_what_its_authors_published(name: str) -> None:
    row, text = VENDORED[name], (VENDOR / name).read_text()
    assert hashlib.sha256(text.encode()).hexdigest() == row["sha256"]
    published = text.removesuffix(row["appended"])
    for ours, theirs in row["changed"]:
        published = published.replace(ours, theirs)
    assert hashlib.sha256(published.encode()).hexdigest() == row["upstream_sha256"]
    licence = VENDOR / f"LICENSE.{row['package'].replace('@', '').replace('/', '-')}"
    assert len(licence.read_text()) > 1000


def test_the_list_of_libraries_is_complete() -> None:
    assert {path.name for path in VENDOR.glob("*.[mc]*s*") if path.name != "vendored.json"} == set(VENDORED)


def test_the_methods_of_the_page_are_those_of_the_server() -> None:
    text = (STATIC / "js" / "compositions.js").read_text()
    table = re.search(r"METHODS = \{\n(.*?)\n\}", text, re.DOTALL)
    assert table
    rows = {
        name: set(re.findall(r'"(\w+)"', options))
        for name, options in re.findall(r"(\w+): \[(.*?)\]", table[1])
    }
    taken_by = {
        "rank": TAKES_RANK,
        "density": NEEDS_DENSITY,
        "seed": SEEDED,
        "majority_sign_method": ELECTS_SIGN,
    }
    taken = {name: {option for option, takers in taken_by.items() if name in takers} for name in METHOD_NAMES}
    assert rows == taken
