"""Connections as Relay defines them (https://relay.dev/graphql/connections.htm), with a count."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar, cast

import strawberry

from manager.graphql.context import Info
from manager.graphql.fields import field
from manager.paging import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    AnyRow,
    Order,
    Page,
    PageRequest,
    Statement,
    count_rows,
    load_page,
)

T = TypeVar("T")
R = TypeVar("R")
Resolver = TypeVar("Resolver", bound=Callable[..., Any])

_SIZES = f"{DEFAULT_PAGE_SIZE} without it, {MAX_PAGE_SIZE} at most"

Before = Annotated[
    str | None,
    strawberry.argument(description="Only what stands before this cursor; pages backward, with `last`."),
]
After = Annotated[
    str | None,
    strawberry.argument(description="Only what stands after this cursor; pages forward, with `first`."),
]
First = Annotated[int | None, strawberry.argument(description=f"As many from the beginning; {_SIZES}.")]
Last = Annotated[int | None, strawberry.argument(description=f"As many from the end; {_SIZES}.")]
Limit = Annotated[
    int | None, strawberry.argument(description=f"As many after `offset`; {_SIZES}. Not with cursors.")
]
Offset = Annotated[int | None, strawberry.argument(description="As many are left out. Not with cursors.")]


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    """Where a page stands in its list."""

    has_next_page: bool = strawberry.field(description="Whether the list goes on after this page.")
    has_previous_page: bool = strawberry.field(description="Whether the list has rows before this page.")
    start_cursor: str | None = strawberry.field(description="The cursor of the first edge.")
    end_cursor: str | None = strawberry.field(description="The cursor of the last edge.")


@strawberry.type(description="An object's place in a list.")
class Edge(Generic[T]):
    """An object's place in a list."""

    cursor: str = strawberry.field(description="Names this place, for `after` and `before`; opaque.")
    node: T = strawberry.field(description="The object.")


@strawberry.type(description="One page of a list.")
class Connection(Generic[T]):
    """One page of a list."""

    page_info: PageInfo = strawberry.field(description="Where this page stands in the list.")
    edges: list[Edge[T]] = strawberry.field(description="The objects on this page, in the list's order.")
    counter: strawberry.Private[Callable[[], Awaitable[int]]]

    @field("The number of objects in the whole list, whatever the page.")
    async def count(self) -> int:
        """Count, which costs a statement of its own, only when asked for."""
        return await self.counter()


_PAGING = {
    "before": Before,
    "after": After,
    "first": First,
    "last": Last,
    "limit": Limit,
    "offset": Offset,
}


def listed(description: str, *, default: Any = strawberry.UNSET) -> Callable[[Resolver], Resolver]:
    """Make a resolver a list with its six arguments, which it is given as one `PageRequest` after `info`.

    default: of each of the six.
    """

    def make(resolver: Resolver) -> Resolver:
        @functools.wraps(resolver)
        async def answer(owner: Any, info: Info, **arguments: Any) -> Any:
            asked = {name: arguments.pop(name, default) for name in _PAGING}
            request = PageRequest(
                **{name: value for name, value in asked.items() if value is not strawberry.UNSET}
            )
            return await resolver(owner, info, request, **arguments)

        signature = inspect.signature(resolver)
        owner, info, _, *own = signature.parameters.values()
        paging = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, kind in _PAGING.items()
        ]
        answer.__signature__ = signature.replace(parameters=[owner, info, *own, *paging])  # type: ignore[attr-defined]
        return cast("Resolver", field(description)(answer))

    return make


async def connect(
    info: Info, statement: Statement, order: Order, request: PageRequest, node: Callable[[AnyRow], T]
) -> Connection[T]:
    """Load one page of `statement`; `node` makes the object of a row."""
    database = info.context.services.database

    async def count() -> int:
        async with database.read() as session:
            return await count_rows(session, statement)

    async with database.read() as session:
        page = await load_page(session, statement, order, request)
    return connection(page, node, count)


def connection(page: Page[R], node: Callable[[R], T], count: Callable[[], Awaitable[int]]) -> Connection[T]:
    """Present a page that is already loaded."""
    return Connection(
        page_info=PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=page.cursors[0] if page.cursors else None,
            end_cursor=page.cursors[-1] if page.cursors else None,
        ),
        edges=[
            Edge(cursor=cursor, node=node(row)) for cursor, row in zip(page.cursors, page.rows, strict=True)
        ],
        counter=count,
    )


def whole_list(nodes: Sequence[T], cursors: Sequence[str]) -> Connection[T]:
    """Present a list that has no further pages, such as a mutation's outcome."""

    async def count() -> int:
        return len(nodes)

    return Connection(
        page_info=PageInfo(
            has_next_page=False,
            has_previous_page=False,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        ),
        edges=[Edge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
        counter=count,
    )
