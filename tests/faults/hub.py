"""A hub on a real socket that misbehaves on demand: the front that all fault tests put before the hub."""

import asyncio
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio.to_thread
import uvicorn
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stowage.hub import create_app
from stowage.hub.answers import RangeNotSatisfiable, parse_range
from tests.patience import until

HTML = b"<!doctype html><html><body><h1>It works, but it is no hub</h1></body></html>"
LETTER = b"\xee"
PIECES_PER_SECOND = 50


@dataclass(eq=False, kw_only=True)
class Rule:
    """What to do to the requests whose path and query (`/a/b?c`, as sent) `path` is found in, as a regex.

    The faults of one rule work together. Counts are bytes of the answer's body as it is sent, so of a part where
    a range was asked for; `flip_at` and `stall_at` are offsets of the file. All of a rule ends when it is cleared: what
    stalls goes on then, unharmed.
    """

    path: str = ""
    method: str | None = None
    times: int | None = None  # the first so many matching requests only
    delay: float = 0.0  # seconds before anything is answered
    # Instead of the hub's answer:
    hang_up: bool = False  # cut the connection without an answer
    status: int | None = None  # with `headers` and `body`
    body: bytes | None = None
    html: bool = False  # a page, with status 200 unless `status` says another
    redirect: str | None = (
        None  # Location; "{path}" stands for path and query. 302 unless `status` says another
    )
    serve: bytes | None = None  # as if the file held this, ranges honoured; ETag by `headers`
    # On the hub's answer:
    headers: Mapping[str, str | None] = field(default_factory=dict)  # set; None removes
    ignore_range: bool = False  # 200 and the whole file
    content_range: str | None = None  # a Content-Range header as given
    flip_at: int | None = None  # one byte of the file is another
    resize: int = 0  # so many bytes more, or fewer, with a Content-Length to match
    chunked: bool = False  # no Content-Length
    rate: int | None = None  # bytes a second, for each connection
    call_after: tuple[int, Callable[[], object]] | None = None  # (bytes, callback in a thread)
    stall_after: int | None = None  # then nothing, until the rule is cleared
    stall_at: int | None = None  # as stall_after; what was asked for from there on does not come at all
    drop_after: int | None = None  # then the TCP connection is cut
    reset: bool = False  # cut by a reset, which may take bytes along that were sent


