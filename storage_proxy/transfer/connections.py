"""Kept-alive HTTP/1.1 connections for the threads that move bytes.

On the standard library's `http.client`: a body goes from the socket into the reader's own buffer, and a request costs
a fraction of what it costs a client for everything (docs/decisions/0009). Nothing here retries, follows redirects or decodes;
the callers decide about those.
"""

import http.client
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Self

import certifi
import httpx

from proxy_client.errors import SourceUnavailable
from storage_proxy.transfer.line import Line
from storage_proxy.transfer.reach import Place, Reach

_IDLE_SECONDS = 20.0
_IDLE_MOST = 32  # connections kept for one origin
_BROKEN = (OSError, http.client.HTTPException, ValueError)  # ValueError: a chunk's size that is no number

Origin = tuple[str, str, int]


def origin_of(url: httpx.URL) -> Origin:
    """Return scheme, host and port."""
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Trust the usual authorities, the machine's own, those that SSL_CERT_FILE names, and the given ones."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Stalled(SourceUnavailable):
    """The registry let a request wait for longer than the setting allows."""


class Connections:
    """The idle connections to every origin of one registry. All threads share it."""

    def __init__(
        self, reach: Reach, tls: ssl.SSLContext, *, connect_timeout: float, stall_timeout: float
    ) -> None:
        self._reach = reach
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout
        self._lock = threading.Lock()
        self._idle: defaultdict[Origin, list[tuple[float, _Connection]]] = defaultdict(list)

    def get(self, url: httpx.URL, headers: Mapping[str, str], line: Line) -> "Answer":
        """Ask, and return the answer as soon as its headers are there; the caller closes it.

        Raises `SourceUnavailable`, `SourceForbidden` for an address out of reach, or `Cut`.
        """
        line.check()
        origin = origin_of(url)
        while (idle := self._take(origin)) is not None:
            # A kept connection may have been closed at the other end meanwhile: that says nothing about the registry.
            with suppress(_Stale):
                return self._ask(idle, url, headers, line, kept=True)
        connection = _Connection(
            origin, self._reach, self._tls, line, self._connect_timeout, self._stall_timeout
        )
        return self._ask(connection, url, headers, line, kept=False)

    def _ask(
        self, connection: "_Connection", url: httpx.URL, headers: Mapping[str, str], line: Line, *, kept: bool
    ) -> "Answer":
        hold = ExitStack()
        try:
            if connection.sock is None:
                connection.connect()
            hold.enter_context(line.holding(connection.sock))
            connection.request("GET", url.raw_path.decode("ascii"), headers=dict(headers))
            response = connection.getresponse()
        except _BROKEN as exc:
            hold.close()
            connection.close()
            line.check()
            if kept and isinstance(exc, (ConnectionError, http.client.BadStatusLine)):
                raise _Stale from exc
            raise SourceUnavailable(
                f"the registry {self._reach.registry} does not answer ({reason(exc)})"
            ) from exc
        except BaseException:
            hold.close()
            connection.close()
            raise
        return Answer(self, connection, response, hold, line)

    def _take(self, origin: Origin) -> "_Connection | None":
        with self._lock:
            idle = self._idle[origin]
            while idle:
                since, connection = idle.pop()
                if time.monotonic() - since < _IDLE_SECONDS:
                    return connection
                connection.close()
        return None

    def keep(self, connection: "_Connection") -> None:
        """Take back a connection whose answer was read to its end."""
        with self._lock:
            idle = self._idle[connection.origin]
            if len(idle) < _IDLE_MOST:
                idle.append((time.monotonic(), connection))
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, defaultdict(list)
        for kept in idle.values():
            for _, connection in kept:
                connection.close()


