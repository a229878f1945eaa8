"""A multipart upload of an adapter's two files, bounded, straight into the registry's staging area."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copyfileobj

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message, Receive

from adapters.errors import InvalidRequest
from adapters.peft_format import CONFIG_NAME, WEIGHTS_NAME
from server.registration import Offer

TEXT_FIELDS = ("name", "alias", "digest")
FILES = (CONFIG_NAME, WEIGHTS_NAME)
OVERHEAD_BYTES = 1024 * 1024
"""What a body may hold beside the weights: config, boundaries, part headers."""


@asynccontextmanager
async def read_upload(request: Request, max_bytes: int) -> AsyncIterator[tuple[Offer, FormData]]:
    """The offer and the form with its two files, which are gone when the context closes.

    Raises InvalidRequest("invalid_upload") for what is no such upload, HTTPException 413 past the limit.
    """
    limited = Request(request.scope, _bounded(request.receive, max_bytes + OVERHEAD_BYTES))
    try:
        form = await limited.form(max_files=len(FILES), max_fields=len(TEXT_FIELDS))
    except MultiPartException as error:
        raise InvalidRequest("invalid_upload", error.message) from error
    except HTTPException as error:
        if error.status_code == 400:
            raise InvalidRequest("invalid_upload", error.detail) from error
        raise
    try:
        _check_fields(form)
        yield _offer(form), form
    finally:
        await form.close()


async def write_files(form: FormData, staged: Path) -> None:
    """Put the two files into `staged`, an empty directory."""
    for name in FILES:
        part = _file(form, name)
        await run_in_threadpool(_copy, part, staged / name)


def _copy(part: UploadFile, path: Path) -> None:
    with path.open("xb") as output:
        copyfileobj(part.file, output, 1024 * 1024)


def _offer(form: FormData) -> Offer:
    texts = {name: form.get(name) for name in TEXT_FIELDS}
    name, alias, digest = (value if isinstance(value, str) else None for value in texts.values())
    if name is None:
        raise InvalidRequest("invalid_name", "The upload has no field 'name'.", "name")
    return Offer(name, alias, digest)


def _check_fields(form: FormData) -> None:
    for field, value in form.multi_items():
        known = _file_name(field, value) in FILES if isinstance(value, UploadFile) else field in TEXT_FIELDS
        if not known:
            raise InvalidRequest("unknown_field", f"An upload has no field {field!r:.80}.", field[:80])


def _file_name(field: str, part: UploadFile) -> str | None:
    return field if field in FILES else part.filename


def _file(form: FormData, name: str) -> UploadFile:
    for field, value in form.multi_items():
        if isinstance(value, UploadFile) and _file_name(field, value) == name:
            return value
    raise InvalidRequest("invalid_upload", f"The upload has no file {name}.", name)


def _bounded(receive: Receive, limit: int) -> Receive:
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise HTTPException(413, f"The upload is larger than {limit} bytes.")
        return message

    return bounded
