"""Reads the TLS files again when they change (--enable-ssl-refresh)."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import NoReturn

from lora_compose.server.options.http_options import HttpOptions

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0


async def refresh(context: ssl.SSLContext, options: HttpOptions, seconds: float = POLL_SECONDS) -> NoReturn:
    """Load changed files into `context`. New connections use them; files that cannot be used are skipped.

    The files are looked at again and again: Kubernetes replaces a link in the path, which a watch on the
    file would not see.
    """
    files = [path for path in (options.ssl_certfile, options.ssl_keyfile, options.ssl_ca_certs) if path]
    seen = _states(files)
    while True:
        await asyncio.sleep(seconds)
        now = _states(files)
        if now == seen:
            continue
        try:
            _load(context, options)
        except OSError as error:  # ssl.SSLError is one
            logger.warning("the changed TLS files cannot be used yet: %s", error)
        else:
            logger.info("read the changed TLS files")
        seen = now


def _load(context: ssl.SSLContext, options: HttpOptions) -> None:
    assert options.ssl_certfile is not None
    # A pair that does not belong together must not reach the context that is in use.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
    context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
    if options.ssl_ca_certs is not None:
        context.load_verify_locations(options.ssl_ca_certs)


def _states(files: list[Path]) -> list[tuple[int, int, int] | None]:
    """What changes when a file is written or replaced; None for a file that is not there."""
    return [_state(path) for path in files]


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