class _Stale(Exception):
    """A kept connection was closed at the other end before it could be used again."""


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was checked."""

    def __init__(
        self,
        origin: Origin,
        reach: Reach,
        tls: ssl.SSLContext,
        line: Line,
        connect_timeout: float,
        stall_timeout: float,
    ) -> None:
        self.origin = origin
        scheme, host, port = origin
        super().__init__(f"[{host}]" if ":" in host else host, port)
        self.default_port = {"http": 80, "https": 443}[scheme]
        self._reach = reach
        self._tls = tls
        self._line = line
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout

    def connect(self) -> None:
        _, host, port = self.origin
        deadline = time.monotonic() + self._connect_timeout
        fault: OSError | None = None
        for place in self._reach.places(host, port):
            try:
                self.sock = self._connected(place, deadline)
            except OSError as exc:
                self._line.check()
                fault = exc
            else:
                return
        raise fault or TimeoutError

    def _connected(self, place: Place, deadline: float) -> socket.socket:
        opened = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            opened.settimeout(max(0.05, deadline - time.monotonic()))
            with self._line.holding(opened):
                opened.connect(place.sockaddr)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.origin[0] == "https":
                secure = self._tls.wrap_socket(
                    opened, server_hostname=self.origin[1], do_handshake_on_connect=False
                )
                opened = secure
                with self._line.holding(secure):
                    secure.settimeout(max(0.05, deadline - time.monotonic()))
                    secure.do_handshake()
            opened.settimeout(self._stall_timeout)
        except BaseException:
            opened.close()
            raise
        return opened


class Answer:
    """Status, headers and body. A context manager; closed before its end, its connection is not used again."""

    def __init__(
        self,
        connections: Connections,
        connection: _Connection,
        response: http.client.HTTPResponse,
        hold: ExitStack,
        line: Line,
    ) -> None:
        self._connections = connections
        self._connection = connection
        self._response = response
        self._hold = hold
        self._line = line
        self._keeps = not response.will_close
        self.status = response.status
        self.headers: Message = response.headers
        # Without a length the body ends with the connection, or is chunked.
        self.length: int | None = response.length
        self._left = response.length
        self._closed = False

    def readinto(self, view: memoryview) -> int:
        """Read what is there, at least one byte; 0 at the end of the body.

        Raises `SourceUnavailable` where the connection breaks, stalls, or ends before the announced length; or `Cut`.
        """
        try:
            if self._left is None:
                return self._read_unmeasured(view)
            if not self._left:
                return 0
            # One system call into the caller's buffer; `HTTPResponse.readinto` would wait until the buffer is full.
            count: int = self._response.fp.readinto1(view[: self._left])
        except _BROKEN as exc:
            self._line.check()
            kind = Stalled if isinstance(exc, TimeoutError) else SourceUnavailable
            raise kind(f"the registry's transfer broke off ({reason(exc)})") from exc
        if not count:
            self._line.check()
            raise SourceUnavailable(f"the registry's transfer broke off {self._left} bytes before its end")
        self._left -= count
        return count

    def _read_unmeasured(self, view: memoryview) -> int:
        if self._response.isclosed():
            return 0
        if not self._response.chunked:
            return int(self._response.fp.readinto1(view))
        # What is there of a chunk; `readinto` would lose it when the connection breaks.
        data = self._response.read1(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, limit: int) -> bytes | None:
        """Read the whole body; None if it is longer than `limit` bytes. Raises as `readinto`."""
        content = bytearray()
        view = memoryview(bytearray(min(limit + 1, 1 << 16)))
        while count := self.readinto(view):
            content += view[:count]
            if len(content) > limit:
                return None
        return bytes(content)

    def close(self) -> None:
        """Let go of the connection: kept for the next request if the body was read to its end. May be repeated."""
        if self._closed:
            return
        self._closed = True
        self._hold.close()
        whole = self._left == 0 or (self._left is None and self._response.isclosed())
        with suppress(*_BROKEN):
            self._response.close()
        if whole and self._keeps and not self._line.is_cut and self._connection.sock is not None:
            self._connections.keep(self._connection)
        else:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reason(exc: BaseException) -> str:
    """Say in a few words of ours what a foreign error is; its own text may hold anything."""
    if isinstance(exc, TimeoutError):
        return "timeout"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(exc, ssl.SSLError):
        return "TLS fails"
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exc, ConnectionError):
        return "connection reset"
    return "network error" if isinstance(exc, OSError) else "no valid HTTP"
