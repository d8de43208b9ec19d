"""Pages of a list: by cursor (keyset, stable while rows come and go) or by limit and offset."""

import base64
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Row, Select, and_, false, func, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from proxy_client.errors import BadRequest

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
MAX_CURSOR_LENGTH = 4096
MAX_SORT_KEYS = 10

T = TypeVar("T")
Statement: TypeAlias = Select[*tuple[Any, ...]]
AnyRow: TypeAlias = Row[*tuple[Any, ...]]


@dataclass(frozen=True)
class PageRequest:
    """What a caller asked for, by cursor or by offset; never both. Raises `BadRequest` naming the argument."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None
    limit: int | None = None
    offset: int | None = None

    def __post_init__(self) -> None:
        for name in ("first", "last", "limit"):
            size = getattr(self, name)
            if size is not None and not 0 <= size <= MAX_PAGE_SIZE:
                raise BadRequest(f"{name} is between 0 and {MAX_PAGE_SIZE}, not {size}", field=name)
        if self.offset is not None and self.offset < 0:
            raise BadRequest(f"offset is 0 or more, not {self.offset}", field="offset")
        by_offset = [name for name in ("limit", "offset") if getattr(self, name) is not None]
        by_cursor = [name for name in ("first", "after", "last", "before") if getattr(self, name) is not None]
        if by_offset and by_cursor:
            raise BadRequest(
                f"{by_cursor[0]} pages by cursor and {by_offset[0]} by offset; leave one of them out",
                field=by_offset[0],
            )
        if self.first is not None and self.last is not None:
            raise BadRequest("first pages forward and last backward; leave one of them out", field="last")

    @property
    def backward(self) -> bool:
        """Whether the page is the end of the range rather than its beginning."""
        return self.last is not None or (self.before is not None and self.first is None)

    @property
    def size(self) -> int:
        """How many rows the page holds at most."""
        return next(
            (size for size in (self.first, self.last, self.limit) if size is not None), DEFAULT_PAGE_SIZE
        )


@dataclass(frozen=True)
class SortKey:
    """One column of an order. `name` stands in the cursor; nulls count as the greatest values."""

    name: str
    expression: ColumnElement[Any] | InstrumentedAttribute[Any]
    descending: bool = False
    nullable: bool = False


@dataclass(frozen=True)
class Order:
    """Columns to sort by; the last is the primary key, so that no two rows are equal."""

    keys: tuple[SortKey, ...]

    @classmethod
    def by(cls, keys: Iterable[SortKey], primary_key: InstrumentedAttribute[UUID]) -> "Order":
        """Complete `keys` with the primary key, in the last key's direction. Raises `BadRequest` for too many."""
        keys = tuple(keys)
        if len(keys) > MAX_SORT_KEYS:
            raise BadRequest(
                f"orderBy names {len(keys)} values; name {MAX_SORT_KEYS} at most", field="orderBy"
            )
        return cls((*keys, SortKey("id", primary_key, descending=bool(keys) and keys[-1].descending)))

    @property
    def signature(self) -> str:
        """Which order a cursor belongs to."""
        return ",".join(f"{'-' if key.descending else ''}{key.name}" for key in self.keys)

    def clauses(self, *, backward: bool = False) -> list[ColumnElement[Any]]:
        """The ORDER BY, in its own or in the opposite direction."""
        return [
            key.expression.desc() if key.descending != backward else key.expression.asc() for key in self.keys
        ]

    def cursor(self, values: Sequence[Any]) -> str:
        """Name a row by the values of its keys."""
        plain = [value.value if isinstance(value, enum.Enum) else value for value in values]
        packed = orjson.dumps([self.signature, *plain], default=str)  # asyncpg has a UUID of its own
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    def values(self, cursor: str, field: str) -> list[Any]:
        """Read a cursor. Raises `BadRequest` for one that this order did not make."""
        values = _unpack(cursor)
        if values is not None and values[0] == self.signature and len(values) == len(self.keys) + 1:
            try:
                return [_value_of(key, value) for key, value in zip(self.keys, values[1:], strict=True)]
            except (ValueError, OverflowError):
                pass
        raise BadRequest(
            f"{field} is not a cursor of this list and order; pass an edge's cursor or pageInfo's, unchanged",
            field=field,
        )

    def beyond(self, values: Sequence[Any], *, backward: bool = False) -> ColumnElement[bool]:
        """Match the rows after (`backward`: before) the one that has these values."""
        same_direction = len({key.descending for key in self.keys}) == 1
        if same_direction and not any(key.nullable for key in self.keys):
            # A row comparison can walk an index; the general form below cannot.
            mine = tuple_(*(key.expression for key in self.keys))
            theirs = tuple_(
                *(literal(value, key.expression.type) for key, value in zip(self.keys, values, strict=True))
            )
            return mine < theirs if self.keys[0].descending != backward else mine > theirs
        alternatives: list[ColumnElement[bool]] = []
        equal: list[ColumnElement[bool]] = []
        for key, value in zip(self.keys, values, strict=True):
            alternatives.append(and_(*equal, _past(key, value, descending=key.descending != backward)))
            equal.append(key.expression.is_(None) if value is None else key.expression == value)
        return or_(*alternatives)


def _past(key: SortKey, value: Any, *, descending: bool) -> ColumnElement[bool]:
    if descending:
        return key.expression.is_not(None) if value is None else key.expression < value
    if value is None:
        return false()
    greater = key.expression > value
    return or_(greater, key.expression.is_(None)) if key.nullable else greater


