"""Documents that are asked again: answered as at the first time, and not validated anew."""

import pytest

from manager.graphql.remembered import LONGEST_TEXT, _remembered
from tests.graphql.served import Manager

pytestmark = pytest.mark.anyio

PAGE = "query($n: Int) { artifacts(first: $n) { edges { node { revisions(first: $n) { edges { node { artifact { %s } } } } } } } }"


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> None:
    _remembered.cache_clear()


async def test_a_document_is_validated_once(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await manager.ask("{ me { id } }")

    def again(*_arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr("strawberry.schema.schema.validate_document", again)
    assert await manager.ask("{ me { id } }") == first


async def test_an_error_is_the_same_every_time(manager: Manager) -> None:
    for query in ("{ nothing }", "{ me {"):
        assert await manager.refusal(query) == await manager.refusal(query)


async def test_variables_are_judged_every_time(manager: Manager) -> None:
    query = PAGE % "revisions(first: $n) { edges { node { id } } }"
    await manager.ask(query, {"n": 2})
    assert (await manager.refusal(query, {"n": 90}))["extensions"]["code"] == "BAD_REQUEST"
    await manager.ask(query, {"n": 2})


async def test_introspection_that_is_turned_off_stays_so(manager: Manager) -> None:
    query = "{ __schema { queryType { name } } }"
    await manager.ask(query)
    manager.services.introspection = False
    assert (await manager.refusal(query))["extensions"]["code"] == "FORBIDDEN"


async def test_long_documents_are_not_remembered(manager: Manager) -> None:
    await manager.ask("{ me { id } }" + " " * LONGEST_TEXT)
    assert _remembered.cache_info().currsize == 0
