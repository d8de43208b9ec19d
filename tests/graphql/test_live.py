"""Subscriptions beside that of one task: over WebSockets, server-sent events and multipart."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from manager.graphql.ids import global_id
from manager.models import (
    ArtifactRevision,
    ArtifactStatus,
    ImportConflictPolicy,
    ImportTask,
)
from manager.tasks import lock_tasks
from proxy_client.wire import ImportFault, ImportReport, ImportState
from tests.graphql.served import Json, Manager
from tests.graphql.sockets import Served, serve

pytestmark = pytest.mark.anyio

STATUS = """subscription($ids: [ID!]!) { artifactStatusChanged(input: {artifactRevisionIds: $ids}) {
  artifactRevision { id status } } }"""
PROGRESS = "subscription($id: ID!) { artifactImportProgressUpdated(artifactRevisionId: $id) { artifactId progress status } }"
EVENTS = """subscription($id: ID!) { backgroundTaskEvents(taskId: $id) {
  taskId eventType message currentProgress totalProgress } }"""


@pytest.fixture
async def served(manager: Manager) -> AsyncIterator[Served]:
    async with serve(manager) as running:
        yield running


async def an_import(manager: Manager, name: str = "org/model") -> tuple[ArtifactRevision, ImportTask]:
    revision = await manager.revision(await manager.artifact(name), status=ArtifactStatus.PULLING)
    task = ImportTask(
        id=uuid4(),
        request_id="r",
        requested_by_id=manager.admin.id,
        artifact_revision_id=revision.id,
        proxy="local",
        storage_name="archive",
        path=f"{name}/main",
        destination="local:archive",
        on_conflict=ImportConflictPolicy.FAIL,
        order={},
        status_before=ArtifactStatus.SCANNED,
    )
    await manager.add(task)
    return revision, task


async def report(
    manager: Manager, task_id: UUID, sequence: int, state: str = "running", **values: Any
) -> None:
    now = datetime.now(UTC)
    told = ImportReport(
        **{
            "task_id": task_id,
            "request_id": "r",
            "state": ImportState(state),
            "sequence": sequence,
            "created_at": now,
            "finished_at": now if ImportState(state).terminal else None,
        }
        | values
    )
    async with manager.database.begin() as session:
        await (await lock_tasks(session, [task_id])).take([told])


async def test_the_status_of_several_revisions_is_followed(served: Served) -> None:
    manager = served.manager
    imports = [await an_import(manager, name) for name in ("org/a", "org/b")]
    ids = [global_id("ArtifactRevision", revision.id) for revision, _ in imports]

    async with served.signed_in() as client:
        await client.subscribe("s", STATUS, ids=ids)
        first = [(await client.next("s"))["artifactStatusChanged"]["artifactRevision"] for _ in ids]
        assert sorted(one["id"] for one in first) == sorted(ids)
        assert {one["status"] for one in first} == {"PULLING"}
        done: Json = {"files_done": 1, "files_total": 1}
        await report(manager, imports[1][1].id, 1, step="download", **done)
        expected = {"id": ids[1], "status": "PULLED"}
        assert (await client.next("s"))["artifactStatusChanged"]["artifactRevision"] == expected
        await report(manager, imports[1][1].id, 2, step="verify", **done)
        # Progress alone is no change of status.
        await report(manager, imports[1][1].id, 3, step="verify", bytes_done=5, **done)
        await report(manager, imports[1][1].id, 4, "needs_approval", step="verify", **done)
        seen = [(await client.next("s"))["artifactStatusChanged"]["artifactRevision"]["status"] for _ in "ab"]
        assert seen == ["VERIFYING", "NEEDS_APPROVAL"]
        await report(manager, imports[1][1].id, 5, "succeeded", commit="a" * 40, **done)
        assert (await client.next("s"))["artifactStatusChanged"]["artifactRevision"]["status"] == "AVAILABLE"


async def test_progress_ends_with_the_import(served: Served) -> None:
    manager = served.manager
    revision, task = await an_import(manager)
    artifact = global_id("Artifact", revision.artifact_id)

    async with served.signed_in() as client:
        await client.subscribe("p", PROGRESS, id=str(revision.id))
        seen = (await client.next("p"))["artifactImportProgressUpdated"]
        assert seen == {"artifactId": artifact, "progress": 0.0, "status": "PULLING"}
        await report(manager, task.id, 1, bytes_done=3, bytes_total=12)
        assert (await client.next("p"))["artifactImportProgressUpdated"]["progress"] == 0.25
        await report(manager, task.id, 2, "succeeded", commit="a" * 40, bytes_done=12, bytes_total=12)
        seen = (await client.next("p"))["artifactImportProgressUpdated"]
        assert seen == {"artifactId": artifact, "progress": 1.0, "status": "AVAILABLE"}
        assert await client.message("p") == {"type": "complete", "id": "p"}
        # Nothing runs now: the state of now, and the end.
        await client.subscribe("q", PROGRESS, id=str(revision.id))
        assert (await client.next("q"))["artifactImportProgressUpdated"] == seen
        assert await client.message("q") == {"type": "complete", "id": "q"}


async def test_a_background_task_tells_its_events(served: Served) -> None:
    manager = served.manager
    _, task = await an_import(manager)
    async with served.signed_in() as client:
        await client.subscribe("e", EVENTS, id=str(task.id))
        first = (await client.next("e"))["backgroundTaskEvents"]
        assert first == {
            "taskId": str(task.id),
            "eventType": "UPDATED",
            "message": "the import waits for its storage proxy",
            "currentProgress": 0.0,
            "totalProgress": None,
        }
        fault = ImportFault(code="DISK_FULL", message="no room")
        await report(manager, task.id, 1, "failed", bytes_done=3, bytes_total=12, error=fault)
        last = (await client.next("e"))["backgroundTaskEvents"]
        assert (last["eventType"], last["message"]) == ("FAILED", "DISK_FULL: no room")
        assert (last["currentProgress"], last["totalProgress"]) == (3.0, 12.0)
        assert await client.message("e") == {"type": "complete", "id": "e"}


async def test_what_is_not_there_is_not_followed(served: Served) -> None:
    person = await served.manager.person()
    _, task = await an_import(served.manager)
    async with served.signed_in(person) as client:
        for key, query, variables in (
            ("a", STATUS, {"ids": [str(uuid4())]}),
            ("b", PROGRESS, {"id": str(uuid4())}),
            ("c", EVENTS, {"id": str(uuid4())}),
            # Somebody else's.
            ("d", EVENTS, {"id": str(task.id)}),
        ):
            await client.subscribe(key, query, **variables)
            assert (await client.error(key))["extensions"]["code"] == "NOT_FOUND", query
        await client.subscribe("f", STATUS, ids=[])
        assert (await client.error("f"))["extensions"]["code"] == "BAD_REQUEST"


@asynccontextmanager
async def streamed(
    served: Served, accept: str, query: str, **variables: Any
) -> AsyncIterator[httpx.Response]:
    headers = {"Authorization": f"Bearer {served.manager.admin.token}", "Accept": accept}
    body = {"query": query, "variables": variables}
    async with (
        httpx.AsyncClient(timeout=20, trust_env=False) as http,
        http.stream("POST", served.address.replace("ws:", "http:"), json=body, headers=headers) as response,
    ):
        yield response


async def test_server_sent_events_bring_the_same(served: Served) -> None:
    manager = served.manager
    _, task = await an_import(manager)
    async with streamed(served, "text/event-stream", EVENTS, id=str(task.id)) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = response.aiter_lines()
        assert (await next_event(lines))[1]["backgroundTaskEvents"]["eventType"] == "UPDATED"
        await report(manager, task.id, 1, "cancelled")
        assert (await next_event(lines))[1]["backgroundTaskEvents"]["eventType"] == "CANCELLED"
        assert await next_event(lines) == ("complete", {})
        assert [line async for line in lines if line] == []


async def next_event(lines: AsyncIterator[str]) -> tuple[str, Json]:
    name = ""
    async for line in lines:
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data = line.removeprefix("data:").strip()
            return name, json.loads(data)["data"] if data else {}
    raise AssertionError("the stream ended")


async def test_multipart_brings_the_same(served: Served) -> None:
    manager = served.manager
    _, task = await an_import(manager)
    accept = 'multipart/mixed;subscriptionSpec="1.0", application/json'
    async with streamed(served, accept, EVENTS, id=str(task.id)) as response:
        assert response.headers["Content-Type"] == 'multipart/mixed;boundary="graphql";subscriptionSpec="1.0"'
        parts = response.aiter_lines()
        first = json.loads([line async for line in until_body(parts)][-1])
        assert first["payload"]["data"]["backgroundTaskEvents"]["eventType"] == "UPDATED"
        await report(manager, task.id, 1, "cancelled")
        rest = [line async for line in parts if line]
    assert json.loads(rest[2])["payload"]["data"]["backgroundTaskEvents"]["eventType"] == "CANCELLED"
    assert rest[-1] == "--graphql--"


async def until_body(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line.startswith("{"):
            return


async def test_a_query_can_be_streamed_and_a_fault_is_told(served: Served) -> None:
    async with streamed(served, "text/event-stream", "{ me { role } }") as response:
        lines = response.aiter_lines()
        assert await next_event(lines) == ("next", {"me": {"role": "ADMIN"}})
        assert await next_event(lines) == ("complete", {})
    async with streamed(served, "text/event-stream", EVENTS, id=str(uuid4())) as response:
        text = (await response.aread()).decode()
    assert "NOT_FOUND" in text
    assert text.endswith("event: complete\ndata:\n\n")


async def test_a_client_that_leaves_a_stream_leaves_nothing_behind(served: Served) -> None:
    _, task = await an_import(served.manager)
    followed = served.manager.services.changes._followed
    async with streamed(served, "text/event-stream", EVENTS, id=str(task.id)) as response:
        await next_event(response.aiter_lines())
        assert followed
    async with asyncio.timeout(20):
        while followed:
            await asyncio.sleep(0.01)