@dataclass(eq=False)
class SeenRequest:
    """A request as it came, and what became of it. `path` is as sent, with the query; header names are lower-case.

    `sent` counts body bytes handed to the socket: the client may have read fewer. `done` says that the whole answer
    was, `open` that it is still under way; both may follow a moment after the client has the last byte.
    """

    method: str
    path: str
    headers: dict[str, str]
    time: float  # time.monotonic()
    status: int | None = None
    sent: int = 0
    done: bool = False
    open: bool = True

    @property
    def range_start(self) -> int:
        """The offset that was asked for; 0 without a range."""
        found = re.match(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0

    @property
    def is_download(self) -> bool:
        """Whether it asked for a file's bytes."""
        return self.method == "GET" and "/resolve/" in self.path


class FaultHub:
    """The hub of a directory on 127.0.0.1, in a thread of this process; a context manager.

    `prefix` (`/mirror`): all of it lies below that path, and nothing beside it. `options` go to `create_app`;
    content is looked up anew for every request unless `recheck_seconds` says else.
    """

    def __init__(self, directory: Path, *, prefix: str = "", **options: Any) -> None:
        self.directory = directory
        self.prefix = prefix
        self.requests: list[SeenRequest] = []
        self.open_downloads = 0
        self.max_open_downloads = 0
        self._options = {"recheck_seconds": 0.0} | options
        self._rules: tuple[Rule, ...] = ()
        # Bound but not listening: keeps the port ours while the hub is down, so that nobody else answers there.
        self._place = self._bind(0)
        self.port: int = self._place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{prefix}"
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._place.close()

    def set(self, *rules: Rule) -> None:
        """Let these rules hold and no others; the first one that matches and is not used up decides."""
        self._rules = rules

    def clear(self) -> None:
        """Be a good hub again, in the answers under way too."""
        self._rules = ()

    def start(self) -> None:
        """Come up, on the same port as before."""
        listener = self._bind(self.port)
        # A small send buffer keeps `sent` near to what the client has read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # cut connections are what we are for
        self._server = server = _Server(
            uvicorn.Config(
                _Front(self, create_app(self.directory, **self._options)),
                http=_OpenProtocol,
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=1,
            )
        )

        self._thread = threading.Thread(
            target=lambda: asyncio.run(server.serve([listener])), name="fault-hub", daemon=True
        )
        self._thread.start()
        self.wait_for(lambda: server.started)

    def stop(self) -> None:
        """Go down: cut every connection and refuse new ones."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()
        self._server = self._thread = None

    def wait_for(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Block until `condition` holds; in async code call it by `asyncio.to_thread`. Fails after `seconds`."""
        until(condition, lambda: f"not within {seconds} s; the hub saw {self.requests[-5:]}", seconds)

    def seen(self, path: str = "", method: str | None = None) -> list[SeenRequest]:
        """Return the requests whose path the regex is found in, oldest first."""
        return [
            request
            for request in list(self.requests)
            if re.search(path, request.path) and method in {None, request.method}
        ]

    def downloads(self, path: str = "") -> list[SeenRequest]:
        """Return the requests for files' bytes, oldest first."""
        return [request for request in self.seen(path) if request.is_download]

    def wait_for_cut(self) -> None:
        """Wait until the connections of the downloads under way are known to be cut: until then more would count as sent."""
        held = [request for request in self.downloads() if request.open]
        self.wait_for(lambda: not any(request.open for request in held))

    def sent(self, path: str = "") -> int:
        """Return how many bytes of files were sent."""
        return sum(request.sent for request in self.downloads(path))

    def forget(self) -> None:
        """Empty `requests` and the high-water mark."""
        self.requests.clear()
        self.max_open_downloads = self.open_downloads

    def _take_rule(self, request: SeenRequest) -> Rule | None:
        for rule in self._rules:
            fits = re.search(rule.path, request.path) and rule.method in {None, request.method}
            if fits and (rule.times is None or rule.times > 0):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None

    @staticmethod
    def _bind(port: int) -> socket.socket:
        bound = socket.socket(proto=socket.IPPROTO_TCP)  # without it, asyncio leaves Nagle's algorithm on
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", port))
        return bound


class _Server(uvicorn.Server):
    """Goes down at once, as a hub does that is killed."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


class _OpenProtocol(HttpToolsProtocol):
    """Hands the connection to the application, which ASGI has no words for."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"transport": self.transport}  # type: ignore[dict-item]


class _Front:
    def __init__(self, hub: FaultHub, app: ASGIApp) -> None:
        self.hub = hub
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"].decode("latin-1")
        request = SeenRequest(
            scope["method"],
            scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            time.monotonic(),
        )
        self.hub.requests.append(request)
        rule = self.hub._take_rule(request)
        connection: asyncio.Transport = scope["extensions"]["transport"]

        async def counted(message: Message) -> None:
            if connection.is_closing():
                return
            # Counted before it goes out, so that whoever has read a byte finds it counted.
            request.status = message.get("status", request.status)
            request.sent += len(message.get("body", b""))
            await send(message)
            request.done = message["type"] == "http.response.body" and not message.get("more_body", False)

        self._open(request, 1)
        try:
            if not scope["path"].startswith(f"{self.hub.prefix}/"):
                await Response(status_code=404)(scope, receive, counted)
                return
            scope = self._below_prefix(scope)
            if rule is None:
                await self.app(scope, receive, counted)
            else:
                await self._misbehave(rule, request, connection, scope, receive, counted)
        finally:
            request.open = False
            self._open(request, -1)

    def _below_prefix(self, scope: Scope) -> Scope:
        skip = len(self.hub.prefix)
        below = {name: scope[name][skip:] for name in ("path", "raw_path")}
        return {**scope, **below, "root_path": self.hub.prefix}

    def _open(self, request: SeenRequest, step: int) -> None:
        if request.is_download:
            self.hub.open_downloads += step
            self.hub.max_open_downloads = max(self.hub.max_open_downloads, self.hub.open_downloads)

    async def _misbehave(
        self,
        rule: Rule,
        request: SeenRequest,
        connection: asyncio.Transport,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        def holds() -> bool:
            return rule in self.hub._rules and not connection.is_closing()

        ready = time.monotonic() + rule.delay
        while time.monotonic() < ready and holds():
            await asyncio.sleep(min(0.02, max(0.0, ready - time.monotonic())))
        if rule.hang_up:
            connection.close()
            return
        if rule.ignore_range:
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        app = _instead(rule, request) or self.app
        faults = _Faults(rule, request, connection, holds, send)
        await app(scope, receive, faults.send)


class _Faults:
    """Passes an answer on, distorted as the rule says."""

    def __init__(
        self,
        rule: Rule,
        request: SeenRequest,
        connection: asyncio.Transport,
        holds: Callable[[], bool],
        send: Send,
    ) -> None:
        self.rule = rule
        self.connection = connection
        self.holds = holds
        self.pass_on = send
        self.method = request.method
        self.path = request.path
        self.start = 0  # where in the file the body begins
        self.sent = 0
        self.length: int | None = None  # of the body that is sent
        self.over = False
        self.marks: list[tuple[int, Callable[[], Awaitable[None]]]] = []
        if rule.call_after is not None:
            after, callback = rule.call_after

            async def call() -> None:
                await anyio.to_thread.run_sync(callback)

            self.marks.append((after, call))
        if rule.stall_after is not None:
            self.marks.append((rule.stall_after, self._stall))
        if rule.drop_after is not None:
            self.marks.append((rule.drop_after, self._drop))

    async def send(self, message: Message) -> None:
        if self.over:
            return
        if message["type"] == "http.response.start":
            if self.rule.redirect is not None:
                await self._redirect(message["headers"])
                return
            await self.pass_on({**message, "headers": self._headers(message["headers"])})
            if self.method != "HEAD":
                await self._reach_marks()
            return
        if self.method == "HEAD":
            await self.pass_on(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        await self._send_body(self._flipped(body))
        if not more and self.length is not None and self.length > self.sent:
            await self._send_body(LETTER * (self.length - self.sent))
        if not self.over and (not more or self.sent == self.length):
            self.over = True
            await self.pass_on({"type": "http.response.body"})

    async def _redirect(self, raw: list[tuple[bytes, bytes]]) -> None:
        # As the big hub does it: what it knows of the file stands on the redirect, not on what it leads to.
        kept = [pair for pair in raw if pair[0].lower().startswith((b"x-repo-", b"x-linked-"))]
        location = str(self.rule.redirect).replace("{path}", self.path).encode("latin-1")
        headers = [*kept, (b"location", location), (b"content-length", b"0")]
        self.over = True
        await self.pass_on(
            {"type": "http.response.start", "status": self.rule.status or 302, "headers": headers}
        )
        await self.pass_on({"type": "http.response.body"})

    def _headers(self, raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in raw}
        if found := re.match(r"bytes (\d+)-", headers.get("content-range", "")):
            self.start = int(found[1])
        if self.rule.stall_at is not None:
            self.marks.append((max(0, self.rule.stall_at - self.start), self._stall))
        if self.rule.resize and "content-length" in headers:
            self.length = max(0, int(headers["content-length"]) + self.rule.resize)
            headers["content-length"] = str(self.length)
        if self.rule.chunked:
            headers.pop("content-length", None)
        if self.rule.content_range is not None:
            headers["content-range"] = self.rule.content_range
        for name, value in self.rule.headers.items():
            headers.pop(name.lower(), None)
            if value is not None:
                headers[name.lower()] = value
        return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    def _flipped(self, body: bytes) -> bytes:
        at = -1 if self.rule.flip_at is None else self.rule.flip_at - self.start - self.sent
        if not 0 <= at < len(body):
            return body
        return body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]

    async def _send_body(self, body: bytes) -> None:
        while body and not self.over and self.sent != self.length:
            size = len(body) if self.length is None else min(len(body), self.length - self.sent)
            if self.marks:
                size = min(size, min(after for after, _ in self.marks) - self.sent)
            if self.rule.rate is not None and self.holds():
                size = max(1, min(size, self.rule.rate // PIECES_PER_SECOND))
                await asyncio.sleep(size / self.rule.rate)
            await self.pass_on({"type": "http.response.body", "body": body[:size], "more_body": True})
            self.sent += size
            body = body[size:]
            await self._reach_marks()

    async def _reach_marks(self) -> None:
        for mark in [mark for mark in self.marks if mark[0] <= self.sent]:
            self.marks.remove(mark)
            if self.holds():
                await mark[1]()

    async def _stall(self) -> None:
        while self.holds():
            await asyncio.sleep(0.01)

    async def _drop(self) -> None:
        self.over = True
        if self.rule.reset:
            connected = self.connection.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.abort()
        self.connection.close()  # what is buffered still goes out, then the connection ends


def _instead(rule: Rule, request: SeenRequest) -> ASGIApp | None:
    """Return what answers in the place of the hub, if anything does."""
    if rule.redirect is not None:
        return None
    if rule.html:
        return Response(HTML, rule.status or 200, media_type="text/html")
    if rule.status is not None:
        if rule.body is not None:
            return Response(rule.body, rule.status)
        return JSONResponse({"error": f"made to fail with {rule.status}"}, rule.status)
    if rule.serve is not None:
        try:
            part = parse_range(request.headers.get("range", ""), len(rule.serve))
        except RangeNotSatisfiable:
            return Response(status_code=416)
        if part is None or rule.ignore_range:
            return Response(rule.serve)
        content_range = f"bytes {part.start}-{part.end - 1}/{len(rule.serve)}"
        return Response(rule.serve[part.start : part.end], 206, {"Content-Range": content_range})
    return None
