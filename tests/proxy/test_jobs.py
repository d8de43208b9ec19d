"""The durable table of imports, and what happens to an import when its worker goes."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pgqueuer.domain.models import Context, Job

from migrations import migrate_proxy
from proxy_client.errors import Conflict, NotFound, Unavailable
from proxy_client.wire import ImportOrder, ImportState
from storage_proxy.imports.jobs import CancelRequested, ImportJobs, LeaseLost
from tests.conftest import PostgresServer

pytestmark = pytest.mark.anyio
SCHEMA = "stowage_proxy"


def order(task_id: uuid.UUID | None = None, *, path: str = "org/name/main") -> ImportOrder:
    target = {"storage_name": "archive"}
    return ImportOrder.model_validate(
        {
            "task_id": task_id or uuid.uuid4(),
            "request_id": "request-1",
            "requested_by": uuid.uuid4() if task_id is None else uuid.UUID(int=1),
            "registry_name": "hub",
            "model": {"model_id": "org/name", "revision": "main"},
            "storage_step_mappings": {"download": target, "verify": target, "archive": target},
            "path": path,
        }
    )


@pytest.fixture
async def jobs(proxy_database_url: str) -> AsyncIterator[ImportJobs]:
    await migrate_proxy(proxy_database_url, SCHEMA)
    async with ImportJobs.open(proxy_database_url, SCHEMA) as opened:
        yield opened


async def picked(jobs: ImportJobs) -> list[str]:
    """The task ids that a new worker would get now."""
    lease = timedelta(seconds=60)
    async with jobs.queue_manager() as (manager, _lost):

        async def nothing(_job: object) -> None: ...

        manager.entrypoint("import")(nothing)
        return [(job.payload or b"").decode() async for job in manager.fetch_jobs(10, None, lease)]


async def test_the_same_order_twice_is_one_job(jobs: ImportJobs) -> None:
    asked = order(uuid.uuid4())
    await jobs.accept(asked)
    await jobs.accept(asked)
    assert await picked(jobs) == [str(asked.task_id)]


async def test_the_same_id_with_another_body_is_a_conflict(jobs: ImportJobs) -> None:
    task_id = uuid.uuid4()
    await jobs.accept(order(task_id))
    with pytest.raises(Conflict, match="another body"):
        await jobs.accept(order(task_id, path="elsewhere"))


async def test_an_unknown_import_is_not_found(jobs: ImportJobs) -> None:
    with pytest.raises(NotFound):
        await jobs.report(uuid.uuid4())
    with pytest.raises(NotFound):
        await jobs.request_cancel(uuid.uuid4())


async def test_a_newer_attempt_fences_the_older_one(jobs: ImportJobs) -> None:
    asked = order()
    await jobs.accept(asked)
    first = await jobs.start(asked.task_id, uuid.uuid4())
    second = await jobs.start(asked.task_id, uuid.uuid4())
    assert first is not None
    assert second is not None
    with pytest.raises(LeaseLost):
        await jobs.record(asked.task_id, first.fence, {"bytes_done": 5})
    with pytest.raises(LeaseLost):
        await jobs.finish(asked.task_id, first.fence, ImportState.FAILED, {})
    await jobs.record(asked.task_id, second.fence, {"bytes_done": 7})
    assert (await jobs.report(asked.task_id)).bytes_done == 7


async def test_a_terminal_import_never_changes(jobs: ImportJobs) -> None:
    asked = order()
    await jobs.accept(asked)
    attempt = await jobs.start(asked.task_id, uuid.uuid4())
    assert attempt is not None
    await jobs.finish(asked.task_id, attempt.fence, ImportState.SUCCEEDED, {})
    before = await jobs.report(asked.task_id)
    await jobs.request_cancel(asked.task_id)
    assert await jobs.start(asked.task_id, uuid.uuid4()) is None
    with pytest.raises(LeaseLost):
        await jobs.record(asked.task_id, attempt.fence, {"bytes_done": 1})
    assert await jobs.report(asked.task_id) == before


async def test_a_cancel_before_the_start_ends_the_import_at_once(jobs: ImportJobs) -> None:
    asked = order()
    await jobs.accept(asked)
    await jobs.request_cancel(asked.task_id)
    assert (await jobs.report(asked.task_id)).state is ImportState.CANCELLED
    assert await jobs.start(asked.task_id, uuid.uuid4()) is None


async def test_a_running_attempt_hears_of_a_cancel(jobs: ImportJobs) -> None:
    asked = order()
    await jobs.accept(asked)
    attempt = await jobs.start(asked.task_id, uuid.uuid4())
    assert attempt is not None
    await jobs.request_cancel(asked.task_id)
    with pytest.raises(CancelRequested):
        await jobs.check(asked.task_id, attempt.fence)
    with pytest.raises(CancelRequested):
        await jobs.begin_publishing(asked.task_id, attempt.fence)


async def test_a_cancel_during_publishing_comes_too_late(jobs: ImportJobs) -> None:
    asked = order()
    await jobs.accept(asked)
    attempt = await jobs.start(asked.task_id, uuid.uuid4())
    assert attempt is not None
    await jobs.begin_publishing(asked.task_id, attempt.fence)
    await jobs.request_cancel(asked.task_id)
    await jobs.check(asked.task_id, attempt.fence)


async def test_every_change_is_seen_after_the_one_before(jobs: ImportJobs) -> None:
    orders = [order() for _ in range(3)]
    for asked in orders:
        await jobs.accept(asked)
    seen = await jobs.changes_after(0)
    assert [report.task_id for report in seen] == [asked.task_id for asked in orders]
    attempt = await jobs.start(orders[0].task_id, uuid.uuid4())
    assert attempt is not None
    (changed,) = await jobs.changes_after(seen[-1].sequence)
    assert (changed.task_id, changed.state) == (orders[0].task_id, ImportState.RUNNING)


async def test_a_change_wakes_the_listener(jobs: ImportJobs) -> None:
    signal = await jobs.listen()
    try:
        assert not await signal.wait(0.01)
        await jobs.accept(order())
        assert await signal.wait(5)
    finally:
        signal.close()


async def test_any_number_of_listeners_leaves_room_for_requests(jobs: ImportJobs) -> None:
    signals = [await jobs.listen() for _ in range(20)]
    await asyncio.wait_for(jobs.accept(order()), 10)
    assert all([await signal.wait(5) for signal in signals])
    for signal in signals:
        signal.close()


async def test_a_lost_listener_says_so_and_the_next_one_hears_again(
    jobs: ImportJobs, postgres_server: PostgresServer
) -> None:
    signal = await jobs.listen()
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    )
    with pytest.raises(Unavailable):
        await signal.wait(10)
    signal.close()
    again = await jobs.listen()
    await jobs.accept(order())
    assert await again.wait(5)
    again.close()


async def test_the_job_of_a_dead_worker_is_free_at_once(jobs: ImportJobs) -> None:
    asked = order()
    await jobs.accept(asked)
    assert await picked(jobs) == [str(asked.task_id)]  # and that worker's connection is gone now
    assert await picked(jobs) == []  # its lease of a minute is not over
    await jobs.adopt_orphans(uuid.uuid4())
    assert await picked(jobs) == [str(asked.task_id)]


async def test_an_open_import_without_a_job_is_queued_again(
    jobs: ImportJobs, proxy_database_url: str
) -> None:
    asked = order()
    await jobs.accept(asked)
    async with jobs._pool.acquire() as connection:
        await connection.execute(f"DELETE FROM {SCHEMA}_pgqueuer")
    await jobs.adopt_orphans(uuid.uuid4())
    assert await picked(jobs) == [str(asked.task_id)]


async def test_an_import_that_a_live_worker_holds_is_not_adopted(jobs: ImportJobs) -> None:
    asked = order()
    await jobs.accept(asked)
    async with jobs.queue_manager() as (manager, _lost):
        attempt = await jobs.start(asked.task_id, manager.queue_manager_id)
        assert attempt is not None
        async with jobs._pool.acquire() as connection:
            await connection.execute(f"DELETE FROM {SCHEMA}_pgqueuer")
        await jobs.adopt_orphans(uuid.uuid4())
        assert await picked(jobs) == []
        await jobs.let_go(asked.task_id, attempt.fence)
        await jobs.adopt_orphans(uuid.uuid4())
        assert await picked(jobs) == [str(asked.task_id)]


async def test_progress_forgives_earlier_attempts(jobs: ImportJobs) -> None:
    asked = order()
    await jobs.accept(asked)
    for _ in range(3):
        attempt = await jobs.start(asked.task_id, uuid.uuid4())
    assert attempt is not None
    assert attempt.number == 3
    await jobs.record(asked.task_id, attempt.fence, {"bytes_done": 0})
    assert (await jobs.report(asked.task_id)).attempts == 3
    await jobs.record(asked.task_id, attempt.fence, {"bytes_done": 1})
    assert (await jobs.report(asked.task_id)).attempts == 1


async def test_two_proxies_in_one_database_keep_apart(jobs: ImportJobs, proxy_database_url: str) -> None:
    await migrate_proxy(proxy_database_url, "other_proxy")
    async with ImportJobs.open(proxy_database_url, "other_proxy") as other:
        mine, theirs = order(), order()
        await jobs.accept(mine)
        await other.accept(theirs)
        async with other.queue_manager() as (manager, _lost):
            ran = asyncio.Event()
            enough = asyncio.Event()
            contexts = []

            async def run(_job: Job, context: Context) -> None:
                contexts.append(context)
                ran.set()
                await enough.wait()

            manager.entrypoint("import", accepts_context=True)(run)
            loop = asyncio.create_task(manager.run())
            await asyncio.wait_for(ran.wait(), 10)
            attempt = await jobs.start(mine.task_id, uuid.uuid4())
            assert attempt is not None
            await jobs.request_cancel(mine.task_id)
            await asyncio.sleep(0.3)
            assert not contexts[0].cancellation.cancel_called
            assert [report.task_id for report in await other.changes_after(0)] == [theirs.task_id]
            enough.set()
            manager.shutdown.set()
            await loop
