"""importTaskUpdated over real sockets, with changes that come as a proxy's reports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from secrets import token_urlsafe
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text, update

from manager import changes
from manager.db import Database
from manager.graphql import socket, subscriptions
from manager.graphql.ids import global_id
from manager.models import ApiToken, ImportTask, ImportTaskStatus
from manager.tasks import CHANNEL, lock_tasks
from proxy_client.wire import ImportReport, ImportState
from tests.graphql.served import COMMIT, Manager
from tests.graphql.sockets import PATIENCE, WATCH, Served, serve, until
from tests.graphql.test_tasks import a_task

pytestmark = pytest.mark.anyio


@pytest.fixture
async def served(manager: Manager) -> AsyncIterator[Served]:
    async with serve(manager) as served:
        yield served


async def a_new_task(manager: Manager, **values: Any) -> ImportTask:
    revision = await manager.revision(await manager.artifact(f"org/{uuid4().hex}"))
    folder = await manager.folder(manager.admin)
    return await a_task(manager, manager.admin, revision, folder, **values)


async def report(manager: Manager, task_id: UUID, sequence: int, state: str = "running") -> None:
    """Let the task's proxy report that as many files have arrived as reports were sent."""
    async with manager.database.begin() as session:
        tasks = await lock_tasks(session, [task_id])
        await tasks.take(
            [
                ImportReport(
                    task_id=task_id,
                    request_id="request-1",
                    state=ImportState(state),
                    sequence=sequence,
                    files_done=sequence,
                    commit=COMMIT,
                    created_at=datetime.now(UTC),
                )
            ]
        )


def update_of(status: str, files_done: int) -> dict[str, Any]:
    return {"importTaskUpdated": {"status": status, "filesDone": files_done}}


# What a subscriber sees.


async def test_first_the_state_of_now_then_every_change_then_the_end(served: Served) -> None:
    task = await a_new_task(served.manager)
    async with served.signed_in() as client:
        await client.subscribe("a", WATCH, task=str(task.id))
        assert await client.next("a") == update_of("PENDING", 0)
        await report(served.manager, task.id, 1)
        assert await client.next("a") == update_of("RUNNING", 1)
        await report(served.manager, task.id, 2, "succeeded")
        assert await client.next("a") == update_of("SUCCEEDED", 2)
        assert await client.message("a") == {"id": "a", "type": "complete"}


async def test_a_task_that_has_ended_is_told_once(served: Served) -> None:
    done = {"status": ImportTaskStatus.CANCELLED, "finished_at": datetime.now(UTC)}
    task = await a_new_task(served.manager, **done)
    async with served.signed_in() as client:
        await client.subscribe("a", WATCH, task=global_id("ImportTask", task.id))
        assert await client.next("a") == update_of("CANCELLED", 0)
        assert (await client.message("a"))["type"] == "complete"


async def test_what_hangs_below_the_task_is_as_new_as_the_task(served: Served) -> None:
    manager = served.manager
    revision = await manager.revision(await manager.artifact())
    task = await a_task(manager, manager.admin, revision, None)
    async with served.signed_in() as client:
        query = "subscription($t: ID!) { importTaskUpdated(taskId: $t) { artifactRevision { status } } }"
        await client.subscribe("a", query, t=str(task.id))
        first = await client.next("a")
        await report(manager, task.id, 1)
        second = await client.next("a")
    statuses = [each["importTaskUpdated"]["artifactRevision"]["status"] for each in (first, second)]
    assert statuses == ["SCANNED", "PULLING"]


async def test_a_task_that_is_not_there_and_one_that_may_not_be_seen_look_alike(served: Served) -> None:
    task = await a_new_task(served.manager)
    stranger = await served.manager.person()
    async with served.signed_in(stranger) as client:
        await client.subscribe("a", WATCH, task=str(task.id))
        await client.subscribe("b", WATCH, task=str(uuid4()))
        invisible, unknown = await client.error("a"), await client.error("b")
        await client.subscribe("c", WATCH, task="nonsense")
        nonsense = await client.error("c")
    assert invisible == unknown
    assert invisible["extensions"] == {"code": "NOT_FOUND", "field": "taskId"}
    assert nonsense["extensions"] == {"code": "BAD_REQUEST", "field": "taskId"}


