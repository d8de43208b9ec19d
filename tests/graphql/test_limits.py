"""What one request may cost, and what is refused before it costs anything."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from manager.catalog import Catalog
from manager.graphql import limits
from manager.graphql.schema import schema
from proxy_client.errors import CODES
from tests.graphql.served import Json, Manager
from tests.graphql.sockets import WATCH, serve
from tests.graphql.test_subscriptions import a_new_task, report

pytestmark = pytest.mark.anyio

PAGE = "artifacts(first: 100) { edges { node { %s } } }"
REVISIONS = "revisions(first: 100) { edges { node { %s } } }"


@pytest.mark.parametrize(
    "query",
    [
        "{ " + PAGE % (REVISIONS % "id readme artifact { name }") + " }",
        "{ artifacts { edges { node { revisions { edges { node { verificationResult { verifiers { name } } } } } } } } }",
        "{ importTasks(limit: 100) { edges { node { verificationResult { verifiers { name } } } } } }",
    ],
)
async def test_what_pages_need_is_allowed(manager: Manager, query: str) -> None:
    await manager.ask(query)


LISTS_IN_LISTS = {
    "plain": "{ " + PAGE % (REVISIONS % ("artifact { " + REVISIONS % "id" + " }")) + " }",
    "by a variable's default": "query($n: Int = 100) { artifacts(first: $n) { edges { node { revisions(last: $n) {"
    " edges { node { artifact { revisions(limit: $n) { edges { node { id } } } } } } } } } } }",
    "by fragments": "{ ...a } fragment a on Query { artifacts(first: 100) { edges { node { ...b } } } }"
    " fragment b on Artifact { revisions(first: 100) { edges { node { artifact { ...c } } } } }"
    " fragment c on Artifact { revisions(first: 100) { edges { node { id } } } }",
    "by aliases": "{ " + " ".join(f"a{n}: " + PAGE % (REVISIONS % "id") for n in range(5)) + " }",
    "beyond the largest page": "{ artifacts(first: 2000000000) { edges { node { revisions(first: 2000000000) {"
    " edges { node { artifact { revisions { edges { node { id } } } } } } } } } } }",
}


@pytest.mark.parametrize("name", LISTS_IN_LISTS)
async def test_lists_within_lists_within_lists_are_refused_before_a_row_is_read(
    manager: Manager, name: str
) -> None:
    with manager.statements() as statements:
        error = await manager.refusal(LISTS_IN_LISTS[name])
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert "shorter lists" in error["message"]
    assert len(statements) == 1, "the token is looked up, and nothing else"


async def test_a_variable_counts_as_what_it_is(manager: Manager) -> None:
    query = """query($n: Int) { artifacts(first: $n) { edges { node { revisions(first: $n) { edges { node {
      artifact { revisions(first: $n) { edges { node { id } } } } } } } } } } }"""
    await manager.ask(query, {"n": 5})
    assert (await manager.refusal(query, {"n": 60}))["extensions"]["code"] == "BAD_REQUEST"


SCAN = "mutation { scanArtifacts(input: {limit: 1}) { artifacts { id } } }"


@pytest.mark.parametrize("way", ["http", "socket", "events"])
async def test_an_operation_that_takes_too_long_is_given_up(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def endless(*_arguments: Any, **_options: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    async def refused() -> Json:
        if way == "http":
            return await manager.refusal(SCAN)
        if way == "socket":
            async with serve(manager) as served, served.signed_in() as client:
                await client.subscribe("a", SCAN)
                return await client.error("a")
        headers = {"Authorization": f"Bearer {manager.admin.token}", "Accept": "text/event-stream"}
        text = (await manager.http.post("/graphql", json={"query": SCAN}, headers=headers)).text
        (data,) = [line for line in text.splitlines() if line.startswith("data:{") or '"errors"' in line]
        (error,) = json.loads(data.removeprefix("data:"))["errors"]
        assert isinstance(error, dict)
        return error

    monkeypatch.setattr(Catalog, "scan_artifacts", endless)
    manager.services.operation_timeout = 0.2
    while not begun.is_set():  # a busy machine may give it up before it comes to the scan
        error = await refused()
        assert error["extensions"]["code"] == "UNAVAILABLE"
        assert "0.2 seconds" in error["message"]
    assert given_up.is_set()


async def test_a_subscription_lasts_longer_than_an_operation_may(manager: Manager) -> None:
    task = await a_new_task(manager)
    seconds = 0.1
    async with serve(manager) as served, served.signed_in() as client:
        begun = False
        while not begun:  # to begin takes a busy machine its time, which is bounded
            seconds *= 2
            manager.services.operation_timeout = seconds
            await client.subscribe("a", WATCH, task=str(task.id))
            begun = (await client.message("a"))["type"] == "next"
        await asyncio.sleep(2 * seconds)
        await report(manager, task.id, 1)
        assert (await client.next("a"))["importTaskUpdated"]["status"] == "RUNNING"


async def test_the_schema_is_told_only_where_the_operator_wants_it(manager: Manager) -> None:
    asked = [
        "{ __schema { queryType { name } } }",
        '{ ...f } fragment f on Query { __type(name: "User") { name } }',
    ]
    for query in asked:
        await manager.ask(query)
    manager.services.introspection = False
    for query in asked:
        assert (await manager.refusal(query))["extensions"]["code"] == "FORBIDDEN"
    assert await manager.ask("{ __typename me { __typename } }")


async def test_every_code_is_in_the_schema(manager: Manager) -> None:
    data = await manager.ask('{ __type(name: "ErrorCode") { enumValues { name description } } }')
    told: dict[str, Json] = {value["name"]: value for value in data["__type"]["enumValues"]}
    assert set(told) == CODES | {"GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"}
    assert all(value["description"] for value in told.values())


def inline(levels: int, inner: str) -> str:
    return "{ ... " * levels + inner + " }" * levels


HOSTILE: dict[str, Callable[[int], str]] = {
    "deep braces": lambda n: "{ a " * n,
    "deep fields": lambda n: (
        "{ artifacts { edges { node { revisions { edges { node { artifact " * (n // 32)
        + "{ id }"
        + "}" * (n // 32 * 7)
    ),
    "deep lists": lambda n: "{ artifacts(filter: {AND: " + "[" * n + "]" * n + "}) { count } }",
    "deep filter": lambda n: "{ artifacts(filter: " + "{NOT: " * n + "{}" + "}" * n + ") { count } }",
    "deep types": lambda n: "query($a: " + "[" * n + "Int" + "]" * n + ") { __typename }",
    "many tokens": lambda n: "{ " + "me { id } " * n * 4 + "}",
    "many aliases": lambda n: "{ " + " ".join(f"a{each}: me {{ id }}" for each in range(n)) + "}",
    "same fields": lambda n: "{ " + "me { id email } " * n + "}",
    "fragments doubled": lambda n: (
        "{ ...f0 } "
        + " ".join(f"fragment f{each} on Query {{ ...f{each + 1} ...f{each + 1} }}" for each in range(n // 8))
        + f" fragment f{n // 8} on Query {{ me {{ id }} }}"
    ),
    "fragments in a ring": lambda n: (
        "{ ...f0 } "
        + " ".join(f"fragment f{each} on Query {{ ...f{(each + 1) % n} me {{ id }} }}" for each in range(n))
    ),
    "fragments in a chain": lambda n: (
        "{ ...f0 } "
        + " ".join(f"fragment f{each} on Query {{ ...f{each + 1} }}" for each in range(n))
        + f" fragment f{n} on Query {{ me {{ id }} }}"
    ),
    "deep fragments in a chain": lambda n: (
        "{ ...f0 } "
        + " ".join(
            f"fragment f{each} on Query " + inline(n // 10, f"{{ ...f{each + 1} }}") for each in range(10)
        )
        + " fragment f10 on Query { me { id } }"
    ),
}
REFUSALS = {"BAD_REQUEST", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"}


@contextmanager
def steps() -> Iterator[list[int]]:
    """Count the calls of functions of this task, which tell the work whatever the machine and the other tasks do."""
    counted, loop, task = [0], asyncio.get_running_loop(), asyncio.current_task()

    def note(_frame: object, event: str, _argument: object) -> None:
        if event == "call" and asyncio.current_task(loop) is task:
            counted[0] += 1

    sys.setprofile(note)
    try:
        yield counted
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_document_is_refused_and_costs_what_its_length_costs(
    manager: Manager, name: str
) -> None:
    taken = []
    for size in (160, 320, 640):
        document = HOSTILE[name](size)
        with steps() as counted:
            body = await manager.post(document)
        taken.append(counted[0])
        if size == 640:
            assert {error["extensions"]["code"] for error in body["errors"]} <= REFUSALS, body["errors"][0]
    # Twice the length is twice the work and what every request costs; what is quadratic would be four times as much.
    assert taken[1] < 3 * taken[0], taken
    assert taken[2] < 3 * taken[1], taken


async def test_the_cost_of_a_document_is_linear_in_its_length() -> None:
    lists = limits.list_fields(schema._schema)
    assert lists["artifacts"] == lists["revisions"] == 20
    assert lists["verifiers"] == limits.PLAIN_LIST
    assert "edges" not in lists
