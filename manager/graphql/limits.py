"""How much one request may ask for, checked in linear time before anything that costs more."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLList,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_nullable_type,
)
from strawberry.extensions import SchemaExtension

from manager.graphql.errors import VALIDATION_FAILED
from manager.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from proxy_client.errors import BadRequest, Forbidden, Unavailable

MAX_BODY_BYTES = 1 << 20
MAX_TOKENS = 4000
MAX_DEPTH = 20
# Selections within one another, those of fragments too, which are no level of fields.
MAX_NESTING = 100
MAX_FIELDS = 500
# Objects, connections and edges. A page of 100 artifacts, each with 100 revisions, is 30,300.
MAX_COST = 50_000
# How long a list is taken for that does not page: the verifiers of an import, the files of a folder.
PLAIN_LIST = 10
# Above this nothing is added up any more.
_COUNTED = 10**12


@dataclass(frozen=True)
class Size:
    """What a selection asks for when every fragment is written out.

    depth: levels of fields. fields: their number. cost: the objects that it may load, at most, where each list is as
    long as its arguments allow.
    """

    depth: int = 0
    fields: int = 0
    cost: int = 0


class RequestLimits(SchemaExtension):
    """Refuse documents that are too long, too deep, too wide or too costly, before they are validated; bound the rest.

    The time of a subscription is not bounded, only that until it begins.
    """

    def on_operation(self) -> Iterator[None]:
        """Bound what is parsed."""
        self.execution_context.parse_options["max_tokens"] = MAX_TOKENS
        yield

    def on_validate(self) -> Iterator[None]:
        """Bound what is validated; validation has rules of quadratic cost."""
        context = self.execution_context
        document = context.graphql_document
        if document is not None:
            if excess := excess_of(document, context.variables or {}, self._lists()):
                context.pre_execution_errors = [_refused(excess, BadRequest.code)]
            elif not context.context.services.introspection and any(
                map(_asks_for_schema, document.definitions)
            ):
                told = "this installation does not tell its schema; the operator has set manager.introspection so"
                context.pre_execution_errors = [_refused(told, Forbidden.code)]
        yield
        for error in context.pre_execution_errors or ():
            error.extensions = {"code": VALIDATION_FAILED} | (error.extensions or {})

    async def on_execute(self) -> AsyncIterator[None]:
        """Give up what takes too long, however it came."""
        seconds = self.execution_context.context.services.operation_timeout
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as exc:
            raise Unavailable(
                f"the operation took longer than {seconds:g} seconds; ask for less at once"
            ) from exc

    def _lists(self) -> Mapping[str, int]:
        return list_fields(self.execution_context.schema._schema)  # noqa: SLF001 -- Strawberry's own door to it


def _refused(message: str, code: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": code})


def _asks_for_schema(node: Node) -> bool:
    # Anywhere in the text: cheaper than to follow fragments, and no other field has such a name.
    if isinstance(node, FieldNode) and node.name.value in {"__schema", "__type"}:
        return True
    selections = getattr(node, "selection_set", None)
    return selections is not None and any(map(_asks_for_schema, selections.selections))


@cache
def list_fields(schema: GraphQLSchema) -> Mapping[str, int]:
    """Return how long a list each field may be, by its name: a page where it pages, a few where it does not."""
    lists: dict[str, int] = {}
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for name, found in kind.fields.items():
                inner = get_nullable_type(found.type)
                if isinstance(inner, GraphQLObjectType) and inner.name.endswith("Connection"):
                    lists[name] = DEFAULT_PAGE_SIZE
                elif isinstance(inner, GraphQLList) and name != "edges":
                    lists.setdefault(name, PLAIN_LIST)
    return lists


def excess_of(document: DocumentNode, variables: Mapping[str, Any], lists: Mapping[str, int]) -> str | None:
    """Say by what a document asks for too much, or None."""
    sizes = _Sizes(document, {**_defaults(document), **variables}, lists)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            size = sizes.of(definition.selection_set)
            if sizes.nested_too_far:
                return f"the request nests fragments more than {MAX_NESTING} deep; write them side by side"
            if size.depth > MAX_DEPTH:
                return f"the request is {size.depth} levels deep; {MAX_DEPTH} are allowed"
            if size.fields > MAX_FIELDS:
                return f"the request asks for more than {MAX_FIELDS} fields; ask for them in several requests"
            if size.cost > MAX_COST:
                return (
                    f"the request may load {size.cost} objects, and {MAX_COST} are allowed; "
                    "ask for shorter lists (first, last, limit), above all for lists within lists"
                )
    return None


def _defaults(document: DocumentNode) -> dict[str, Any]:
    """Return what variables are that a request leaves out; of several operations, the greatest."""
    defaults: dict[str, Any] = {}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            for variable in definition.variable_definitions or ():
                if isinstance(variable.default_value, IntValueNode):
                    name, number = variable.variable.name.value, int(variable.default_value.value[:6])
                    defaults[name] = max(defaults.get(name, number), number)
    return defaults


class _Sizes:
    """Measures selections; each fragment once, so that the time is linear in the document's length."""

    def __init__(
        self, document: DocumentNode, variables: Mapping[str, Any], lists: Mapping[str, int]
    ) -> None:
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._known: dict[str, Size] = {}
        self._variables = variables
        self._lists = lists
        self._nesting = 0
        self.nested_too_far = False

    def of(self, selections: SelectionSetNode) -> Size:
        """Measure one selection; one that is nested too far counts nothing, and is noted."""
        if self._nesting >= MAX_NESTING:
            self.nested_too_far = True
            return Size()
        self._nesting += 1
        try:
            return self._sum(selections)
        finally:
            self._nesting -= 1

    def _sum(self, selections: SelectionSetNode) -> Size:
        depth = fields = cost = 0
        for selection in selections.selections:
            if isinstance(selection, FieldNode):
                inner = self.of(selection.selection_set) if selection.selection_set else Size()
                own = 1 if selection.selection_set else 0
                inner = Size(inner.depth + 1, inner.fields + 1, self._length(selection) * (own + inner.cost))
            elif isinstance(selection, FragmentSpreadNode):
                inner = self._fragment(selection.name.value)
            else:
                nested = selection.selection_set if isinstance(selection, InlineFragmentNode) else None
                inner = self.of(nested) if nested else Size()
            depth = max(depth, inner.depth)
            fields += inner.fields
            cost = min(cost + inner.cost, _COUNTED)
        return Size(depth, fields, cost)

    def _fragment(self, name: str) -> Size:
        if name not in self._known:
            # A fragment that spreads itself counts nothing here; validation refuses it.
            self._known[name] = Size()
            if name in self._fragments:
                self._known[name] = self.of(self._fragments[name].selection_set)
        return self._known[name]

    def _length(self, node: FieldNode) -> int:
        if (usual := self._lists.get(node.name.value)) is None:
            return 1
        asked = [
            length
            for argument in node.arguments or ()
            if argument.name.value in {"first", "last", "limit"}
            and (length := self._number(argument.value)) is not None
        ]
        # What is beyond the largest page is refused where it is resolved.
        return max(1, min(max(asked, default=usual), MAX_PAGE_SIZE))

    def _number(self, node: ValueNode) -> int | None:
        if isinstance(node, IntValueNode):
            return int(node.value[:6])
        value = self._variables.get(node.name.value) if isinstance(node, VariableNode) else None
        return value if isinstance(value, int) else None