async def test_who_loses_the_permission_learns_nothing_more(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "PERMISSION_SECONDS", 0.0)
    manager = served.manager
    task = await a_new_task(manager)
    guest = await manager.person()
    for losing in (
        update(ImportTask).where(ImportTask.id == task.id).values(requested_by_id=manager.admin.id),
        update(ApiToken).where(ApiToken.user_id == guest.id).values(revoked_at=datetime.now(UTC)),
    ):
        async with manager.database.begin() as session:
            guests = update(ImportTask).where(ImportTask.id == task.id).values(requested_by_id=guest.id)
            await session.execute(guests)
        async with served.signed_in(guest) as client:
            await client.subscribe("a", WATCH, task=str(task.id))
            sequence = (await client.next("a"))["importTaskUpdated"]["filesDone"]
            async with manager.database.begin() as session:
                await session.execute(losing)
            await report(manager, task.id, sequence + 1)
            refusal = (await client.message("a"))["payload"]
            assert refusal["data"] is None
            assert refusal["errors"][0]["extensions"]["code"] in {"NOT_FOUND", "UNAUTHENTICATED"}
            assert (await client.message("a"))["type"] == "complete"


# How changes reach many.


@contextmanager
def reads_of_tasks(manager: Manager) -> Any:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT import_tasks."):
            seen.append(statement)

    engine = manager.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_a_change_is_read_once_for_all_subscribers(served: Served) -> None:
    task = await a_new_task(served.manager)
    keys = [str(number) for number in range(socket.MAX_OPERATIONS)]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(served.signed_in()) for _ in range(3)]
        for client in clients:
            for key in keys:
                await client.subscribe(key, WATCH, task=str(task.id))
        for client in clients:
            for key in keys:
                assert await client.next(key) == update_of("PENDING", 0)
        for sequence in (1, 2, 3):
            with reads_of_tasks(served.manager) as statements:
                await report(served.manager, task.id, sequence)
                for client in clients:
                    for key in keys:
                        assert await client.next(key) == update_of("RUNNING", sequence)
            # The report locks the row, and one look serves the 96 subscribers. (Before the first change, one more
            # look may be on its way for the last who came.)
            assert len(statements) == 2 or sequence == 1, statements


async def test_a_slow_follower_gets_the_latest_state_and_slows_nobody(manager: Manager) -> None:
    task = await a_new_task(manager)
    following = manager.services.changes
    slow, quick = following.follow_task(task.id), following.follow_task(task.id)
    assert [(await anext(each)).files_done for each in (slow, quick)] == [0, 0]
    for sequence in range(1, 6):
        await report(manager, task.id, sequence)
        assert (await anext(quick)).files_done == sequence
    assert (await anext(slow)).files_done == 5
    await report(manager, task.id, 6, "succeeded")
    for follower in (slow, quick):
        assert [row.files_done async for row in follower] == [6]


async def test_a_subscriber_that_reads_nothing_costs_nobody_and_misses_only_what_is_past(
    served: Served,
) -> None:
    manager = served.manager
    # Several changes fill every buffer between the two, and do not shrink under way.
    revision = await manager.revision(await manager.artifact(), readme=token_urlsafe(3_000_000))
    task = await a_task(manager, manager.admin, revision, None)
    query = (
        "subscription($t: ID!) { importTaskUpdated(taskId: $t) { filesDone artifactRevision { readme } } }"
    )
    changes_of_now = 12
    async with served.opened(max_queue=1) as slow, served.signed_in() as quick:
        await slow.init({"token": manager.admin.token})
        await slow.subscribe("a", query, t=str(task.id))
        await quick.subscribe("a", WATCH, task=str(task.id))
        assert await quick.next("a") == update_of("PENDING", 0)
        for sequence in range(1, changes_of_now + 1):
            await report(manager, task.id, sequence)
            assert await quick.next("a") == update_of("RUNNING", sequence)
        await report(manager, task.id, changes_of_now + 1, "succeeded")
        assert await quick.next("a") == update_of("SUCCEEDED", changes_of_now + 1)
        seen = []
        while (message := await slow.message("a"))["type"] == "next":
            seen.append(message["payload"]["data"]["importTaskUpdated"]["filesDone"])
    assert seen == sorted(seen)
    assert seen[-1] == changes_of_now + 1
    assert len(seen) < changes_of_now, "all was kept for it"


