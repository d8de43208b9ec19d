"""The reconciler against a proxy that comes, goes, forgets and repeats itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from manager import reconciler
from manager.imports import ImportOptions
from manager.models import ArtifactStatus, ImportStep, ImportTask, ImportTaskStatus, StorageProxy
from manager.reconciler import Reconciler
from manager.revision_status import revision_status
from proxy_client import errors
from tests.conftest import PostgresServer
from tests.manager.stand_in import until
from tests.manager.world import World, commit_of

pytestmark = pytest.mark.anyio

PLAIN = ImportOptions()
DONE: dict[str, Any] = {"files_done": 2, "files_total": 2, "bytes_done": 10, "bytes_total": 10}
VERIFIED = {
    "verdict": "clean",
    "verifiers": [
        {
            "name": "integrity",
            "status": "clean",
            "version": "1",
            "scanned": 2,
            "started_at": "2026-11-22T12:00:00Z",
            "duration": 0.1,
        }
    ],
}


@asynccontextmanager
async def reconciling(world: World) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(Reconciler(world.database, world.settings, world.proxies).run())
    try:
        yield running
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@asynccontextmanager
async def connections_may_die() -> AsyncIterator[None]:
    """Let pass what asyncpg leaves behind: the future of a query that is cancelled while its connection dies."""
    loop = asyncio.get_running_loop()
    strict = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, _context: None)
    yield
    loop.set_exception_handler(strict)


async def imported(world: World, *, into_folder: bool = True, revision: UUID | None = None) -> ImportTask:
    caller, folder = (world.user_a, world.folder) if into_folder else (world.admin, None)
    wanted = [revision or world.revision]
    (found,) = await world.service().import_revisions(caller, wanted, folder, PLAIN)
    assert found.task is not None
    return found.task


async def reached(world: World, task_id: UUID, status: ImportTaskStatus) -> ImportTask:
    async def there() -> bool:
        return (await world.task(task_id)).status is status

    await until(there)
    return await world.task(task_id)


async def taken(world: World, sequence: int) -> None:
    """Wait until the event stream was followed so far."""

    async def there() -> bool:
        async with world.database.read() as session:
            row = await session.get(StorageProxy, "near")
            return row is not None and row.last_event_id == sequence

    await until(there)


# Orders and cancels.


async def test_a_task_is_ordered_when_its_proxy_is_back(world: World) -> None:
    await world.near.stop()
    task = await imported(world)
    async with reconciling(world):
        await asyncio.sleep(0.2)
        await world.near.start()
        await until(lambda: task.id in world.near.orders)

        async def recorded() -> bool:
            return (await world.task(task.id)).ordered_at is not None

        await until(recorded)


async def test_an_order_that_is_refused_later_fails_the_task(world: World) -> None:
    await world.near.stop()
    task = await imported(world)
    world.near.refuse_model["org/model"] = errors.NotFound("there is no such volume")
    async with reconciling(world):
        await world.near.start()
        failed = await reached(world, task.id, ImportTaskStatus.FAILED)
    assert failed.error == {"code": "NOT_FOUND", "message": "there is no such volume", "step": None}


async def test_an_order_that_the_proxy_fails_over_makes_nothing_else_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_MOST_TASKS", 1)
    monkeypatch.setattr(reconciler, "_SHORTEST_REST", 0.2)
    cancelled = await imported(world)
    await world.execute("UPDATE import_tasks SET cancel_requested_at = now() - interval '1 minute'")
    await world.near.stop()
    stuck = [await imported(world, revision=await world.make_revision("org/stuck", name)) for name in "ab"]
    newer = await imported(world, revision=await world.make_revision("org/newer", "main"))
    world.near.refuse_model["org/stuck"] = errors.Internal("a fault of the proxy")
    await world.near.start()
    async with reconciling(world):
        await until(lambda: newer.id in world.near.orders)
        await until(lambda: cancelled.id in world.near.cancels)
        # They are tried again and again, until the proxy is repaired.
        await until(lambda: all(world.near.received.count(task.id) > 1 for task in stuck))
        world.near.refuse_model.clear()
        await until(lambda: all(task.id in world.near.orders for task in stuck))


async def test_a_task_that_the_proxy_fails_over_makes_no_question_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_MOST_TASKS", 1)
    first = await imported(world)
    second = await imported(world, revision=await world.make_revision("org/second", "main"))
    # The event stream tells nothing new of them, and the first one fell silent first.
    await world.execute("UPDATE import_tasks SET sequence = 9, updated_at = now() - interval '1 minute'")
    await world.execute(
        "UPDATE import_tasks SET updated_at = now() - interval '1 hour' WHERE id = :id", id=first.id
    )
    world.near.refuse_task[first.id] = errors.Internal("a fault of the proxy")
    async with reconciling(world):
        await until(lambda: second.id in world.near.asked)


async def test_a_cancel_without_an_answer_is_repeated(world: World) -> None:
    task = await imported(world)
    world.near.refuse["cancel_import"] = errors.Unavailable("not now")
    await world.service().cancel_task(world.user_a, task.id)
    await world.execute("UPDATE import_tasks SET cancel_requested_at = now() - interval '1 minute'")
    async with reconciling(world):
        await asyncio.sleep(0.2)
        assert world.near.cancels == []
        world.near.refuse.clear()
        await until(lambda: task.id in world.near.cancels)
        await world.near.report(task.id, "cancelled")
        await reached(world, task.id, ImportTaskStatus.CANCELLED)


async def test_a_cancel_of_what_the_proxy_does_not_know_cancels_here(world: World) -> None:
    task = await imported(world, into_folder=False)
    await world.service().cancel_task(world.admin, task.id)
    await world.execute("UPDATE import_tasks SET cancel_requested_at = now() - interval '1 minute'")
    world.near.lose_database()
    async with reconciling(world):
        await reached(world, task.id, ImportTaskStatus.CANCELLED)
    assert (await world.revision_row(world.revision)).status is ArtifactStatus.SCANNED
    assert world.near.received == [task.id]


# Events.


async def test_every_part_of_a_report_reaches_the_task(world: World) -> None:
    task = await imported(world)
    async with reconciling(world):
        commit = commit_of("org/model@main")
        progress: dict[str, Any] = {
            "step": "download",
            "files_done": 1,
            "files_total": 2,
            "bytes_done": 4,
            "bytes_total": 10,
        }
        await world.near.report(task.id, bytes_per_second=2.5, commit=commit, **progress)
        running = await reached(world, task.id, ImportTaskStatus.RUNNING)
        assert running.step is ImportStep.DOWNLOAD
        assert (running.files_done, running.files_total) == (1, 2)
        assert (running.bytes_done, running.bytes_total, running.bytes_per_second) == (4, 10, 2.5)
        assert running.commit == commit
        assert running.started_at is not None
        fault = {"code": "DIGEST_MISMATCH", "message": "a.bin\0 is not what it was", "step": "verify"}
        await world.near.report(
            task.id, "failed", step="verify", commit=commit, error=fault, verification=VERIFIED
        )
        failed = await reached(world, task.id, ImportTaskStatus.FAILED)
    assert failed.error == {**fault, "message": "a.bin\ufffd is not what it was"}
    assert failed.verification is not None
    assert failed.verification["verifiers"][0]["name"] == "integrity"
    assert failed.finished_at is not None


async def test_a_success_in_the_artifact_storage_makes_the_revision_available(world: World) -> None:
    task = await imported(world, into_folder=False)
    commit = commit_of("org/model@main")
    async with reconciling(world):
        await world.near.report(task.id, step="download", commit=commit)
        await reached(world, task.id, ImportTaskStatus.RUNNING)
        assert (await world.revision_row(world.revision)).status is ArtifactStatus.PULLING
        await world.near.report(task.id, "succeeded", commit=commit, verification=VERIFIED, **DONE)
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)
    revision = await world.revision_row(world.revision)
    assert (revision.status, revision.stored_commit) == (ArtifactStatus.AVAILABLE, commit)
    assert revision.verification is not None
    (again,) = await world.service().import_revisions(world.admin, [world.revision], None, PLAIN)
    assert again.task is None


async def test_a_vfolders_task_leaves_the_shared_revision_alone(world: World) -> None:
    task = await imported(world)
    before = await world.revision_row(world.revision)
    async with reconciling(world):
        await world.near.report(task.id, "succeeded", commit=commit_of("x"), verification=VERIFIED, **DONE)
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)
    after = await world.revision_row(world.revision)
    assert [getattr(after, name) for name in after.__table__.columns.keys()] == [  # noqa: SIM118 -- keys() of a collection that iterates columns
        getattr(before, name)
        for name in before.__table__.columns.keys()  # noqa: SIM118 -- as above
    ]


async def test_a_scan_meanwhile_leaves_the_archive_behind_and_visibly_so(world: World) -> None:
    task = await imported(world, into_folder=False)
    await world.execute("UPDATE artifact_revisions SET digest = :moved", moved=commit_of("moved"))
    async with reconciling(world):
        await world.near.report(task.id, "succeeded", commit=commit_of("org/model@main"))
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)
    (again,) = await world.service().import_revisions(world.admin, [world.revision], None, PLAIN)
    assert again.task is not None


async def test_a_finished_task_never_changes_and_the_proxy_is_told_to_stop(world: World) -> None:
    await world.near.stop()
    task = await imported(world)
    await world.service().cancel_task(world.user_a, task.id)
    before = await world.task(task.id)
    await world.near.start()
    async with reconciling(world):
        # The order had reached the proxy after all.
        await world.near.report(task.id, step="download", bytes_done=5)
        await until(lambda: task.id in world.near.cancels)
        last = await world.near.report(task.id, "succeeded")
        await taken(world, last.sequence)
    after = await world.task(task.id)
    assert (after.status, after.updated_at) == (ImportTaskStatus.CANCELLED, before.updated_at)


async def test_an_older_report_changes_nothing(world: World) -> None:
    task = await imported(world)
    newest = await world.near.report(task.id, step="verify", **DONE)
    async with reconciling(world):
        await taken(world, newest.sequence)
    await world.execute("UPDATE storage_proxies SET last_event_id = 0")
    world.near.reports[task.id] = newest.model_copy(update={"sequence": 1, "bytes_done": 1})
    world.near.followed.clear()
    async with reconciling(world):
        await taken(world, 1)
    assert (await world.task(task.id)).bytes_done == 10


async def test_a_task_of_one_proxy_cannot_be_changed_by_another(world: World) -> None:
    task = await imported(world)
    async with reconciling(world):
        await world.far.report(task.id, "succeeded")
        await world.near.report(task.id, step="download")
        await reached(world, task.id, ImportTaskStatus.RUNNING)

        async def far_was_followed() -> bool:
            async with world.database.read() as session:
                row = await session.get(StorageProxy, "far")
                return row is not None and row.last_event_id == 1

        await until(far_was_followed)
    assert (await world.task(task.id)).status is ImportTaskStatus.RUNNING


async def test_the_stream_is_resumed_where_it_was_left(world: World) -> None:
    task = await imported(world)
    async with reconciling(world):
        last = await world.near.report(task.id, step="download")
        await taken(world, last.sequence)
    while_away = await world.near.report(task.id, "succeeded")
    async with reconciling(world):
        await taken(world, while_away.sequence)
    assert world.near.followed == [0, last.sequence]
    assert (await world.task(task.id)).status is ImportTaskStatus.SUCCEEDED


async def test_a_proxy_that_restarts_is_followed_again(world: World) -> None:
    task = await imported(world)
    async with reconciling(world):
        await until(lambda: bool(world.near.followed))
        await world.near.stop()
        await world.near.start()
        await world.near.report(task.id, "succeeded")
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)


async def test_one_of_several_managers_follows_a_proxy_and_another_takes_over(world: World) -> None:
    task = await imported(world)
    async with reconciling(world):
        await until(lambda: len(world.near.followed) == 1)
        async with reconciling(world):
            await asyncio.sleep(0.3)
            assert len(world.near.followed) == 1
    async with reconciling(world):
        await world.near.report(task.id, "succeeded")
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)


async def test_a_cancel_ends_it_though_a_fault_comes_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def failing(*_arguments: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise errors.Internal("a fault in the same moment")

    monkeypatch.setattr(Reconciler, "_follow", failing)
    running = asyncio.create_task(Reconciler(world.database, world.settings, world.proxies).run())
    await begun.wait()
    running.cancel()
    ended, _ = await asyncio.wait([running], timeout=20)
    assert ended


async def test_every_change_is_announced(world: World, manager_database_url: str) -> None:
    heard: list[str] = []

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        heard.append(str(payload))

    listener: Any = await asyncpg.connect(manager_database_url)
    await listener.add_listener("stowage_import_task", hear)
    task = await imported(world)
    async with reconciling(world):
        await world.near.report(task.id, "succeeded")
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)
        await until(lambda: str(task.id) in heard)
    await listener.close()


# What was lost.


async def test_an_import_that_the_proxy_forgot_is_ordered_again(world: World) -> None:
    task = await imported(world)
    last = await world.near.report(task.id, step="download", bytes_done=5)
    async with reconciling(world):
        await taken(world, last.sequence)
        world.near.lose_database()
        await until(lambda: world.near.received == [task.id, task.id])
        await world.near.report(task.id, "succeeded")
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)


async def test_a_proxy_that_begins_its_sequence_anew_is_believed(world: World) -> None:
    task = await imported(world)
    for done in range(10):
        last = await world.near.report(task.id, step="download", bytes_done=done)
    async with reconciling(world):
        await taken(world, last.sequence)
    # Not by asking for the state of silent imports.
    patient = world.settings.reconciler.model_copy(update={"silence_limit": 600.0})
    world.settings = world.settings.model_copy(update={"reconciler": patient})
    # The proxy was restored from an older copy of its database, and went on from there.
    world.near.sequence = 3
    await world.near.report(task.id, "succeeded")
    async with reconciling(world):
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)


async def test_the_state_of_a_silent_import_is_asked_for(world: World) -> None:
    task = await imported(world)
    world.near.refuse["import_events"] = errors.Unavailable("no stream today")
    await world.near.report(task.id, "succeeded")
    async with reconciling(world):
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)
    assert world.near.followed == []


async def test_lost_connections_to_postgresql_are_waited_out(
    world: World, postgres_server: PostgresServer, manager_database_url: str
) -> None:
    task = await imported(world)
    name = manager_database_url.rpartition("/")[2]
    async with connections_may_die(), reconciling(world):
        await until(lambda: bool(world.near.followed))
        postgres_server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        postgres_server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        await world.near.report(task.id, "succeeded")
        await asyncio.sleep(0.5)
        postgres_server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await reached(world, task.id, ImportTaskStatus.SUCCEEDED)


# The one table of a revision's states.


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"status": "PENDING"}, "PULLING"),
        ({"status": "RUNNING"}, "PULLING"),
        ({"status": "RUNNING", "step": "DOWNLOAD", "files_done": 1, "files_total": 2}, "PULLING"),
        ({"status": "RUNNING", "step": "DOWNLOAD", "files_done": 2, "files_total": 2}, "PULLED"),
        ({"status": "RUNNING", "step": "VERIFY"}, "VERIFYING"),
        ({"status": "RUNNING", "step": "ARCHIVE"}, "VERIFYING"),
        ({"status": "NEEDS_APPROVAL"}, "NEEDS_APPROVAL"),
        ({"status": "SUCCEEDED"}, "AVAILABLE"),
        ({"status": "SUCCEEDED", "status_before": "FAILED"}, "AVAILABLE"),
        ({"status": "CANCELLED"}, "SCANNED"),
        ({"status": "CANCELLED", "status_before": "FAILED"}, "FAILED"),
        ({"status": "CANCELLED", "status_before": "AVAILABLE"}, "AVAILABLE"),
        ({"status": "FAILED"}, "FAILED"),
        ({"status": "FAILED", "status_before": "FAILED"}, "FAILED"),
        ({"status": "FAILED", "status_before": "AVAILABLE"}, "AVAILABLE"),
        ({"status": "FAILED", "error": {"code": "REJECTED"}}, "REJECTED"),
        ({"status": "FAILED", "error": {"code": "DISK_FULL"}}, "FAILED"),
    ],
)
def test_the_revisions_status_follows_the_task(task: dict[str, Any], expected: str) -> None:
    row = ImportTask(
        status=ImportTaskStatus(task["status"]),
        step=ImportStep(task["step"]) if "step" in task else None,
        files_done=task.get("files_done", 0),
        files_total=task.get("files_total"),
        status_before=ArtifactStatus(task.get("status_before", "SCANNED")),
        error=task.get("error"),
    )
    assert revision_status(row) == expected
