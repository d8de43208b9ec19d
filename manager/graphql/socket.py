"""GET /graphql as a WebSocket: the protocol graphql-transport-ws, for subscriptions above all.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md names the messages and the codes of a close.
"""

import asyncio
from contextlib import aclosing
from typing import Any, cast
from uuid import uuid4

import orjson
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from strawberry.http import process_result
from strawberry.types.execution import ExecutionResult, PreExecutionError

from manager.auth import authenticate
from manager.graphql.context import Context, Services
from manager.graphql.endpoint import parse_operation
from manager.graphql.errors import error_body, internal_message
from manager.graphql.schema import schema
from manager.session import authorization_of
from proxy_client.errors import BadRequest, Forbidden, Internal, StowageError, Unauthenticated, Unavailable

PROTOCOL = "graphql-transport-ws"
# Bounds what one connection costs; a page that shows a hundred tasks opens several.
MAX_OPERATIONS = 32
MAX_ID_LENGTH = 128
INIT_SECONDS = 10.0

log = structlog.get_logger()


async def graphql_socket(websocket: WebSocket) -> None:
    """Serve one connection: a token, then operations, until either side closes.

    The token comes as `{"Authorization": "Bearer …"}` or `{"token": "…"}` in the payload of connection_init, in the
    header Authorization, or, from a page of this origin, in the session's cookie. It is looked at again for each operation. Closed with 4403 for a token that is refused,
    4401 for an operation before one, 4406 for another protocol, 4408 for silence at the beginning, 4409 for an id in
    use, 4429 for a second connection_init, 4400 for what is no message, and 1013 while the database is away.
    """
    if PROTOCOL not in websocket.scope["subprotocols"]:
        await websocket.accept()
        await websocket.close(4406, "Subprotocol not acceptable")
        return
    await websocket.accept(PROTOCOL)
    connection = _Connection(websocket)
    try:
        await connection.serve()
    except WebSocketDisconnect:
        pass
    except _Refused as refused:
        await connection.end()
        await _close(websocket, refused.code, refused.reason)
    except Exception:  # a connection ends here: its client learns nothing of the inside
        log.exception("connection failed")
        await connection.end()
        await _close(websocket, 1011, "Internal error")
    finally:
        await connection.end()


class _Refused(Exception):
    """The connection is to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Connection:
    """One client: its token and the operations that run."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._services: Services = websocket.app.state.services
        self._authorization: str | None = None
        self._accepted = False
        self._operations: dict[str, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Answer messages. Raises `_Refused`, or `WebSocketDisconnect` when the client has gone."""
        try:
            async with asyncio.timeout(INIT_SECONDS):
                while not self._accepted:
                    await self._answer(await self._message())
        except TimeoutError as exc:
            raise _Refused(4408, "Connection initialisation timeout") from exc
        while True:
            await self._answer(await self._message())

    async def end(self) -> None:
        """Cancel what runs."""
        running = list(self._operations.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _message(self) -> dict[str, Any]:
        text = (await self._receive()).get("text")
        try:
            message = orjson.loads(text or b"")
        except orjson.JSONDecodeError as exc:
            raise _Refused(4400, "A message is JSON in a text frame") from exc
        if not isinstance(message, dict):
            raise _Refused(4400, "A message is a JSON object")
        return message

    async def _receive(self) -> Any:
        received = await self._websocket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code") or 1005)
        return received

    async def _answer(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "connection_init":
                await self._init(message.get("payload"))
            case "ping":
                await self._send({"type": "pong"})
            case "pong":
                pass
            case "subscribe":
                await self._subscribe(message.get("id"), message.get("payload"))
            case "complete":
                if isinstance(key := message.get("id"), str) and (task := self._operations.pop(key, None)):
                    task.cancel()
            case _:
                raise _Refused(4400, "A message has one of the types of graphql-transport-ws")

    async def _init(self, payload: Any) -> None:
        if self._accepted:
            raise _Refused(4429, "Too many initialisation requests")
        if not isinstance(payload, dict | None):
            raise _Refused(4400, "The payload of connection_init is a JSON object")
        try:
            self._authorization = _authorization(payload or {}) or authorization_of(self._websocket)
            await authenticate(self._services.database, self._authorization, uuid4().hex)
        except (Unauthenticated, Forbidden) as exc:
            raise _Refused(4403, "Forbidden") from exc
        except Unavailable as exc:
            raise _Refused(1013, "Try again later") from exc
        self._accepted = True
        await self._send({"type": "connection_ack"})

    async def _subscribe(self, key: Any, payload: Any) -> None:
        if not self._accepted:
            raise _Refused(4401, "Unauthorized")
        if not isinstance(key, str) or not 0 < len(key) <= MAX_ID_LENGTH:
            raise _Refused(4400, "The id of an operation is a short string")
        if key in self._operations:
            raise _Refused(4409, f"Subscriber for {key[:64]} already exists")
        if len(self._operations) >= MAX_OPERATIONS:
            many = BadRequest(
                f"{MAX_OPERATIONS} operations run on this connection; end one or open another connection"
            )
            await self._send({"id": key, "type": "error", "payload": error_body(many)["errors"]})
            return
        task = asyncio.create_task(self._run(key, payload))
        self._operations[key] = task

    async def _run(self, key: str, payload: Any) -> None:
        request_id = uuid4().hex
        last: dict[str, Any] = {"id": key, "type": "complete"}
        try:
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                if errors := await self._stream(key, payload, request_id):
                    last = {"id": key, "type": "error", "payload": errors}
            # An id is free again before its last message is on the way.
            self._forget(key)
            await self._send(last)
        except WebSocketDisconnect:
            pass
        finally:
            self._forget(key)

    async def _stream(self, key: str, payload: Any, request_id: str) -> list[Any]:
        """Send the results; returns the errors of an operation that did not begin."""
        try:
            query, variables, operation_name = parse_operation(payload)
            caller = await authenticate(self._services.database, self._authorization, request_id)
            stream = await schema.stream(
                query,
                variable_values=variables,
                context_value=Context.of(caller, self._services, self._authorization),
                operation_name=operation_name,
            )
            async with aclosing(stream) as results:
                async for result in results:
                    # The schema knows no @defer: every result is a whole one.
                    body: Any = process_result(cast("ExecutionResult", result))
                    if isinstance(result, PreExecutionError):
                        return list(body["errors"])
                    await self._send({"id": key, "type": "next", "payload": body})
        except StowageError as error:
            return list(error_body(error)["errors"])
        except WebSocketDisconnect:
            raise
        except Exception:  # an operation ends here: its client learns the request id and nothing else
            log.exception("operation failed")
            return list(error_body(Internal(internal_message(request_id)))["errors"])
        return []

    def _forget(self, key: str) -> None:
        # A client may use an id again as soon as it has sent its complete: the task there may be another one.
        if self._operations.get(key) is asyncio.current_task():
            del self._operations[key]

    async def _send(self, message: dict[str, Any]) -> None:
        if self._websocket.client_state is WebSocketState.DISCONNECTED:
            raise WebSocketDisconnect(1006)
        await self._websocket.send_text(orjson.dumps(message).decode())


def _authorization(payload: dict[str, Any]) -> str | None:
    for name, value in payload.items():
        if name.lower() == "authorization" and isinstance(value, str):
            return value
    token = payload.get("token")
    return f"Bearer {token}" if isinstance(token, str) else None


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    if websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(code, reason)
