"""Kept-alive HTTP/1.1 connections for the threads that move bytes.

A body goes from the socket straight into the reader's own buffer; heads, chunks and everything odd go through llhttp
(httptools). A request costs a fraction of what it costs a client for everything (docs/decisions/0009). Nothing here retries, follows
redirects or decodes; the callers decide about those.
"""

import functools
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import httptools
import httpx

from proxy_client import tls
from proxy_client.errors import SourceInvalid, SourceUnavailable
from storage_proxy.transfer.line import Line
from storage_proxy.transfer.reach import Place, Reach

_IDLE_SECONDS = 20.0
_IDLE_MOST = 32  # connections kept for one origin
_LONGEST_HEAD = 64 << 10  # bytes
_BLOCK = 16 << 10  # bytes received at a time while they are a head
_MOMENT = 0.05  # seconds in which a reader's buffer is filled further before it gets what there is
_END_OF_HEAD = b"\r\n\r\n"
_BROKEN = (OSError, httptools.HttpParserError)
_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535


class Origin(NamedTuple):
    """Whom a connection is to. `host` is as it is written in an address, without the brackets of IPv6."""

    scheme: str
    host: str
    port: int


class Address(NamedTuple):
    """What is asked for: of whom, and the request target (path and query, all ASCII)."""

    origin: Origin
    target: str

    @classmethod
    def of(cls, url: httpx.URL | str) -> Self:
        """Take an address apart. Raises `SourceInvalid` for anything but http and https."""
        url = httpx.URL(url)
        if url.scheme not in _PORTS:
            raise SourceInvalid("the registry leads to something that is no http address")
        origin = Origin(url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
        if origin.port > _LAST_PORT:  # the resolver would take another one
            raise SourceInvalid("the registry leads to a port that there is not")
        return cls(origin, url.raw_path.decode("ascii"))

    @property
    def url(self) -> httpx.URL:
        """Return it in one piece."""
        scheme, host, port = self.origin
        return httpx.URL(f"{scheme}://{_written(host)}:{port}{self.target}")

    @property
    def authority(self) -> str:
        """Return what the Host header says."""
        scheme, host, port = self.origin
        return _written(host) if port == _PORTS[scheme] else f"{_written(host)}:{port}"


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Trust the usual authorities, the machine's own, those that SSL_CERT_FILE names, and the given ones."""
    context = tls.tls_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Stalled(SourceUnavailable):
    """The registry let a request wait for longer than the setting allows."""


class Connections:
    """The idle connections to every origin of one registry. All threads share it.

    tls: whom to trust; None reads the usual authorities at the first connection by https, which takes 80 ms of CPU.
    """

    def __init__(
        self, reach: Reach, tls: ssl.SSLContext | None, *, connect_timeout: float, stall_timeout: float
    ) -> None:
        self.reach = reach
        self._given_tls = tls
        self.connect_timeout = connect_timeout
        self.stall_timeout = stall_timeout
        self._lock = threading.Lock()
        self._idle: defaultdict[Origin, list[tuple[float, socket.socket]]] = defaultdict(list)

    def get(self, address: Address, headers: Mapping[str, str], line: Line) -> "Answer":
        """Ask, and return the answer as soon as its head is there; the caller closes it.

        Raises `SourceUnavailable`, `SourceForbidden` for an address out of reach, or `Cut`.
        """
        line.check()
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"GET {address.target} HTTP/1.1\r\nHost: {address.authority}\r\n{fields}\r\n".encode(
            "ascii"
        )
        while (kept := self._take(address.origin)) is not None:
            # A kept connection may have been closed at the other end meanwhile: that says nothing about the registry.
            with suppress(_Stale):
                return self._ask(kept, address.origin, request, line, kept=True)
        try:
            opened = self._connect(address.origin, line)
        except OSError as exc:
            line.check()
            raise self._silent(exc) from exc
        return self._ask(opened, address.origin, request, line, kept=False)

    @functools.cached_property
    def tls(self) -> ssl.SSLContext:
        return self._given_tls or tls_context()

    def _ask(
        self, connection: socket.socket, origin: Origin, request: bytes, line: Line, *, kept: bool
    ) -> "Answer":
        hold = ExitStack()
        try:
            hold.enter_context(line.holding(connection))
            connection.sendall(request)
            return Answer(self, origin, connection, hold, line)
        except BaseException as exc:
            hold.close()
            connection.close()
            if not isinstance(exc, _BROKEN):
                raise
            line.check()
            if kept and isinstance(exc, ConnectionError):
                raise _Stale from exc
            raise self._silent(exc) from exc

    def _silent(self, exc: Exception) -> SourceUnavailable:
        kind = Stalled if isinstance(exc, TimeoutError) else SourceUnavailable
        return kind(f"the registry {self.reach.registry} does not answer ({reason(exc)})")

    def _connect(self, origin: Origin, line: Line) -> socket.socket:
        deadline = time.monotonic() + self.connect_timeout
        fault: OSError | None = None
        for place in self.reach.places(origin.host, origin.port):
            try:
                return self._connected(origin, place, deadline, line)
            except OSError as exc:
                line.check()
                fault = exc
        raise fault or TimeoutError

    def _connected(self, origin: Origin, place: Place, deadline: float, line: Line) -> socket.socket:
        opened = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            opened.settimeout(max(0.05, deadline - time.monotonic()))
            with line.holding(opened):
                opened.connect(place.sockaddr)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                secure = self.tls.wrap_socket(
                    opened, server_hostname=origin.host, do_handshake_on_connect=False
                )
                opened = secure
                with line.holding(secure):
                    secure.settimeout(max(0.05, deadline - time.monotonic()))
                    secure.do_handshake()
            opened.settimeout(self.stall_timeout)
        except BaseException:
            opened.close()
            raise
        return opened

    def _take(self, origin: Origin) -> socket.socket | None:
        with self._lock:
            idle = self._idle[origin]
            while idle:
                since, connection = idle.pop()
                if time.monotonic() - since < _IDLE_SECONDS:
                    return connection
                connection.close()
        return None

    def keep(self, origin: Origin, connection: socket.socket) -> None:
        """Take back a connection whose answer was read to its end."""
        with self._lock:
            idle = self._idle[origin]
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


class _Head:
    """What llhttp tells of an answer while it is fed."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


class Answer:
    """Status, headers (names in lower case) and body. A context manager; closed before its end, its connection is not used again."""

    def __init__(
        self, connections: Connections, origin: Origin, connection: socket.socket, hold: ExitStack, line: Line
    ) -> None:
        """Read the head. Raises OSError or `httptools.HttpParserError`; then the caller closes the connection."""
        self._connections = connections
        self._origin = origin
        self._connection = connection
        self._hold = hold
        self._line = line
        self._closed = False
        self._fault: Exception | None = None
        # A head that trickles is late as well; of a body, its reader knows how fast it has to be.
        deadline = time.monotonic() + connections.stall_timeout
        rest = b""
        while True:
            head, rest = self._receive_head(rest, deadline)
            self._told = _Head()
            self._parser = httptools.HttpResponseParser(self._told)
            self._parser.feed_data(head)
            self.status: int = self._parser.get_status_code()
            if self.status >= 200 or self.status == 101:  # noqa: PLR2004 -- what comes before is no answer yet
                break
        self.headers: Mapping[str, str] = self._told.headers
        length = self.headers.get("content-length")
        # Without a length the body is chunked, or ends with the connection.
        self.length: int | None = 0 if self._told.complete else None if length is None else int(length)
        self._left = self.length
        self._keeps = self._parser.should_keep_alive()
        self._early = memoryview(rest)

    def _receive_head(self, rest: bytes, deadline: float) -> tuple[bytes, bytes]:
        received = bytearray(rest)
        searched = 0
        while (end := received.find(_END_OF_HEAD, searched)) < 0:
            searched = max(0, len(received) - len(_END_OF_HEAD))
            data = self._connection.recv(_BLOCK) if len(received) < _LONGEST_HEAD else None
            if data is None:
                raise httptools.HttpParserError("the head is too long")
            if not data:
                raise ConnectionResetError
            if time.monotonic() > deadline:
                raise TimeoutError
            received += data
        end += len(_END_OF_HEAD)
        return bytes(received[:end]), bytes(received[end:])

    def readinto(self, view: memoryview) -> int:
        """Read what comes within a moment, at least one byte; 0 at the end of the body.

        Raises `SourceUnavailable` where the connection breaks, stalls, or ends before the announced length; or `Cut`.
        """
        try:
            if self._left is None:
                return self._read_unmeasured(view)
            if not self._left:
                return 0
            if self._early:
                count = min(len(view), len(self._early), self._left)
                view[:count] = self._early[:count]
                self._early = self._early[count:]
            else:
                count = self._receive(view[: min(len(view), self._left)])
        except _BROKEN as exc:
            self._line.check()
            kind = Stalled if isinstance(exc, TimeoutError) else SourceUnavailable
            raise kind(f"the registry's transfer broke off ({reason(exc)})") from exc
        if not count:
            self._line.check()
            raise SourceUnavailable(f"the registry's transfer broke off {self._left} bytes before its end")
        self._left -= count
        return count

    def _receive(self, view: memoryview) -> int:
        """Fill a buffer here, where it costs least: TLS gives 16 KiB at a time, and a plain socket what has come."""
        if self._fault is not None:
            raise self._fault
        receive, size = self._connection.recv_into, len(view)
        until = time.monotonic() + _MOMENT
        filled = count = receive(view)
        while count and filled < size and time.monotonic() < until:
            try:
                count = receive(view[filled:])
            except _BROKEN as exc:  # what came before the break is good
                self._fault = exc
                break
            filled += count
        return filled

    def _read_unmeasured(self, view: memoryview) -> int:
        told = self._told
        while not told.body and not told.complete:
            data = bytes(self._early) or self._connection.recv(len(view))
            self._early = self._early[:0]
            if data:
                self._parser.feed_data(data)
            elif self._chunked:
                raise ConnectionResetError
            else:
                told.complete, self._keeps = True, False
        count = min(len(view), len(told.body))
        view[:count] = told.body[:count]
        del told.body[:count]
        return count

    @property
    def _chunked(self) -> bool:
        return "transfer-encoding" in self.headers

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
        whole = self._left == 0 or (self._left is None and self._told.complete and not self._told.body)
        if whole and self._keeps and not self._early and not self._line.is_cut:
            self._connections.keep(self._origin, self._connection)
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
