"""docs/graphql.md against the schema, and those of its examples that a storage proxy's stand-in is enough for."""

import re
from uuid import UUID

import pytest
from graphql import parse, validate

from manager.graphql.ids import parse_id
from manager.graphql.reference import with_reference
from manager.graphql.schema import schema
from manager.models import ImportTask
from tests.graphql.examples import BY_STAND_IN, EXAMPLES, TEXT, learn, variables_of
from tests.graphql.served import Json, Manager
from tests.graphql.test_live import an_import, report


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


@pytest.mark.anyio
async def test_the_examples_of_administrators_do_what_they_say(manager: Manager) -> None:
    _, task = await an_import(manager)
    await report(manager, task.id, 1, "needs_approval", step="verify")
    stored = await manager.revision(await manager.artifact("org/stored"))
    known: Json = {
        "waiting": str(task.id),
        "url": "http://mirror.invalid",
        "endpoint": "http://s3.invalid",
        "accessKey": "planted-access",
        "secretKey": "planted-secret",
        "revision": str(stored.id),
    }
    for name in BY_STAND_IN:
        if name == "Presign":
            await report(manager, UUID(known["task"]), 1, "succeeded", commit="a" * 40)
        data = await manager.ask(EXAMPLES[name], variables_of(name, known))
        learn(name, data, known)
        if name == "CreateStorage":
            known["storage"] = str(
                parse_id(data["createObjectStorage"]["objectStorage"]["id"], "ObjectStorage", field="")
            )
        assert "planted" not in str(data)
    assert manager.proxy.decided == [(task.id, "approve")]
    assert manager.proxy.orders[UUID(known["task"])].path == "org/stored/main"
    assert data["getPresignedDownloadUrl"]["presignedUrl"].startswith("http://s3.invalid/")
    async with manager.database.read() as session:
        assert (await session.get_one(ImportTask, task.id)).decision == "APPROVED"
