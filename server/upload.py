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
from adapters.file_limits import FILES
from adapters.validation import unknown_field
from server.registration import Offer
from server.requests import AdapterUpload

OVERHEAD_BYTES = 1024 * 1024
"""What a body may hold beside the weights: config, boundaries, part headers."""


@asynccontextmanager
async def read_upload(request: Request, max_bytes: int) -> AsyncIterator[tuple[Offer, FormData]]:
    """The offer and the form with its two files, which are gone when the context closes.

    Raises InvalidRequest("invalid_upload") for what is no such upload, HTTPException 413 past the limit.
    """
    limited = Request(request.scope, _bounded(request.receive, max_bytes + OVERHEAD_BYTES))
    try:
        form = await limited.form(max_files=len(FILES), max_fields=len(AdapterUpload.model_fields))
    except MultiPartException as error:
        raise InvalidRequest("invalid_upload", error.message) from error
    except HTTPException as error:
        if error.status_code == 400:
            raise InvalidRequest("invalid_upload", error.detail) from error
        raise
    try:
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
    for field, value in form.multi_items():
        if isinstance(value, UploadFile) and _file_name(field, value) not in FILES:
            raise unknown_field(field)
    texts = {field: value for field, value in form.multi_items() if isinstance(value, str)}
    fields = AdapterUpload.read(texts)
    return Offer(fields.name, fields.alias, fields.digest, fields.lineage)


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
