from collections.abc import Callable
from typing import Any, TypeVar, cast

import strawberry

from manager.graphql.context import FreshLoaders
from manager.graphql.ids import global_id

R = TypeVar("R", bound=Callable[..., Any])
T = TypeVar("T")

# What stands for a secret, which nobody can read again.
MASK = "********"


def field(description: str) -> Callable[[R], R]:
    """Make a resolver a field of its type."""
    return cast("Callable[[R], R]", strawberry.field(description=description))


def mutation(description: str, *, name: str | None = None) -> Callable[[R], R]:
    """Make a resolver a mutation; what is asked of its payload is read after it."""
    made = strawberry.mutation(name=name, description=description, extensions=[FreshLoaders()])
    return cast("Callable[[R], R]", made)


def given(value: T | None) -> T | None:
    """Return an input that may be left out; null and nothing are the same."""
    return None if value is strawberry.UNSET else value


def subscription(description: str) -> Callable[[R], R]:
    """Make a resolver that returns an asynchronous generator a subscription; what it raises ends it."""
    return cast("Callable[[R], R]", strawberry.subscription(description=description))


def column(name: str, description: str) -> Any:
    """Make a field that answers an attribute of the row that its type holds."""

    def read(self: Any) -> Any:
        return getattr(self.row, name)

    return strawberry.field(resolver=read, description=description)


@strawberry.interface(description="An object that can be named among all objects.")
class Node:
    """An object that can be named among all objects; it holds its row."""

    row: strawberry.Private[Any]

    @field("The global id. Wherever an id is asked for, it and its plain UUID are accepted.")
    def id(self) -> strawberry.ID:
        """Name the object."""
        return global_id(type(self).__name__, self.row.id)
