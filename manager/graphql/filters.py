"""Filters that several lists share, and how they become conditions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Protocol
from uuid import UUID

import strawberry
from sqlalchemy import ColumnElement, and_, func, or_, true

from proxy_client.errors import BadRequest

# PostgreSQL's driver takes 32,767 parameters; a person needs far fewer.
MAX_FILTER_VALUES = 1000
MAX_FILTER_DEPTH = 8


def _option(description: str) -> Any:
    return strawberry.field(default=None, description=description)


@strawberry.input(
    description="Conditions on a text; all that are given must hold. Those with `i` ignore case."
)
class StringFilter:
    """Conditions on a text; all that are given must hold."""

    contains: str | None = _option("Holds this text.")
    starts_with: str | None = _option("Begins with this text.")
    ends_with: str | None = _option("Ends with this text.")
    equals: str | None = _option("Is this text.")
    not_contains: str | None = _option("Does not hold this text.")
    not_starts_with: str | None = _option("Does not begin with this text.")
    not_ends_with: str | None = _option("Does not end with this text.")
    not_equals: str | None = _option("Is not this text.")
    i_contains: str | None = _option("Holds this text in any case.")
    i_starts_with: str | None = _option("Begins with this text in any case.")
    i_ends_with: str | None = _option("Ends with this text in any case.")
    i_equals: str | None = _option("Is this text in any case.")
    i_not_contains: str | None = _option("Does not hold this text in any case.")
    i_not_starts_with: str | None = _option("Does not begin with this text in any case.")
    i_not_ends_with: str | None = _option("Does not end with this text in any case.")
    i_not_equals: str | None = _option("Is not this text in any case.")
    in_: list[str] | None = strawberry.field(name="in", default=None, description="Is one of these texts.")
    not_in: list[str] | None = _option("Is none of these texts.")
    i_in: list[str] | None = _option("Is one of these texts in any case.")
    i_not_in: list[str] | None = _option("Is none of these texts in any case.")


@strawberry.input(description="Conditions on a number; all that are given must hold.")
class IntFilter:
    """Conditions on a number; all that are given must hold."""

    equals: int | None = _option("Is this number.")
    not_equals: int | None = _option("Is not this number.")
    greater_than: int | None = _option("Is greater.")
    greater_than_or_equal: int | None = _option("Is this number or greater.")
    less_than: int | None = _option("Is less.")
    less_than_or_equal: int | None = _option("Is this number or less.")


@strawberry.input(description="Conditions on an id; all that are given must hold.")
class UUIDFilter:
    """Conditions on an id; all that are given must hold."""

    equals: UUID | None = _option("Is this id.")
    in_: list[UUID] | None = strawberry.field(name="in", default=None, description="Is one of these ids.")
    not_equals: UUID | None = _option("Is not this id.")
    not_in: list[UUID] | None = _option("Is none of these ids.")


Column = ColumnElement[Any] | Any

_STRING_CONDITIONS: dict[str, Callable[[Column, str], ColumnElement[bool]]] = {
    "contains": lambda column, text: column.contains(text, autoescape=True),
    "starts_with": lambda column, text: column.startswith(text, autoescape=True),
    "ends_with": lambda column, text: column.endswith(text, autoescape=True),
    "equals": lambda column, text: column == text,
    "i_contains": lambda column, text: column.icontains(text, autoescape=True),
    "i_starts_with": lambda column, text: column.istartswith(text, autoescape=True),
    "i_ends_with": lambda column, text: column.iendswith(text, autoescape=True),
    "i_equals": lambda column, text: func.lower(column) == func.lower(text),
}

_NUMBER_CONDITIONS: dict[str, Callable[[Column, int], ColumnElement[bool]]] = {
    "equals": lambda column, number: column == number,
    "not_equals": lambda column, number: column.is_distinct_from(number),
    "greater_than": lambda column, number: column > number,
    "greater_than_or_equal": lambda column, number: column >= number,
    "less_than": lambda column, number: column < number,
    "less_than_or_equal": lambda column, number: column <= number,
}


def string_conditions(column: Column, wanted: StringFilter | None) -> Iterator[ColumnElement[bool]]:
    """Express the filter. Characters that LIKE knows as wildcards stand for themselves."""
    if wanted is None:
        return
    for name, condition in _STRING_CONDITIONS.items():
        if (text := getattr(wanted, name)) is not None:
            yield condition(column, text)
        negative = f"i_not_{name[2:]}" if name.startswith("i_") else f"not_{name}"
        if (text := getattr(wanted, negative)) is not None:
            yield ~condition(column, text)
    lowered = func.lower(column)
    if wanted.in_ is not None:
        yield column.in_(wanted.in_)
    if wanted.not_in is not None:
        yield column.not_in(wanted.not_in)
    if wanted.i_in is not None:
        yield lowered.in_([func.lower(text) for text in wanted.i_in])
    if wanted.i_not_in is not None:
        yield lowered.not_in([func.lower(text) for text in wanted.i_not_in])


def number_conditions(column: Column, wanted: IntFilter | None) -> Iterator[ColumnElement[bool]]:
    """Express the filter."""
    for name, condition in _NUMBER_CONDITIONS.items():
        if wanted is not None and (number := getattr(wanted, name)) is not None:
            yield condition(column, number)


def uuid_conditions(column: Column, wanted: UUIDFilter | None) -> Iterator[ColumnElement[bool]]:
    """Express the filter."""
    if wanted is None:
        return
    if wanted.equals is not None:
        yield column == wanted.equals
    if wanted.in_ is not None:
        yield column.in_(wanted.in_)
    if wanted.not_equals is not None:
        yield column != wanted.not_equals
    if wanted.not_in is not None:
        yield column.not_in(wanted.not_in)


def choice_conditions(column: Column, wanted: Sequence[Any] | None) -> Iterator[ColumnElement[bool]]:
    """Express that the column is one of the values; without a list anything is."""
    if wanted is not None:
        yield column.in_(wanted)


class Nested(Protocol):
    """A filter that holds others of its kind. Its own conditions, all of AND, one of OR and none of NOT hold."""

    AND: Any
    OR: Any
    NOT: Any

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        """Express this filter's own conditions."""


