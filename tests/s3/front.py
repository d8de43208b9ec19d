"""A TCP front before a server: slow, or standing still, on demand."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 64 << 10


class Front:
    """Passes connections on to http://HOST:PORT. `sent` counts bytes towards the server.

    rate: bytes a second towards the server, for each connection; None is as fast as it goes. held: nothing passes
    towards the server.
    """

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("http://").rpartition(":")
        self._server = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Small, so that what was sent has nearly arrived.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.rate: int | None = None
        self.held = False
        self.sent = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.over = asyncio.Event()

    async def run(self) -> None:
        server = await asyncio.start_server(self._serve, sock=self._listener, limit=_CHUNK)
        await self.over.wait()
        server.close()
        for writer in self.open:
            writer.transport.abort()
        while self.open:
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        inner, outer = await asyncio.open_connection(*self._server)
        ways = [
            asyncio.create_task(self._pass(reader, outer, upwards=True)),
            asyncio.create_task(self._pass(inner, writer, upwards=False)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (outer, writer):
            end.close()
            with suppress(OSError):
                await end.wait_closed()
        self.open.discard(writer)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool
    ) -> None:
        while data := await reader.read(_CHUNK):
            while upwards and self.held:
                await asyncio.sleep(0.01)
            writer.write(data)
            await writer.drain()
            if upwards:
                self.sent += len(data)
                if self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)


@contextmanager
def front_of(endpoint: str) -> Iterator[Front]:
    """Run a front on a port of its own, in a thread."""
    front = Front(endpoint)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=[front.run()], daemon=True)
    thread.start()
    try:
        yield front
    finally:
        front.held = False
        loop.call_soon_threadsafe(front.over.set)
        thread.join(20)
        loop.close()
