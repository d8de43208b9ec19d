"""Whatever fits the schema is answered, and nothing of it breaks the inside: documents made by schemathesis."""

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio.to_thread
import graphql
import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.graphql import nodes

from manager.graphql.ids import global_id
from manager.graphql.schema import schema as served_schema
from manager.models import ArtifactStatus
from tests.graphql.served import Manager
from tests.graphql.sockets import Served, serve
from tests.graphql.test_live import an_import
from tests.storages.strace import turn

pytestmark = pytest.mark.anyio

# Codes that only a bug, or something that is down, answers.
UNEXPECTED = {"INTERNAL", "UNAVAILABLE", "GRAPHQL_PARSE_FAILED"}
SECONDS = 20.0

SCALARS = {
    "UUID": st.uuids().map(str),
    "ByteSize": st.integers(0, 1 << 64).map(str),
    "DateTime": st.datetimes().map(lambda time: time.isoformat()) | st.just("0001-01-01T00:00:00+14:00"),
}
for name, strategy in SCALARS.items():
    schemathesis.graphql.scalar(name, strategy.map(nodes.String))
schemathesis.graphql.scalar("JSON", st.just(nodes.Object([])))


@dataclass(frozen=True)
class Known:
    """What a client may know: ids of things that are there, and cursors."""

    ids: Sequence[str]
    cursors: Sequence[str]


@pytest.fixture
async def served(manager: Manager) -> AsyncIterator[Served]:
    async with serve(manager) as running:
        yield running


async def known(manager: Manager) -> Known:
    person = await manager.person()
    revision, task = await an_import(manager)
    other = await manager.revision(await manager.artifact("org/other"), status=ArtifactStatus.AVAILABLE)
    folder = await manager.folder(manager.admin)
    theirs = await manager.folder(person)
    project = await manager.ask('mutation { createProject(input: {name: "team"}) { project { id } } }')
    named = [
        ("Artifact", revision.artifact_id),
        ("ArtifactRevision", revision.id),
        ("ArtifactRevision", other.id),
        ("ImportTask", task.id),
        ("VFolder", folder.id),
        ("VFolder", theirs.id),
        ("User", person.id),
        ("User", manager.admin.id),
        ("HuggingFaceRegistry", await manager.registry_id()),
    ]
    ids = [spelled for kind, key in named for spelled in (str(key), global_id(kind, key))]
    ids += [str(uuid4()), project["createProject"]["project"]["id"]]
    page = await manager.ask(
        "{ artifacts { edges { cursor } } artifactRevisions { edges { cursor } } vfolders { edges { cursor } } }"
    )
    return Known(ids, [edge["cursor"] for found in page.values() for edge in found["edges"]])


class Substitution(graphql.Visitor):
    """Puts what is known where the document holds an id or a cursor."""

    def __init__(self, information: graphql.TypeInfo, ids: Iterator[str], cursors: Iterator[str]) -> None:
        super().__init__()
        self._information = information
        self._ids = ids
        self._cursors = cursors

    def enter_string_value(self, *_: Any) -> graphql.StringValueNode | None:
        kind = self._information.get_input_type()
        argument = self._information.get_argument()
        if kind is not None and graphql.get_named_type(kind).name in {"ID", "UUID"}:
            chosen = next(self._ids)
        elif argument is not None and argument.description and "cursor;" in argument.description:
            chosen = next(self._cursors)
        else:
            return None
        return graphql.StringValueNode(value=chosen) if chosen else None


def with_known(document: str, ids: Sequence[str], cursors: Sequence[str]) -> str:
    information = graphql.TypeInfo(served_schema._schema)
    visitor = Substitution(information, itertools.cycle(ids), itertools.cycle(cursors))
    parsed = graphql.parse(document)
    return graphql.print_ast(graphql.visit(parsed, graphql.TypeInfoVisitor(information, visitor)))


def hold(url: str, token: str, things: Known, examples: int, turns: int) -> tuple[int, dict[str, str]]:
    """Send documents of every operation, or of each `turns`-th; returns how many were answered with data, and what broke by operation."""
    introspection = graphql.introspection_from_schema(served_schema._schema)
    answered, broken = 0, {}
    # Empty: what was generated stays.
    ids = st.lists(st.sampled_from(["", *things.ids]), min_size=1, max_size=5)
    cursors = st.lists(st.sampled_from(["", *things.cursors]), min_size=1, max_size=2)
    with httpx.Client(timeout=SECONDS, trust_env=False, headers={"Authorization": f"Bearer {token}"}) as http:
        operations = list(schemathesis.graphql.from_dict({"data": introspection}).get_all_operations())
        for found in operations[turn(turns) :: turns]:
            operation = found.ok()

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=examples < 10,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(), ids=ids, cursors=cursors)
            def ask(case: Any, ids: list[str], cursors: list[str]) -> None:
                nonlocal answered
                query = with_known(case.body, ids, cursors)
                response = http.post(url, json={"query": query})
                assert response.status_code == 200, (query, response.text)
                body = response.json()
                codes = {error["extensions"]["code"] for error in body.get("errors", [])}
                assert not codes & UNEXPECTED, (query, body["errors"])
                answered += not codes

            try:
                ask()
            except (AssertionError, httpx.HTTPError) as exc:
                broken[operation.label] = f"{exc!r:.1500}"
    return answered, broken


@pytest.mark.parametrize(
    ("examples", "turns"), [(2, 3), pytest.param(400, 1, marks=[pytest.mark.soak, pytest.mark.timeout(0)])]
)
async def test_no_document_that_fits_the_schema_breaks_the_inside(
    served: Served, examples: int, turns: int
) -> None:
    things = await known(served.manager)
    url = served.address.replace("ws:", "http:")
    token = served.manager.admin.token
    answered, broken = await anyio.to_thread.run_sync(hold, url, token, things, examples, turns)
    assert broken == {}
    assert answered
