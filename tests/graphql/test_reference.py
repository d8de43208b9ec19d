"""docs/graphql.md against the schema; tests/e2e/test_examples.py executes its examples."""

import re

import pytest
from graphql import parse, validate

from manager.graphql.reference import with_reference
from manager.graphql.schema import schema
from tests.graphql.examples import EXAMPLES, TEXT


def test_the_page_is_what_the_schema_says() -> None:
    assert with_reference(TEXT) == TEXT, "run make docs"


def test_the_page_has_every_operation_and_type() -> None:
    headings = set(re.findall(r"^#### (\w+)$", TEXT, re.MULTILINE))
    for name, kind in schema._schema.type_map.items():
        if name in {"Query", "Mutation", "Subscription"}:
            assert set(kind.fields) <= headings
        elif hasattr(kind, "fields") and not name.startswith("__"):
            assert name in headings or name.endswith(("Connection", "Edge")), name


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_the_schema(name: str) -> None:
    assert validate(schema._schema, parse(EXAMPLES[name])) == []
