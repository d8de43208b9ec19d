"""The reference of the API, made from the schema's own descriptions.

`python -m manager.graphql.reference DOCS` (`make docs`) writes the parts of `DOCS/graphql.md` that stand between a line
`<!-- PART of the schema -->` and the next `<!-- end -->`.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLUnionType,
    Undefined,
    ast_from_value,
    print_ast,
)
from graphql.type import specified_scalar_types

from manager.graphql.errors import ErrorCode
from manager.graphql.schema import schema

PAGING = ("first", "after", "last", "before", "limit", "offset")

_SCHEMA = schema._schema  # noqa: SLF001 -- Strawberry's own door to it
_Kind = type[GraphQLNamedType]


def with_reference(text: str) -> str:
    """Return the text of `graphql.md` with its parts as the schema has them now."""
    for part, write in _PARTS.items():
        block = rf"(<!-- {part} of the schema -->\n).*?(<!-- end -->)"
        # As a function, since a backslash in a replacement text has a meaning.
        text = re.sub(block, partial(_between, "".join(write())), text, flags=re.DOTALL)
    return text


def _between(content: str, around: re.Match[str]) -> str:
    return f"{around[1]}\n{content}{around[2]}"


def _operations(name: str) -> Iterator[str]:
    kind = _SCHEMA.type_map[name]
    if isinstance(kind, GraphQLObjectType):
        for field_name, found in kind.fields.items():
            yield f"#### {field_name}\n\n`{_signature(field_name, found)}`\n\n{_text(found)}\n\n"
            # What a mutation takes is one input, whose fields have a table of their own.
            if (arguments := _own(found)) and set(arguments) != {"input"}:
                yield from _table("argument", arguments)


def _signature(name: str, found: GraphQLField) -> str:
    own = [f"{argument}: {each.type}" for argument, each in _own(found).items()]
    # The arguments of a page are the same everywhere, and explained once.
    paging = ["…page"] if _pages(found) else []
    arguments = ", ".join(own + paging)
    return f"{name}({arguments}): {found.type}" if arguments else f"{name}: {found.type}"


def _pages(found: GraphQLField) -> bool:
    return set(PAGING) <= set(found.args)


def _own(found: GraphQLField) -> Mapping[str, GraphQLArgument]:
    return {name: argument for name, argument in found.args.items() if not (_pages(found) and name in PAGING)}


def _table(head: str, rows: Mapping[str, GraphQLArgument] | Mapping[str, GraphQLInputField]) -> Iterator[str]:
    yield f"| {head} | type | meaning |\n|---|---|---|\n"
    for name, row in rows.items():
        yield f"| `{name}` | `{row.type}`{_default(row)} | {_text(row)} |\n"
    yield "\n"


def _default(row: GraphQLArgument | GraphQLInputField) -> str:
    value = (
        ast_from_value(row.default_value, row.type)
        if row.default_value is not None and row.default_value is not Undefined
        else None
    )
    return f" = `{print_ast(value)}`" if value else ""


def _objects() -> Iterator[str]:
    for name, kind in _named(GraphQLObjectType, GraphQLInterfaceType):
        if name in {"Query", "Mutation", "Subscription"} or name.endswith(("Connection", "Edge")):
            continue
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            yield f"#### {name}\n\n{_text(kind)}\n\n| field | type | meaning |\n|---|---|---|\n"
            for field_name, found in kind.fields.items():
                called, _, answer = _signature(field_name, found).rpartition(": ")
                yield f"| `{called}` | `{answer}` | {_text(found)} |\n"
            yield "\n"


def _inputs() -> Iterator[str]:
    for name, kind in _named(GraphQLInputObjectType):
        if isinstance(kind, GraphQLInputObjectType):
            yield f"#### {name}\n\n{_text(kind)}\n\n"
            yield from _table("field", kind.fields)


def _others() -> Iterator[str]:
    for name, kind in _named(GraphQLEnumType):
        if isinstance(kind, GraphQLEnumType) and name != "ErrorCode":
            yield f"#### {name}\n\n{_text(kind)}\n\n"
            yield from _values(kind)
    yield "#### Unions and scalars\n\n| name | meaning |\n|---|---|\n"
    for name, kind in _named(GraphQLUnionType, GraphQLScalarType):
        members = " or ".join(f"`{each.name}`" for each in getattr(kind, "types", ()))
        yield f"| `{name}` | {_text(kind)}{f' {members}.' if members else ''} |\n"
    yield "\n"


def _codes() -> Iterator[str]:
    kind = _SCHEMA.type_map[ErrorCode.__name__]
    if isinstance(kind, GraphQLEnumType):
        yield from _values(kind)


def _values(kind: GraphQLEnumType) -> Iterator[str]:
    yield "| value | meaning |\n|---|---|\n"
    for name, value in kind.values.items():
        yield f"| `{name}` | {_text(value)} |\n"
    yield "\n"


def _named(*kinds: _Kind) -> Iterator[tuple[str, GraphQLNamedType]]:
    for name, kind in sorted(_SCHEMA.type_map.items()):
        if (
            isinstance(kind, kinds)
            and not name.startswith("__")
            and kind not in specified_scalar_types.values()
        ):
            yield name, kind


def _text(described: object) -> str:
    text = str(getattr(described, "description", "") or "")
    return " ".join(text.split()).replace("|", "\\|")


_PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "Codes": _codes,
    "Queries": partial(_operations, "Query"),
    "Mutations": partial(_operations, "Mutation"),
    "Subscriptions": partial(_operations, "Subscription"),
    "Objects": _objects,
    "Inputs": _inputs,
    "Enums": _others,
}


if __name__ == "__main__":
    page = Path(sys.argv[1]) / "graphql.md"
    page.write_text(with_reference(page.read_text()))
