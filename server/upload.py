"""A multipart upload of an adapter's two files, bounded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message, Receive

from adapters.errors import InvalidRequest
from adapters.lineage import check_lineage
from adapters.store import CONFIG_FILE, WEIGHTS_FILE
from server.registration import Offer

TEXT_FIELDS = ("name", "alias", "digest", "lineage")
FILES = (CONFIG_FILE, WEIGHTS_FILE)
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


def uploaded_file(form: FormData, name: str) -> BinaryIO:
    """The open file of that name. Raises InvalidRequest("invalid_upload") where it is missing."""
    for field, value in form.multi_items():
        if isinstance(value, UploadFile) and _file_name(field, value) == name:
            return value.file
    raise InvalidRequest("invalid_upload", f"The upload has no file {name}.", name)


def _offer(form: FormData) -> Offer:
    texts = {name: form.get(name) for name in TEXT_FIELDS}
    name, alias, digest, lineage = (value if isinstance(value, str) else None for value in texts.values())
    if name is None:
        raise InvalidRequest("invalid_name", "The upload has no field 'name'.", "name")
    return Offer(name, alias, digest, None if lineage is None else check_lineage(lineage))


def _check_fields(form: FormData) -> None:
    for field, value in form.multi_items():
        known = _file_name(field, value) in FILES if isinstance(value, UploadFile) else field in TEXT_FIELDS
        if not known:
            raise InvalidRequest("unknown_field", f"An upload has no field {field!r:.80}.", field[:80])


def _file_name(field: str, part: UploadFile) -> str | None:
    return field if field in FILES else part.filename


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
