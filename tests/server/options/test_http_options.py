"""Values of HTTP options that cannot work are refused with the flag."""

from pathlib import Path
from typing import Any

import pytest

from lora_compose.server.options.http_options import HttpOptions


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"root_path": "llm"}, r"--root-path \(llm\) must begin with /"),
        ({"root_path": "/llm/"}, "not end with it"),
        ({"allowed_origins": ("http://a:1/",)}, "scheme, host and port: http://a:1"),
        ({"allowed_origins": ("a.example",)}, "https://example.org"),
        ({"allow_credentials": True}, "--allow-credentials needs --allowed-origins"),
        ({"ssl_keyfile": Path("k")}, "--ssl-keyfile needs --ssl-certfile"),
        ({"ssl_certfile": Path("c"), "ssl_cert_reqs": 2}, r"--ssl-cert-reqs \(2\) needs --ssl-ca-certs"),
        ({"enable_ssl_refresh": True}, "--enable-ssl-refresh needs --ssl-certfile"),
        ({"middleware": ("no.such",)}, r"--middleware \(no.such\) cannot be imported"),
        ({"middleware": ("json.dumps",)}, "must be a class or an async function"),
        ({"middleware": ("plain",)}, "cannot be imported"),
        ({"disable_access_log_for_endpoints": ("health",)}, "must begin with /"),
    ],
)
def test_a_value_that_cannot_work_is_refused(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        HttpOptions(**options)


def test_origins_as_browsers_send_them_are_taken() -> None:
    HttpOptions(allowed_origins=("*", "null", "http://localhost:3000", "https://a.example"))
