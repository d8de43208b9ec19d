"""How errors look in an answer: a code each, and nothing of the inside of Stowage."""

import enum
import re
from typing import Any

import strawberry
import structlog
from graphql import GraphQLError, GraphQLSyntaxError
from sqlalchemy.exc import DBAPIError
from strawberry.schema.exceptions import CannotGetOperationTypeError

from proxy_client.errors import CODES, BadRequest, Internal, StowageError, error_for

PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"

_MEANINGS = {code: str(type(error_for(code, "")).__doc__) for code in sorted(CODES)} | {
    PARSE_FAILED: "The query is not GraphQL.",
    VALIDATION_FAILED: "The query is GraphQL, and does not fit the schema.",
}
# As Any: mypy wants members that are written out.
_make_enum: Any = enum.Enum
_codes = _make_enum(
    "ErrorCode",
    {code: strawberry.enum_value(code, description=told) for code, told in _MEANINGS.items()},
    module=__name__,
)
ErrorCode = strawberry.enum(
    _codes,
    description="What `extensions.code` of an error says, and `ImportError.code`. `extensions.field` names the input that "
    "is wrong, where there is one.",
)

# PostgreSQL: character_not_in_repertoire. Its text holds every character but NUL.
_NUL_IN_TEXT = "22021"

# The beginning of graphql-core's message on a variable that cannot be coerced.
_INVALID_VARIABLE = re.compile(r"Variable '\$(?P<name>\w+)' has invalid value(?: at (?P<inside>[^:]+))?:")

log = structlog.get_logger()


def presented(error: GraphQLError, request_id: str) -> GraphQLError:
    """Give an error its code. What nobody foresaw is logged, and shows the request id alone."""
    fault = error.original_error
    if fault is None or isinstance(fault, GraphQLError):
        # It is graphql-core that speaks, about what the caller sent.
        code = PARSE_FAILED if isinstance(error, GraphQLSyntaxError) else BadRequest.code
        code = (error.extensions or {}).get("code", code)
        return _with(error, error.message, code, _variable_in(error.message))
    if isinstance(fault, CannotGetOperationTypeError):
        fault = unknown_operation()
    if isinstance(fault, DBAPIError) and getattr(fault.orig, "sqlstate", None) == _NUL_IN_TEXT:
        fault = BadRequest("a text holds the character NUL; leave it out")
    if isinstance(fault, StowageError) and not isinstance(fault, Internal):
        return _with(error, fault.message, fault.code, fault.field)
    log.error("resolver failed", path=error.path, exc_info=fault)
    return _with(error, internal_message(request_id), Internal.code)


def internal_message(request_id: str) -> str:
    """Say that something broke, and by what to find it in the log."""
    return f"internal error, request id {request_id}"


def unknown_operation() -> BadRequest:
    """Say that `operationName` is wrong."""
    return BadRequest(
        "operationName names no operation of the query; name one of its operations", field="operationName"
    )


def error_body(error: StowageError) -> dict[str, Any]:
    """Write an error for a request that never reached a resolver."""
    extensions = {"code": error.code} | ({"field": error.field} if error.field else {})
    return {"data": None, "errors": [{"message": error.message, "extensions": extensions}]}


def _variable_in(message: str) -> str | None:
    found = _INVALID_VARIABLE.match(message)
    return found["name"] + (found["inside"] or "") if found else None


def _with(error: GraphQLError, message: str, code: str, field: str | None = None) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions={"code": code} | ({"field": field} if field else {}),
    )
