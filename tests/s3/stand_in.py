"""A server that answers what a test tells it to, for what a real one cannot be made to say."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from storage_proxy.settings import S3StorageSection
from storage_proxy.storages.s3 import S3Client
from storage_proxy.storages.s3_signing import Credentials

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class StandIn:
    """`replies` are given in their order, the last one for ever; `seen` are the requests."""

    client: S3Client
    replies: list[Reply | Callable[[BaseHTTPRequestHandler], None]]
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def stand_in(
    *replies: Reply | Callable[[BaseHTTPRequestHandler], None], **settings: object
) -> Iterator[StandIn]:
    class Asked(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            server.seen.append((self.command, self.path, dict(self.headers)))
            reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            if callable(reply):
                reply(self)
                return
            status, headers, body = reply
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 -- the base class asks for these names

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    http.daemon_threads = True
    section = S3StorageSection.model_validate(
        {"type": "s3", "endpoint": f"http://127.0.0.1:{http.server_port}", "bucket": "bucket", **settings}
    )
    client = S3Client(section, "artifact storage s", lambda: Credentials("the-key", "the-secret"))
    server = StandIn(client, list(replies))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        client.close()
        http.shutdown()
        http.server_close()
        thread.join()
