"""Connections to a server on a real socket that answers whatever the test says."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from proxy_client.errors import SourceUnavailable
from storage_proxy.transfer.connections import Address, Answer, Connections, Stalled, tls_context
from storage_proxy.transfer.line import Cut, Line
from storage_proxy.transfer.reach import Reach
from tests.transfer.conftest import Certificates
from tests.transfer.raw import Answerer, Peer, RawServer
from tests.transfer.waiting import until

BODY = bytes(range(256)) * 40
HEAD = "HTTP/1.1 200 OK\r\n"


class Client:
    """Connections to one raw server."""

    def __init__(self, server: RawServer, *, tls: ssl.SSLContext | None = None, **patience: float) -> None:
        self.server = server
        waits = {"connect_timeout": 2.0, "stall_timeout": 0.3, **patience}
        self.connections = Connections(Reach("hub", server.host), tls or tls_context(), **waits)
        self.line = Line()

    def open(self, path: str = "/", **headers: str) -> Answer:
        return self.connections.get(Address.of(self.server.url + path), headers, self.line)

    def get(self, path: str = "/") -> bytes:
        with self.open(path) as answer:
            return bytes(answer.read(1 << 20) or b"")


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    """Start a server with an answerer, and connect to it: `client(answerer, stall_timeout=1.0)`."""
    with ExitStack() as stack:

        def start(
            answerer: Answerer, *, server_tls: ssl.SSLContext | None = None, **details: object
        ) -> Client:
            server = stack.enter_context(RawServer(answerer, tls=server_tls))
            made = Client(server, **details)  # type: ignore[arg-type]
            stack.callback(made.connections.close)
            return made

        yield start


def sending(*pieces: bytes) -> Answerer:
    """Send these bytes as the answer, and end the connection."""

    def answer(peer: Peer) -> bool:
        for piece in pieces:
            peer.send(piece)
        return False

    return answer


def whole(peer: Peer) -> None:
    peer.answer(BODY)


# Bodies.


def test_a_body_that_was_read_to_its_end_leaves_its_connection_to_the_next(
    client: Callable[..., Client],
) -> None:
    asking = client(whole)
    assert [asking.get(), asking.get("/two"), asking.get()] == [BODY] * 3
    assert asking.server.connections == 1
    assert [request.head.split("\r\n")[0] for request in asking.server.asked] == [
        *("GET / HTTP/1.1", "GET /two HTTP/1.1", "GET / HTTP/1.1")
    ]


def test_a_body_that_was_left_costs_its_connection(client: Callable[..., Client]) -> None:
    asking = client(whole)
    with asking.open() as answer:
        assert answer.readinto(memoryview(bytearray(10))) == 10
    assert asking.get() == BODY
    assert asking.server.connections == 2


@pytest.mark.parametrize("step", [1, 3, 4096])
def test_a_chunked_body_is_whole_and_leaves_its_connection(client: Callable[..., Client], step: int) -> None:
    body = BODY[:500]

    def answer(peer: Peer) -> None:
        peer.send(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        for at in range(0, len(body), step):
            piece = body[at : at + step]
            peer.send(f"{len(piece):x};note=x\r\n".encode() + piece + b"\r\n")
        peer.send(b"0\r\nTrailer: yes\r\n\r\n")

    asking = client(answer)
    assert [asking.get(), asking.get()] == [body, body]
    assert asking.server.connections == 1


def test_a_body_that_ends_with_the_connection_is_whole(client: Callable[..., Client]) -> None:
    asking = client(sending(HEAD.encode(), b"\r\n", BODY))
    with asking.open() as answer:
        assert answer.length is None
        assert answer.read(1 << 20) == BODY
    assert asking.get() == BODY
    assert asking.server.connections == 2


def test_no_more_than_the_announced_bytes_are_read(client: Callable[..., Client]) -> None:
    asking = client(sending(HEAD.encode(), b"Content-Length: 5\r\n\r\n", BODY))
    assert asking.get() == BODY[:5]


def test_a_longer_body_than_wanted_is_said_to_be_so(client: Callable[..., Client]) -> None:
    asking = client(whole)
    with asking.open() as answer:
        assert answer.read(len(BODY) - 1) is None
    with asking.open() as answer:
        assert answer.read(len(BODY)) == BODY


@pytest.mark.parametrize(
    "answer",
    [
        sending(HEAD.encode(), b"Content-Length: 20000\r\n\r\n", BODY),
        sending(HEAD.encode(), b"Content-Length: 5\r\n\r\n"),
        sending(HEAD.encode(), b"Transfer-Encoding: chunked\r\n\r\n", b"10\r\nabc"),
        sending(HEAD.encode(), b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n"),
        sending(HEAD.encode(), b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n3"),
        sending(HEAD.encode(), b"Transfer-Encoding: chunked\r\n\r\n", b"soon\r\nabc\r\n"),
    ],
    ids=["short", "none of it", "in a chunk", "between chunks", "in a chunk's size", "no chunk's size"],
)
def test_a_body_that_ends_early_is_an_error(client: Callable[..., Client], answer: Answerer) -> None:
    asking = client(answer)
    with asking.open() as opened, pytest.raises(SourceUnavailable, match="broke off"):
        opened.read(1 << 20)
    assert len(asking.server.asked) == 1


def test_what_came_before_the_break_is_there(client: Callable[..., Client]) -> None:
    asking = client(sending(HEAD.encode(), b"Transfer-Encoding: chunked\r\n\r\n", b"10\r\nabc"))
    view = memoryview(bytearray(100))
    with asking.open() as answer:
        assert (answer.readinto(view), bytes(view[:3])) == (3, b"abc")
        with pytest.raises(SourceUnavailable):
            answer.readinto(view)


# Answers that are none.


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "connection reset"),
        (b"SSH-2.0-OpenSSH\r\n", "connection reset"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no valid HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "no valid HTTP"),
        (
            b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(9999)) + b"\r\n",
            "no valid HTTP",
        ),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "no valid HTTP"),
        (b"HTTP/1.1 " + b"2" * 100_000, "no valid HTTP"),
    ],
    ids=[
        "nothing",
        "a banner",
        "another protocol",
        "no status",
        "many headers",
        "a long header",
        "a long status",
    ],
)
def test_an_answer_that_is_no_http_is_unavailable(
    client: Callable[..., Client], said: bytes, why: str
) -> None:
    asking = client(sending(said))
    with pytest.raises(SourceUnavailable, match=why) as caught:
        asking.get()
    assert type(caught.value) is SourceUnavailable


def test_answers_before_the_answer_are_passed_over(client: Callable[..., Client]) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    asking = client(
        sending(b"HTTP/1.1 100 Continue\r\n\r\n", early, HEAD.encode(), b"Content-Length: 2\r\n\r\nok")
    )
    assert asking.get() == b"ok"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body_leaves_its_connection(client: Callable[..., Client], status: str) -> None:
    asking = client(lambda peer: peer.send(f"HTTP/1.1 {status}\r\n\r\n".encode()))
    assert [asking.get(), asking.get()] == [b"", b""]
    assert asking.server.connections == 1


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: -3",
        "Content-Length: 3, 3",
        "Content-Length: \N{ARABIC-INDIC DIGIT THREE}",
        "Content-Length: 99999999999999999999999999",
        "Content-Length:",
    ],
)
def test_a_body_of_doubtful_length_is_no_answer(client: Callable[..., Client], fields: str) -> None:
    """Whoever guesses takes the framing for the body, or the body for the next answer."""
    asking = client(sending(HEAD.encode(), fields.encode() + b"\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"))
    with pytest.raises(SourceUnavailable, match="no valid HTTP"):
        asking.get()


def test_a_head_that_trickles_is_stalled(client: Callable[..., Client]) -> None:
    def answer(peer: Peer) -> None:
        peer.send(HEAD.encode())
        for _ in range(100):
            peer.send(b"X: y\r\n")
            time.sleep(0.02)
        peer.send(b"Content-Length: 0\r\n\r\n")

    asking = client(answer)
    with pytest.raises(Stalled):
        asking.get()


def test_a_reset_is_unavailable(client: Callable[..., Client]) -> None:
    asking = client(lambda peer: peer.reset())
    with pytest.raises(SourceUnavailable, match="reset"):
        asking.get()


def test_nobody_listening_is_unavailable(client: Callable[..., Client]) -> None:
    asking = client(whole)
    asking.server.port = unused_port()
    with pytest.raises(SourceUnavailable, match="connection refused"):
        asking.get()


def test_a_path_is_sent_in_ascii(client: Callable[..., Client]) -> None:
    asking = client(whole)
    assert asking.get("/\N{SNOWMAN} b?q=\N{SNOWMAN}") == BODY
    assert asking.server.asked[0].head.startswith("GET /%E2%98%83%20b?q=%E2%98%83 HTTP/1.1\r\n")


# Connections that were kept.


@pytest.mark.parametrize("end", ["politely", "by a reset"])
def test_a_kept_connection_that_the_server_closed_is_replaced_without_a_word(
    client: Callable[..., Client], end: str
) -> None:
    def answer(peer: Peer) -> bool | None:
        peer.answer(BODY)
        if peer.asked.connection:
            return None
        if end == "by a reset":
            peer.reset()
        return False

    asking = client(answer)
    assert asking.get() == BODY
    until(lambda: asking.server.ended)
    assert asking.get() == BODY
    assert asking.server.connections == 2


def test_a_kept_connection_that_ends_while_it_is_asked_is_replaced_without_a_word(
    client: Callable[..., Client],
) -> None:
    def answer(peer: Peer) -> bool | None:
        if peer.asked.connection == 0 and "/two" in peer.asked.head:
            return False
        peer.answer(BODY)
        return None

    asking = client(answer)
    assert [asking.get(), asking.get("/two")] == [BODY, BODY]
    assert [(request.connection, request.head[:8]) for request in asking.server.asked] == [
        *((0, "GET / HT"), (0, "GET /two"), (1, "GET /two"))
    ]


def test_every_kept_connection_may_be_stale(client: Callable[..., Client]) -> None:
    asking = client(whole)
    opened = [asking.open() for _ in range(5)]
    for answer in opened:
        answer.read(1 << 20)
        answer.close()
    asking.server.answerer = lambda peer: False if peer.asked.connection < 5 else peer.answer(b"new")
    assert asking.get() == b"new"
    assert asking.server.connections == 6


def test_a_new_connection_that_ends_is_not_asked_again(client: Callable[..., Client]) -> None:
    asking = client(sending())
    with pytest.raises(SourceUnavailable):
        asking.get()
    assert len(asking.server.asked) == 1


def test_a_kept_connection_that_stalls_is_not_taken_for_stale(client: Callable[..., Client]) -> None:
    def answer(peer: Peer) -> None:
        if "/two" in peer.asked.head:
            peer.wait_for_end()
        else:
            peer.answer(BODY)

    asking = client(answer)
    asking.get()
    with pytest.raises(SourceUnavailable, match="timeout"):
        asking.get("/two")
    assert len(asking.server.asked) == 2


def test_a_server_that_says_close_is_not_asked_again_there(client: Callable[..., Client]) -> None:
    asking = client(lambda peer: peer.answer(BODY, headers="Connection: close\r\n"))
    assert [asking.get(), asking.get()] == [BODY, BODY]
    assert asking.server.connections == 2


def test_idle_connections_are_closed_with_everything(client: Callable[..., Client]) -> None:
    asking = client(whole)
    asking.get()
    asking.connections.close()
    until(lambda: asking.server.ended == {0})


def test_a_tls_connection_that_was_kept_and_dropped_is_replaced_without_a_word(
    client: Callable[..., Client], certificates: Certificates
) -> None:
    """A server that goes away ends TCP and says nothing in TLS."""

    def answer(peer: Peer) -> bool | None:
        peer.answer(BODY)
        if peer.asked.connection:
            return None
        assert isinstance(peer.socket, ssl.SSLSocket)
        socket.socket.shutdown(peer.socket, socket.SHUT_RDWR)
        return False

    trusting = tls_context(certificates.ca_file)
    asking = client(answer, server_tls=certificates.server, tls=trusting)
    assert asking.get() == BODY
    until(lambda: asking.server.ended)
    assert asking.get() == BODY
    assert asking.server.connections == 2


# Time.


def test_a_body_that_stops_coming_is_stalled(client: Callable[..., Client]) -> None:
    def answer(peer: Peer) -> None:
        peer.send(f"{HEAD}Content-Length: 5\r\n\r\nab".encode())
        peer.wait_for_end()

    asking = client(answer)
    view = memoryview(bytearray(5))
    with asking.open() as opened:
        assert opened.readinto(view) == 2
        with pytest.raises(Stalled, match="timeout"):
            opened.readinto(view)


def test_an_answer_that_does_not_come_is_unavailable(client: Callable[..., Client]) -> None:
    asking = client(lambda peer: peer.wait_for_end())
    with pytest.raises(SourceUnavailable, match="timeout"):
        asking.get()


def test_a_connection_that_is_not_accepted_in_time_is_unavailable() -> None:
    with full_listener() as port, pytest.raises(SourceUnavailable, match="timeout"):
        ask_port(port, Line(), connect_timeout=0.2)


def test_a_handshake_that_is_not_answered_in_time_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SourceUnavailable, match="timeout"):
        ask_port(silent.getsockname()[1], Line(), connect_timeout=0.2, scheme="https")


# TLS.


def test_an_authority_of_the_operators_own_is_trusted(
    client: Callable[..., Client], certificates: Certificates
) -> None:
    asking = client(whole, server_tls=certificates.server, tls=tls_context(certificates.ca_file))
    assert [asking.get(), asking.get()] == [BODY, BODY]
    assert asking.server.connections == 1


def test_another_authority_is_not_trusted_and_the_error_says_so(
    client: Callable[..., Client], certificates: Certificates
) -> None:
    asking = client(whole, server_tls=certificates.server)
    with pytest.raises(SourceUnavailable, match="its certificate is not trusted"):
        asking.get()
    assert asking.server.asked == []


def test_a_certificate_for_another_name_is_not_trusted(certificates: Certificates) -> None:
    with RawServer(whole, host="127.0.0.2", tls=certificates.server) as server:
        asking = Client(server, tls=tls_context(certificates.ca_file))
        with pytest.raises(SourceUnavailable, match="its certificate is not trusted"):
            asking.get()


def test_plain_http_where_tls_is_expected_is_a_clear_error() -> None:
    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as opened:
            opened.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            opened.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with pytest.raises(SourceUnavailable, match="TLS fails"):
            ask_port(listener.getsockname()[1], Line(), scheme="https")
        thread.join()


# Cutting the line.


def cut_while(work: Callable[[Line], object], ready: Callable[[], object]) -> None:
    """Cut the line of blocked work once `ready`; it has to end within moments, as if nobody had asked."""
    line, ends = Line(), []

    def run() -> None:
        try:
            work(line)
        except Exception as exc:  # noqa: BLE001 -- looked at below
            ends.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    until(ready)
    time.sleep(0.1)  # so that it is blocked
    line.cut()
    thread.join(1)
    assert not thread.is_alive()
    assert [type(end) for end in ends] == [Cut]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("where", ["before the answer", "in the head", "in the body"])
def test_a_cut_ends_a_blocked_read_at_once(
    client: Callable[..., Client], certificates: Certificates, secure: bool, where: str
) -> None:
    said = {
        "before the answer": "",
        "in the head": "HTTP/1.1 200",
        "in the body": f"{HEAD}Content-Length: 9\r\n\r\nab",
    }
    waits = threading.Event()

    def answer(peer: Peer) -> None:
        peer.send(said[where].encode())
        waits.set()
        peer.wait_for_end()

    tls = certificates.server if secure else None
    asking = client(answer, server_tls=tls, tls=tls_context(certificates.ca_file), stall_timeout=30.0)

    def work(line: Line) -> None:
        asking.line = line
        asking.get()

    cut_while(work, waits.is_set)
    until(lambda: asking.server.ended == {0})


def test_a_cut_ends_a_blocked_connect_at_once() -> None:
    with full_listener() as port:
        cut_while(lambda line: ask_port(port, line, connect_timeout=30), lambda: True)


def test_a_cut_ends_a_blocked_handshake_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        cut_while(lambda line: ask_port(port, line, connect_timeout=30, scheme="https"), lambda: True)


def test_a_cut_line_asks_nobody(client: Callable[..., Client]) -> None:
    asking = client(whole)
    asking.line.cut()
    with pytest.raises(Cut):
        asking.get()
    assert asking.server.connections == 0


def test_a_connection_of_a_cut_line_is_not_kept(client: Callable[..., Client]) -> None:
    asking = client(whole)
    answer = asking.open()
    answer.read(1 << 20)
    asking.line.cut()
    answer.close()
    until(lambda: asking.server.ended == {0})


def test_a_cut_does_no_harm_to_a_connection_that_somebody_else_has_now(client: Callable[..., Client]) -> None:
    asking = client(whole)
    first = asking.line
    asking.get()
    asking.line = Line()
    with asking.open() as answer:
        first.cut()
        assert answer.read(1 << 20) == BODY
    assert asking.server.connections == 1


# What the tests share.


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def ask_port(port: int, line: Line, *, connect_timeout: float = 2.0, scheme: str = "http") -> None:
    connections = Connections(
        Reach("hub", "127.0.0.1"), tls_context(), connect_timeout=connect_timeout, stall_timeout=30.0
    )
    connections.get(Address.of(f"{scheme}://127.0.0.1:{port}/"), {}, line).close()


class full_listener:  # noqa: N801 -- used as a function
    """A port whose queue of connections is full, so that the next one waits."""

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._waiting = []
        port: int = self._listener.getsockname()[1]
        for _ in range(3):
            waiting = socket.socket()
            waiting.settimeout(0)
            waiting.connect_ex(("127.0.0.1", port))
            self._waiting.append(waiting)
        time.sleep(0.05)
        return port

    def __exit__(self, *_: object) -> None:
        for waiting in self._waiting:
            waiting.close()
        self._listener.close()
