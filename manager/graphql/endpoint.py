"""POST /graphql: JSON in, and out JSON or a stream of results."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from strawberry.http import process_result
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from manager.auth import authenticate
from manager.graphql.context import Context, Services
from manager.graphql.errors import error_body, unknown_operation
from manager.graphql.limits import MAX_BODY_BYTES
from manager.graphql.schema import schema
from manager.graphql.streams import Operation, stream_results, streamed_type
from manager.session import authorization_of
from proxy_client.errors import BadRequest, StowageError, Unauthenticated

MAX_VARIABLE_DEPTH = 32
_OVER_HTTP = (OperationType.QUERY, OperationType.MUTATION)


async def graphql(request: Request) -> Response:
    """Answer an operation: 200 whenever it could be read, with `errors` where something went wrong.

    With `Accept: text/event-stream` or `multipart/mixed` the results come as a stream, subscriptions above all.
    401 without a valid token, 403 for a cookie that another page may have sent, 400 for a body that is no operation, 413 for one that is too long.
    """
    services: Services = request.app.state.services
    try:
        authorization = authorization_of(request)
        caller = await authenticate(services.database, authorization, request.state.request_id)
        body = await _body(request)
        query, variables, operation_name = parse_operation(_json_in(request, body))
    except _TooLong as error:
        return _json(error_body(error), 413)
    except Unauthenticated as error:
        return _json(error_body(error), error.status, {"WWW-Authenticate": "Bearer"})
    except StowageError as error:
        return _json(error_body(error), error.status)
    if (media_type := streamed_type(request.headers.get("Accept", ""))) is not None:
        context = Context.of(caller, services, authorization)
        return stream_results(Operation(query, variables, operation_name, context), media_type)
    try:
        result = await schema.execute(
            query,
            variable_values=variables,
            context_value=Context.of(caller, services),
            operation_name=operation_name,
            allowed_operation_types=_OVER_HTTP,
        )
    except InvalidOperationTypeError:
        wrong = BadRequest(
            "a subscription is sent over a WebSocket (graphql-transport-ws), or with Accept: text/event-stream",
            field="query",
        )
        return _json(error_body(wrong), 200)
    except CannotGetOperationTypeError:
        return _json(error_body(unknown_operation()), 200)
    return _json(process_result(result), 200)


class _TooLong(BadRequest):
    """The body is longer than any operation needs."""


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLong(f"the body is longer than {MAX_BODY_BYTES} bytes; ask for less at once")
    return bytes(body)


def _json_in(request: Request, body: bytes) -> Any:
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in {"application/json", "application/graphql-response+json"}:
        raise BadRequest("send the operation as JSON, with Content-Type: application/json")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"the body is not valid JSON: {exc}") from exc


def parse_operation(operation: Any) -> tuple[str, dict[str, Any] | None, str | None]:
    """Return the query, the variables and the name of the operation. Raises `BadRequest` that names the field."""
    if not isinstance(operation, dict):
        raise BadRequest("an operation is one JSON object with query, variables and operationName")
    query, variables = operation.get("query"), operation.get("variables")
    operation_name = operation.get("operationName")
    if not isinstance(query, str) or not query.strip():
        raise BadRequest("query is the text of the operation; add it", field="query")
    if not isinstance(variables, dict | None):
        raise BadRequest("variables is a JSON object, or left out", field="variables")
    if not isinstance(operation_name, str | None):
        raise BadRequest("operationName is a string, or left out", field="operationName")
    if _deeper_than(MAX_VARIABLE_DEPTH, variables):
        raise BadRequest(f"variables nest more than {MAX_VARIABLE_DEPTH} levels", field="variables")
    return query, variables, operation_name or None


def _deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(value, dict | list) for value in level)


def _json(content: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
