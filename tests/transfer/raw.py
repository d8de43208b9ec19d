"""A server on a real socket that answers with exactly the bytes that a test gives it."""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_HEAD = 1 << 16


@dataclass(frozen=True)
class Asked:
    """One request: on which connection, from 0, and its head."""

    connection: int
    head: str

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return None


class Peer:
    """The server's end of one connection, and what was asked there last."""

    def __init__(self, opened: socket.socket, asked: Asked) -> None:
        self.socket = opened
        self.asked = asked

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, body: bytes = b"", *, status: str = "200 OK", headers: str = "") -> None:
        """Send a whole answer; the connection stays open."""
        self.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def wait_for_end(self) -> None:
        """Return when the other end has closed."""
        with suppress(OSError):
            while self.socket.recv(_HEAD):
                pass


Answerer = Callable[[Peer], bool | None]
"""Answers one request; False: the connection is at its end."""


@dataclass
class RawServer:
    """Listens at `host`, on a port of its own; a context manager. `ended` holds the numbers of connections that are over."""

    answerer: Answerer
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    _peers: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="raw-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._peers)

    def _accept(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                opened, _ = self._listener.accept()
                self._peers.append(opened)
                thread = threading.Thread(
                    target=self._serve, args=(len(self._peers) - 1, opened), name="raw-peer", daemon=True
                )
                thread.start()
                threads.append(thread)
        for thread in threads:
            thread.join(5)

    def _serve(self, number: int, opened: socket.socket) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError, ValueError):
            if self.tls is not None:
                opened = self.tls.wrap_socket(opened, server_side=True)
            with opened:
                while head := self._head(opened):
                    asked = Asked(number, head)
                    self.asked.append(asked)
                    if self.answerer(Peer(opened, asked)) is False:
                        break
        opened.close()
        self.ended.add(number)

    @staticmethod
    def _head(opened: socket.socket) -> str:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            more = opened.recv(_HEAD)
            if not more:
                return ""
            data += more
        return data.decode("latin-1").removesuffix("\r\n\r\n")
