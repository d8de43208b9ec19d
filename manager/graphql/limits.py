"""How much one request may ask for, checked in linear time before anything that costs more."""

from collections.abc import Iterator
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)
from strawberry.extensions import SchemaExtension

from manager.graphql.errors import VALIDATION_FAILED
from proxy_client.errors import BadRequest

MAX_BODY_BYTES = 1 << 20
MAX_TOKENS = 4000
MAX_DEPTH = 20
MAX_FIELDS = 1000


@dataclass(frozen=True)
class Size:
    """How deep a selection is, and how many fields it has when every fragment is written out."""

    depth: int
    fields: int


class RequestLimits(SchemaExtension):
    """Refuse documents that are too long, too deep or too wide, before they are validated."""

    def on_operation(self) -> Iterator[None]:
        """Bound what is parsed."""
        self.execution_context.parse_options["max_tokens"] = MAX_TOKENS
        yield

    def on_validate(self) -> Iterator[None]:
        """Bound what is validated; validation has rules of quadratic cost."""
        document = self.execution_context.graphql_document
        if document is not None and (excess := _excess(document)):
            error = GraphQLError(excess, extensions={"code": BadRequest.code})
            self.execution_context.pre_execution_errors = [error]
        yield
        for error in self.execution_context.pre_execution_errors or ():
            error.extensions = {"code": VALIDATION_FAILED} | (error.extensions or {})


def _excess(document: DocumentNode) -> str | None:
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    known: dict[str, Size] = {}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            size = _size(definition.selection_set, fragments, known)
            if size.depth > MAX_DEPTH:
                return f"the request is {size.depth} levels deep; {MAX_DEPTH} are allowed"
            if size.fields > MAX_FIELDS:
                return f"the request asks for more than {MAX_FIELDS} fields; ask for them in several requests"
    return None


def _size(
    selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode], known: dict[str, Size]
) -> Size:
    depth = fields = 0
    for selection in selections.selections:
        if isinstance(selection, FragmentSpreadNode):
            name = selection.name.value
            if name not in known:
                # A fragment that spreads itself counts nothing here; validation refuses it.
                known[name] = Size(0, 0)
                if name in fragments:
                    known[name] = _size(fragments[name].selection_set, fragments, known)
            inner = known[name]
        else:
            nested = (
                selection.selection_set if isinstance(selection, FieldNode | InlineFragmentNode) else None
            )
            inner = _size(nested, fragments, known) if nested else Size(0, 0)
            if isinstance(selection, FieldNode):
                inner = Size(inner.depth + 1, inner.fields + 1)
        depth = max(depth, inner.depth)
        fields += inner.fields
    return Size(depth, fields)