async def test_a_lost_listener_is_replaced_and_what_it_missed_is_told(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = served.manager
    task = await a_new_task(manager)
    monkeypatch.setattr(changes, "RETRY_DELAY", 0.3)
    async with served.signed_in() as client:
        await client.subscribe("a", WATCH, task=str(task.id))
        assert await client.next("a") == update_of("PENDING", 0)
        await until_listening(manager, 1)
        listeners = await terminate_listeners(manager)
        # Nobody listens now.
        await report(manager, task.id, 1)
        assert await client.next("a") == update_of("RUNNING", 1)
        await report(manager, task.id, 2)
        assert await client.next("a") == update_of("RUNNING", 2)
        assert await terminate_listeners(manager) != listeners


async def terminate_listeners(manager: Manager) -> list[int]:
    pids = await listeners_of(manager)
    async with manager.database.connection() as connection:
        for pid in pids:
            await connection.execute(text(f"SELECT pg_terminate_backend({pid})"))
    return pids


async def listeners_of(manager: Manager) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    async with manager.database.connection() as connection:
        return list(await connection.scalars(text(query)))


async def test_a_listener_that_died_without_a_word_is_replaced(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PROBE_INTERVAL", 0.1)
    monkeypatch.setattr(changes, "PROBE_TIMEOUT", 1.0)
    monkeypatch.setattr(changes, "RETRY_DELAY", 0.1)
    task = await a_new_task(manager)
    database = Database(manager.settings.manager.database_file.read_text())
    opened: list[Any] = []
    event.listen(
        database._alone.sync_engine, "connect", lambda dbapi, _record: opened.append(dbapi.driver_connection)
    )
    following = changes.Changes(database)
    running = asyncio.create_task(following.run())
    follower = following.follow_task(task.id)
    try:
        async with asyncio.timeout(PATIENCE):
            assert (await anext(follower)).files_done == 0
            await report(manager, task.id, 1)
            # It is told of by the listener alone, so there is one.
            assert (await anext(follower)).files_done == 1
            silent = opened[-1]
            # Nothing that the server sends arrives any more, and nobody says so.
            silent._transport.pause_reading()
            await report(manager, task.id, 2)
            assert (await anext(follower)).files_done == 2
            assert opened[-1] is not silent
    finally:
        for connection in opened:
            connection._transport.resume_reading()
        running.cancel()
        await asyncio.wait([running])
        await database.close()


async def until_listening(manager: Manager, number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(await listeners_of(manager)) != number:
            await asyncio.sleep(0.01)


async def test_who_goes_leaves_nothing_behind(served: Served) -> None:
    followed = served.manager.services.changes._followed
    task = await a_new_task(served.manager)
    async with served.signed_in() as client:
        await client.subscribe("a", WATCH, task=str(task.id))
        await client.next("a")
        await client.send(type="complete", id="a")
        await until(lambda: not followed)
        # The id is free again.
        await client.subscribe("a", WATCH, task=str(task.id))
        await client.next("a")
        assert followed
        client.connection.transport.abort()
        await until(lambda: not followed)


async def test_a_notification_that_is_no_task_harms_nobody(served: Served) -> None:
    task = await a_new_task(served.manager)
    async with served.signed_in() as client:
        await client.subscribe("a", WATCH, task=str(task.id))
        await client.next("a")
        async with served.manager.database.connection() as connection:
            for payload in ("", "nonsense", str(uuid4())):
                await connection.execute(text(f"NOTIFY {CHANNEL}, '{payload}'"))
        await report(served.manager, task.id, 1)
        assert await client.next("a") == update_of("RUNNING", 1)