def conditions_of(wanted: Nested | None) -> list[ColumnElement[bool]]:
    """Express a filter with everything in it. Raises `BadRequest` for one too deep or with too many values."""
    if wanted is None:
        return []
    if _count_values(wanted, MAX_FILTER_DEPTH) > MAX_FILTER_VALUES:
        raise BadRequest(
            f"the filter holds more than {MAX_FILTER_VALUES} conditions and values; ask for less",
            field="filter",
        )
    return _conditions(wanted)


def _count_values(value: Any, depth: int) -> int:
    if isinstance(value, list):
        return sum(max(1, _count_values(one, depth)) for one in value)
    if not is_dataclass(value):
        return int(value is not None)
    if depth == 0:
        raise BadRequest(
            f"the filter is nested more than {MAX_FILTER_DEPTH} levels; ask for less", field="filter"
        )
    return sum(_count_values(getattr(value, one.name), depth - 1) for one in fields(value))


def _conditions(wanted: Nested) -> list[ColumnElement[bool]]:
    def each(filters: Sequence[Nested] | None) -> list[ColumnElement[bool]]:
        return [and_(true(), *_conditions(one)) for one in filters or ()]

    found = [*wanted.conditions(), *each(wanted.AND)]
    if alternatives := each(wanted.OR):
        found.append(or_(*alternatives))
    # A condition on a value that is not known holds neither as it is nor negated, hence IS NOT TRUE.
    found.extend(excluded.is_not(true()) for excluded in each(wanted.NOT))
    return found
