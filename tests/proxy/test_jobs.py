"""The durable table of imports, and what happens to an import when its worker goes."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from pgqueuer.domain.models import Context, Job

from migrations import migrate_proxy
from proxy_client.errors import Conflict, NotFound, Unavailable
from proxy_client.wire import Finding, ImportOrder, ImportState, VerificationReport, VerifierReport
from storage_proxy.imports.approvals import Approvals, covers
from storage_proxy.imports.jobs import CancelRequested, ImportJobs, LeaseLost
from tests.cancelling import cancel_early_and_late, insist_on_no_connection
from tests.conftest import PostgresServer

pytestmark = pytest.mark.anyio


def flagged(*rules: str) -> VerificationReport:
    findings = [
        Finding(file="a", rule=rule, category="code", severity="flag", message="found") for rule in rules
    ]
    verifier = VerifierReport(
        name="structure",
        status="flagged",
        version="1",
        scanned=1,
        started_at=datetime.now(UTC),
        duration=0.1,
        findings=findings,
    )
    return VerificationReport(verdict="flagged", verifiers=[verifier])


REPORT, OTHER_REPORT = flagged("remote-code"), flagged("remote-code", "template-suspicious")
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


# Approvals.


async def waiting(jobs: ImportJobs, approvals: Approvals) -> uuid.UUID:
    asked = order()
    await jobs.accept(asked)
    attempt = await jobs.start(asked.task_id, uuid.uuid4())
    assert attempt is not None
    await jobs.record(asked.task_id, attempt.fence, {"verification": REPORT})
    await approvals.wait(asked.task_id, attempt.fence, {"files_done": 1})
    await jobs.let_go(asked.task_id, attempt.fence)
    assert await picked(jobs) == [str(asked.task_id)]  # the job of the attempt that just ended
    return asked.task_id


@pytest.fixture
def approvals(jobs: ImportJobs) -> Approvals:
    return Approvals(jobs, timedelta(days=1))


async def test_what_waits_for_an_approval_is_left_alone(jobs: ImportJobs, approvals: Approvals) -> None:
    task_id = await waiting(jobs, approvals)
    report = await jobs.report(task_id)
    assert (report.state, report.files_done) == (ImportState.NEEDS_APPROVAL, 1)
    assert report.approval_until is not None
    assert await jobs.start(task_id, uuid.uuid4()) is None
    assert await approvals.give_up() == []


async def test_an_approval_is_of_the_report_that_was_read(jobs: ImportJobs, approvals: Approvals) -> None:
    task_id = await waiting(jobs, approvals)
    for _ in range(2):
        await approvals.approve(task_id)
    with pytest.raises(Conflict):
        await approvals.reject(task_id, None)
    for _ in range(2):  # an attempt that dies is followed by one that knows of the approval too
        attempt = await jobs.start(task_id, uuid.uuid4())
        assert attempt is not None
        assert (attempt.approved, attempt.refusal) == (REPORT, None)
    await approvals.approve(task_id)
    assert attempt is not None
    await jobs.record(task_id, attempt.fence, {"verification": OTHER_REPORT})
    await approvals.wait(task_id, attempt.fence, {})
    assert await jobs.start(task_id, uuid.uuid4()) is None


@pytest.mark.parametrize("reason", [None, "not ours"])
async def test_a_rejection_ends_the_wait(jobs: ImportJobs, approvals: Approvals, reason: str | None) -> None:
    task_id = await waiting(jobs, approvals)
    for _ in range(2):
        await approvals.reject(task_id, reason)
    with pytest.raises(Conflict):
        await approvals.approve(task_id)
    attempt = await jobs.start(task_id, uuid.uuid4())
    assert attempt is not None
    assert attempt.approved is None
    assert (reason or "administrator") in str(attempt.refusal)


async def test_who_waited_too_long_is_given_up(jobs: ImportJobs) -> None:
    impatient = Approvals(jobs, timedelta(0))
    task_id = await waiting(jobs, impatient)
    assert await impatient.give_up() == [task_id]
    with pytest.raises(Conflict):
        await impatient.approve(task_id)
    attempt = await jobs.start(task_id, uuid.uuid4())
    assert attempt is not None
    assert "in time" in str(attempt.refusal)


async def test_a_cancel_ends_the_wait(jobs: ImportJobs, approvals: Approvals) -> None:
    task_id = await waiting(jobs, approvals)
    await jobs.request_cancel(task_id)
    with pytest.raises(Conflict):
        await approvals.approve(task_id)
    attempt = await jobs.start(task_id, uuid.uuid4())
    assert attempt is not None
    assert attempt.cancel_requested


async def test_an_import_whose_cancel_was_asked_for_does_not_begin_to_wait(
    jobs: ImportJobs, approvals: Approvals
) -> None:
    asked = order()
    await jobs.accept(asked)
    attempt = await jobs.start(asked.task_id, uuid.uuid4())
    assert attempt is not None
    await jobs.request_cancel(asked.task_id)
    with pytest.raises(CancelRequested):
        await approvals.wait(asked.task_id, attempt.fence, {})
    with pytest.raises(LeaseLost):
        await approvals.wait(asked.task_id, attempt.fence - 1, {})
    assert (await jobs.report(asked.task_id)).state is ImportState.RUNNING


async def test_only_what_waits_is_decided(jobs: ImportJobs, approvals: Approvals) -> None:
    asked = order()
    with pytest.raises(NotFound):
        await approvals.approve(asked.task_id)
    await jobs.accept(asked)
    with pytest.raises(Conflict):
        await approvals.approve(asked.task_id)
    with pytest.raises(Conflict):
        await approvals.reject(asked.task_id, None)


def test_an_approval_holds_for_what_was_flagged_then_and_no_more() -> None:
    assert covers(REPORT, REPORT)
    assert covers(OTHER_REPORT, REPORT)
    assert not covers(REPORT, OTHER_REPORT)
    assert not covers(None, REPORT)


async def test_looking_for_what_waited_too_long_wakes_nobody(jobs: ImportJobs, approvals: Approvals) -> None:
    await waiting(jobs, approvals)
    signal = await jobs.listen()
    assert await approvals.give_up() == []
    assert not await signal.wait(0.3)
    signal.close()


async def test_a_listener_that_is_cancelled_loses_no_connection(proxy_database_url: str) -> None:
    async def listen() -> None:
        async with ImportJobs.open(proxy_database_url, SCHEMA) as jobs:
            (await jobs.listen()).close()

    assert await cancel_early_and_late(listen) > 10
    await insist_on_no_connection(proxy_database_url)