def _unpack(cursor: str) -> list[Any] | None:
    if len(cursor) > MAX_CURSOR_LENGTH:
        return None
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = orjson.loads(packed)
    except ValueError:
        return None
    return values if isinstance(values, list) and values else None


def _value_of(key: SortKey, value: Any) -> Any:
    if value is None and key.nullable:
        return None
    kind = key.expression.type.python_type
    if kind is int:
        if type(value) is int and abs(value) < 1 << 63:
            return value
    elif isinstance(value, str) and "\0" not in value:
        if kind is datetime:
            # A time without offset would be refused by the driver, not by us.
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return kind(value)
    raise ValueError(value)


@dataclass(frozen=True)
class Page(Generic[T]):
    """Rows in the list's order, each with its cursor, and whether the list goes on at either end."""

    rows: list[T]
    cursors: list[str]
    has_next: bool
    has_previous: bool


async def load_page(
    session: AsyncSession, statement: Statement, order: Order, request: PageRequest
) -> Page[AnyRow]:
    """Load one page in one statement; a row has `statement`'s columns and then the keys'."""
    keys = [key.expression.label(f"sort_key_{number}") for number, key in enumerate(order.keys)]
    bounded = _bounded(statement, order, request).add_columns(*keys)
    bounded = bounded.order_by(None).order_by(*order.clauses(backward=request.backward))
    rows = await session.execute(bounded.limit(request.size + 1).offset(request.offset))
    return _page(rows.all(), order, request)


async def load_pages(
    session: AsyncSession,
    statement: Statement,
    order: Order,
    request: PageRequest,
    *,
    parent: InstrumentedAttribute[UUID],
    parents: Sequence[UUID],
) -> dict[UUID, Page[AnyRow]]:
    """Load the same page of the list of each parent, all in one statement.

    `parent` is the column that names a row's parent.
    """
    keys = [key.expression.label(f"sort_key_{number}") for number, key in enumerate(order.keys)]
    rank = func.row_number().over(partition_by=parent, order_by=order.clauses(backward=request.backward))
    ranked = (
        _bounded(statement, order, request)
        .where(parent.in_(parents))
        .with_only_columns(*keys, parent.label("parent"), rank.label("rank"))
        .order_by(None)
        .subquery()
    )
    start = request.offset or 0
    key_columns = [ranked.c[key.name] for key in keys]
    chosen = (
        statement.join(ranked, ranked.c[keys[-1].name] == order.keys[-1].expression)
        .where(ranked.c.rank > start, ranked.c.rank <= start + request.size + 1)
        .add_columns(ranked.c.parent, *key_columns)
        .order_by(None)
        .order_by(ranked.c.parent, ranked.c.rank)
    )
    rows_of: dict[UUID, list[AnyRow]] = {each: [] for each in parents}
    for row in await session.execute(chosen):
        rows_of[row.parent].append(row)
    return {each: _page(rows, order, request) for each, rows in rows_of.items()}


_LISTED = Order((SortKey("key", literal("")),))


def page_of(rows: Sequence[T], key: Callable[[T], str], request: PageRequest) -> Page[T]:
    """Return one page of a list that is at hand, sorted by `key`, which no two rows share."""
    for cursor, field in ((request.after, "after"), (request.before, "before")):
        if cursor is not None:
            bound: str = _LISTED.values(cursor, field)[0]
            rows = [row for row in rows if (key(row) > bound if field == "after" else key(row) < bound)]
    start = request.offset or 0
    chosen = (rows[::-1] if request.backward else rows)[start:]
    shown = list(chosen[: request.size])
    more = len(chosen) > request.size
    if request.backward:
        shown.reverse()
    cursors = [_LISTED.cursor([key(row)]) for row in shown]
    if request.backward:
        return Page(shown, cursors, has_next=request.before is not None, has_previous=more)
    return Page(shown, cursors, has_next=more, has_previous=request.after is not None or bool(start))


async def count_rows(session: AsyncSession, statement: Statement) -> int:
    """Count all rows of a list, whatever the page."""
    counted = select(func.count()).select_from(statement.order_by(None).subquery())
    return (await session.execute(counted)).scalar_one()


async def count_rows_of(
    session: AsyncSession,
    statement: Statement,
    *,
    parent: InstrumentedAttribute[UUID],
    parents: Sequence[UUID],
) -> Mapping[UUID, int]:
    """Count all rows of each parent's list in one statement."""
    counted = (
        statement.where(parent.in_(parents))
        .with_only_columns(parent, func.count())
        .order_by(None)
        .group_by(parent)
    )
    found: dict[UUID, int] = {row[0]: row[1] for row in await session.execute(counted)}
    return {each: found.get(each, 0) for each in parents}


def _bounded(statement: Statement, order: Order, request: PageRequest) -> Statement:
    if request.after is not None:
        statement = statement.where(order.beyond(order.values(request.after, "after")))
    if request.before is not None:
        statement = statement.where(order.beyond(order.values(request.before, "before"), backward=True))
    return statement


def _page(rows: Sequence[AnyRow], order: Order, request: PageRequest) -> Page[AnyRow]:
    more = len(rows) > request.size
    shown = list(rows[: request.size])
    if request.backward:
        shown.reverse()
    cursors = [order.cursor(row[-len(order.keys) :]) for row in shown]
    # The far end is not looked at: a cursor that was handed out stands for a row on that side.
    if request.backward:
        return Page(shown, cursors, has_next=request.before is not None, has_previous=more)
    return Page(shown, cursors, has_next=more, has_previous=request.after is not None or bool(request.offset))
