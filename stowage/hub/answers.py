"""How a file's bytes, or a part of them, leave the hub."""

import contextlib
import os
import re
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial

import anyio
import anyio.to_thread
import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from stowage.hub.content import CHUNK, ContentChanged, Identity, ServedFile

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` up to and without `end`."""

    start: int
    end: int


class RangeNotSatisfiable(Exception):
    """The range asked for holds no byte of the file."""


def parse_range(header: str, size: int) -> Part | None:
    """Read a `Range` header (RFC 9110, section 14). Returns None where the whole file is the right answer.

    That is so for other units, several ranges and malformed ones. Raises `RangeNotSatisfiable`.
    """
    if (
        found := re.fullmatch(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})", header.strip(), re.IGNORECASE)
    ) is None:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable
    return Part(start, end)


class FileAnswer(Response):
    """A served file: 200, 206, 304 or 416, whichever the request's conditions and range ask for.

    Owns `descriptor` and closes it. Reads ahead of the client by one chunk at most. Where the file is written to
    meanwhile, the connection breaks off: a client never gets the halves of two contents as one.
    """

    def __init__(self, file: ServedFile, descriptor: int, request: Headers, headers: dict[str, str]) -> None:
        self.file = file
        self.descriptor = descriptor
        self.part = Part(0, file.size)
        etag = f'"{file.etag}"'
        headers = headers | {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Last-Modified": formatdate(file.identity.mtime_ns // 1_000_000_000, usegmt=True),
            "X-Content-Type-Options": "nosniff",
        }
        if file.digest.sha256 is not None:
            headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": etag}
        status = 200
        if _matches(request.get("if-none-match"), etag):
            status, self.part = 304, Part(0, 0)
        elif (asked := request.get("range")) is not None and request.get("if-range", etag) == etag:
            try:
                if (part := parse_range(asked, file.size)) is not None:
                    status, self.part = 206, part
                    headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{file.size}"
            except RangeNotSatisfiable:
                status, self.part = 416, Part(0, 0)
                headers["Content-Range"] = f"bytes */{file.size}"
        if status != 304:  # noqa: PLR2004 -- the status just set
            headers["Content-Length"] = str(self.part.end - self.part.start)
        plain = "application/octet-stream" if file.digest.sha256 else "text/plain; charset=utf-8"
        super().__init__(None, status, headers, plain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if scope["method"] == "HEAD" or self.part.start == self.part.end:
                await send({"type": "http.response.body"})
                return
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_when_gone, receive, tasks.cancel_scope)
                with contextlib.suppress(ContentChanged):
                    await self._send_part(send)
                tasks.cancel_scope.cancel()
        finally:
            self.close()

    def close(self) -> None:
        """Give the descriptor back; an answer that is sent does so itself."""
        os.close(self.descriptor)

    async def _send_part(self, send: Send) -> None:
        offset = self.part.start
        while offset < self.part.end:
            chunk = await anyio.to_thread.run_sync(partial(self._read, offset))
            offset += len(chunk)
            message: Message = {
                "type": "http.response.body",
                "body": chunk,
                "more_body": offset < self.part.end,
            }
            await send(message)

    def _read(self, offset: int) -> bytes:
        chunk = os.pread(self.descriptor, min(CHUNK, self.part.end - offset), offset)
        if not chunk or Identity.of(os.fstat(self.descriptor)) != self.file.identity:
            log.warning("file changed while it was sent", path=self.file.path)
            raise ContentChanged
        return chunk


async def _cancel_when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    # uvicorn swallows what is sent to a client that is gone; without this the whole file would still be read.
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in {
        tag.strip().removeprefix("W/") for tag in if_none_match.split(",")
    }
