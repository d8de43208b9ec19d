"""Documents that were asked before, parsed and validated once: that costs more than most of them do."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from graphql import DocumentNode, GraphQLError, parse
from strawberry.extensions import SchemaExtension

# Together some 64 MB, if somebody fills it with the largest trees that there are for so short texts.
MOST_DOCUMENTS = 64
LONGEST_TEXT = 6 << 10


@dataclass
class _Remembered:
    document: DocumentNode
    valid: bool = False


@lru_cache(maxsize=MOST_DOCUMENTS)
def _remembered(text: str, max_tokens: int) -> _Remembered:
    return _Remembered(parse(text, max_tokens=max_tokens))


class RememberedDocuments(SchemaExtension):
    """Parses and validates a text once. Stands after `RequestLimits`, which looks at every request: variables count there."""

    _found: _Remembered | None = None

    def on_parse(self) -> Iterator[None]:
        """Take the document of a text that was parsed before."""
        context = self.execution_context
        self._found = None
        if context.query is not None and len(context.query) <= LONGEST_TEXT:
            # What does not parse is parsed anew, by whoever tells the client what is wrong with it.
            with suppress(GraphQLError):
                self._found = _remembered(context.query, context.parse_options["max_tokens"])
                context.graphql_document = self._found.document
        yield

    def on_validate(self) -> Iterator[None]:
        """Pass what passed before; an error is found anew each time, since it is presented in place."""
        context, found = self.execution_context, self._found
        if found is not None and found.valid and context.pre_execution_errors is None:
            context.pre_execution_errors = []
        yield
        if found is not None and not context.pre_execution_errors:
            found.valid = True
