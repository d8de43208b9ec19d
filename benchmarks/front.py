"""A front before a hub that gives every connection a distance and a rate, as the hubs of the internet do.

The whole round trip is spent on the way to the hub (what the client sends arrives a round trip later, and the first
bytes of a connection another one later for its opening): a client cannot tell on which half of the way it waited.
What comes back passes through a pipe by splice(2), so that the front costs next to no processor time.
"""

import argparse
import asyncio
import fcntl
import os
import socket
from contextlib import closing, suppress

import uvloop

_TICK = 0.01  # seconds that a connection may run ahead of its rate
_PIPE = 1 << 20  # bytes
_QUANTUM = 1 << 18  # bytes


class Front:
    """Forwards what comes to its listener. latency: seconds of a round trip; rate: bytes per second of a connection."""

    def __init__(self, hub: tuple[str, int], latency: float, rate: int) -> None:
        self._hub = hub
        self._latency = latency
        self._rate = rate
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Forward connections until cancelled."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)  # noqa: FBT003 -- a socket's own way to say it
        while True:
            client, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(self._forward(client))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _forward(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        hub = socket.socket()
        with closing(client), closing(hub), suppress(OSError):
            for end in (client, hub):
                end.setblocking(False)  # noqa: FBT003 -- as above
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(hub, self._hub)
            there = asyncio.create_task(self._delayed(client, hub))
            try:
                await self._paced(hub, client)
            finally:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)

    async def _delayed(self, client: socket.socket, hub: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        opened = loop.time() + self._latency

        async def deliver() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    hub.shutdown(socket.SHUT_WR)
                    return
                await loop.sock_sendall(hub, data)

        delivery = asyncio.create_task(deliver())
        try:
            data = b"more"
            while data:
                data = await loop.sock_recv(client, 1 << 16)
                waiting.put_nowait((max(opened, loop.time()) + self._latency, data))
            await delivery
        finally:
            delivery.cancel()

    async def _paced(self, hub: socket.socket, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        out, into = os.pipe()
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        try:
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE)
            due = loop.time()
            while True:
                await _ready(hub.fileno(), to_write=False)
                try:
                    held = os.splice(hub.fileno(), into, _QUANTUM, flags=flags)
                except BlockingIOError:
                    continue
                if not held:
                    return
                due = max(due, loop.time() - _TICK) + held / self._rate
                while held:
                    try:
                        held -= os.splice(out, client.fileno(), held, flags=flags)
                    except BlockingIOError:
                        await _ready(client.fileno(), to_write=True)
                if (ahead := due - loop.time()) > 0:
                    await asyncio.sleep(ahead)
        finally:
            os.close(out)
            os.close(into)


async def _ready(descriptor: int, *, to_write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)

    def note() -> None:
        if not ready.done():
            ready.set_result(None)

    add(descriptor, note)
    try:
        await ready
    finally:
        remove(descriptor)


def main() -> None:
    """Forward until killed: `python -m benchmarks.front --listen 8001 --hub 8000`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.front", description=main.__doc__)
    parser.add_argument("--listen", type=int, required=True, help="port of 127.0.0.1")
    parser.add_argument("--hub", type=int, required=True, help="port of 127.0.0.1 to forward to")
    parser.add_argument("--latency", type=float, required=True, help="seconds of a round trip")
    parser.add_argument("--rate", type=int, required=True, help="bytes per second of a connection")
    asked = parser.parse_args()
    with socket.create_server(("127.0.0.1", asked.listen), backlog=512) as listener:
        uvloop.run(Front(("127.0.0.1", asked.hub), asked.latency, asked.rate).serve(listener))


if __name__ == "__main__":
    main()
