"""Results of one operation as a stream, for clients without WebSockets.

`text/event-stream`: https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md, distinct connections mode.
`multipart/mixed`: https://www.apollographql.com/docs/graphos/routing/operations/subscriptions/multipart-protocol
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, cast

import orjson
import structlog
from starlette.responses import Response, StreamingResponse
from strawberry.http import process_result
from strawberry.types.execution import ExecutionResult

from manager.graphql.context import Context
from manager.graphql.errors import error_body, internal_message
from manager.graphql.schema import schema
from proxy_client.errors import Internal, StowageError

EVENTS = "text/event-stream"
MULTIPART = "multipart/mixed"
# Proxies between a client and here close what is silent for half a minute or so.
KEEPALIVE_SECONDS = 10.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Operation:
    """What a request asks for, and on whose behalf."""

    query: str
    variables: dict[str, Any] | None
    name: str | None
    context: Context


def streamed_type(accept: str) -> str | None:
    """Return which kind of stream a client accepts, the first of those that it names; None for plain JSON."""
    for kind in accept.split(","):
        media_type = kind.partition(";")[0].strip().lower()
        if media_type in {EVENTS, MULTIPART}:
            return media_type
        if media_type in {"application/json", "application/graphql-response+json"}:
            return None
    return None


def stream_results(operation: Operation, media_type: str) -> Response:
    """Answer with every result of the operation as it comes, and the end after the last."""
    if media_type == EVENTS:
        return StreamingResponse(
            _as_events(operation), media_type=EVENTS, headers={"Cache-Control": "no-cache"}
        )
    return StreamingResponse(
        _as_parts(operation), media_type=f'{MULTIPART};boundary="graphql";subscriptionSpec="1.0"'
    )


async def _as_events(operation: Operation) -> AsyncIterator[bytes]:
    yield b":\n\n"
    async with aclosing(_results(operation)) as results:
        async for result in results:
            yield b":\n\n" if result is None else b"event: next\ndata: " + orjson.dumps(result) + b"\n\n"
    yield b"event: complete\ndata:\n\n"


async def _as_parts(operation: Operation) -> AsyncIterator[bytes]:
    async with aclosing(_results(operation)) as results:
        async for result in results:
            body = {} if result is None else {"payload": result}
            yield (
                b"\r\n--graphql\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"
                + orjson.dumps(body)
                + b"\r\n"
            )
    yield b"--graphql--\r\n"


async def _results(operation: Operation) -> AsyncGenerator[dict[str, Any] | None, None]:
    """Yield each result, and None where there was none for a while."""
    request_id = operation.context.caller.request_id
    try:
        stream = await schema.stream(
            operation.query,
            variable_values=operation.variables,
            context_value=operation.context,
            operation_name=operation.name,
        )
        async with aclosing(stream) as results:
            following = asyncio.ensure_future(anext(results, None))
            try:
                while True:
                    done, _ = await asyncio.wait({following}, timeout=KEEPALIVE_SECONDS)
                    if not done:
                        yield None
                        continue
                    if (result := following.result()) is None:
                        return
                    # The schema knows no @defer: every result is a whole one.
                    yield cast("dict[str, Any]", process_result(cast("ExecutionResult", result)))
                    following = asyncio.ensure_future(anext(results, None))
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await following
    except StowageError as error:
        yield error_body(error)
    except Exception:  # an operation ends here: its client learns the request id and nothing else
        log.exception("operation failed")
        yield error_body(Internal(internal_message(request_id)))
