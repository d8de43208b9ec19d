import re
from datetime import UTC, datetime
from typing import Any, NewType
from uuid import UUID

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

ByteSize = NewType("ByteSize", int)


def _read_size(value: Any) -> ByteSize:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        return ByteSize(int(value))
    raise GraphQLError(f'a ByteSize is a decimal string of bytes, such as "1024", not {value!r:.80}')


def _read_uuid(value: Any) -> UUID:
    try:
        return UUID(value)
    except (AttributeError, TypeError, ValueError) as exc:
        raise GraphQLError(f"a UUID has 32 hex digits, unlike {value!r:.80}") from exc


def _read_time(value: Any) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        # PostgreSQL is told in UTC, where the last hours of the year 9999 may not exist.
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (OverflowError, TypeError, ValueError) as exc:
        raise GraphQLError(
            f'a DateTime is written as in "2026-01-31T12:00:00+00:00", not {value!r:.80}'
        ) from exc


SCALARS: dict[object, ScalarDefinition] = {
    ByteSize: strawberry.scalar(
        name="ByteSize",
        description="A number of bytes, as a decimal string: it may be greater than an Int can hold.",
        serialize=str,
        parse_value=_read_size,
    ),
    UUID: strawberry.scalar(
        name="UUID",
        description="A UUID, as 32 hex digits with or without hyphens.",
        serialize=str,
        parse_value=_read_uuid,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="A time as ISO 8601 writes it; one without an offset is taken for UTC.",
        serialize=datetime.isoformat,
        parse_value=_read_time,
    ),
}
