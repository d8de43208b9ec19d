"""A client of graphql-transport-ws over real sockets, and a real server for the application."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from manager.app import MAX_MESSAGE_BYTES
from tests.graphql.served import Json, Manager, Person

PROTOCOL = "graphql-transport-ws"
WATCH = "subscription($task: ID!) { importTaskUpdated(taskId: $task) { status filesDone } }"
PATIENCE = 20


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


class SocketClient:
    """One connection; `next` and `until_end` speak of one operation of it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._kept: list[Json] = []

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def receive(self) -> Json:
        async with asyncio.timeout(PATIENCE):
            message = json.loads(await self.connection.recv())
        assert isinstance(message, dict)
        return message

    async def init(self, payload: Json | None) -> None:
        await self.send(type="connection_init", **({} if payload is None else {"payload": payload}))
        assert await self.receive() == {"type": "connection_ack"}

    async def subscribe(self, key: str, query: str, **variables: Any) -> None:
        await self.send(type="subscribe", id=key, payload={"query": query, "variables": variables})

    async def message(self, key: str) -> Json:
        """The next message of one operation; those of others are kept for them."""
        for number, kept in enumerate(self._kept):
            if kept["id"] == key:
                return self._kept.pop(number)
        while (message := await self.receive())["id"] != key:
            self._kept.append(message)
        return message

    async def next(self, key: str) -> Json:
        """The data of the next result of one operation."""
        message = await self.message(key)
        assert message["type"] == "next", message
        assert "errors" not in message["payload"], message
        data: Json = message["payload"]["data"]
        return data

    async def error(self, key: str) -> Json:
        """The one error that ends an operation before it began."""
        message = await self.message(key)
        assert message["type"] == "error", message
        (error,) = message["payload"]
        assert isinstance(error, dict)
        return error

    async def closed(self) -> int:
        """Wait for the other side's close; return its code."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed:
                return self.connection.close_code or 0


class Served:
    """A manager's application behind a real server."""

    def __init__(self, manager: Manager, port: int) -> None:
        self.manager = manager
        self.address = f"ws://127.0.0.1:{port}/graphql"

    @asynccontextmanager
    async def opened(
        self, protocol: str | None = PROTOCOL, headers: dict[str, str] | None = None, max_queue: int = 16
    ) -> AsyncIterator[SocketClient]:
        """Open a connection and say nothing; it reads `max_queue` messages that nobody asks for, then waits."""
        protocols = [Subprotocol(protocol)] if protocol else None
        async with connect(
            self.address,
            subprotocols=protocols,
            additional_headers=headers,
            proxy=None,
            max_queue=max_queue,
            max_size=None,
        ) as connection:
            yield SocketClient(connection)

    @asynccontextmanager
    async def signed_in(self, by: Person | None = None) -> AsyncIterator[SocketClient]:
        """Open a connection with a token, the administrator's unless told otherwise."""
        async with self.opened() as client:
            await client.init({"Authorization": f"Bearer {(by or self.manager.admin).token}"})
            yield client


@asynccontextmanager
async def serve(manager: Manager) -> AsyncIterator[Served]:
    """Serve a manager that has started on an ephemeral port."""
    transport = manager.http._transport
    assert isinstance(transport, httpx.ASGITransport)
    config = uvicorn.Config(
        transport.app, lifespan="off", log_config=None, access_log=False, ws_max_size=MAX_MESSAGE_BYTES
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        try:
            yield Served(manager, listening.getsockname()[1])
        finally:
            server.should_exit = True
            await serving
