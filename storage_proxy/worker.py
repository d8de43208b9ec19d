"""The process that runs imports. Several may serve one proxy; each takes jobs from the queue and can die any time."""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from proxy_client.loading import loading

with loading():
    import anyio
    import structlog
    import uvloop
    from pgqueuer.core.qm import QueueManager
    from pgqueuer.domain.errors import RetryRequested
    from pgqueuer.domain.models import Context, Job

    from proxy_client import logs
    from proxy_client.errors import AttemptsExhausted, Internal, Rejected, StowageError, Unavailable
    from proxy_client.wire import ArtifactStorageImportStep, ImportFault, ImportState
    from storage_proxy.auth import ImportCancelled
    from storage_proxy.imports.approvals import ApprovalNeeded
    from storage_proxy.imports.jobs import DATABASE_AWAY, ENTRYPOINT, Attempt, CancelRequested, LeaseLost
    from storage_proxy.imports.progress import ImportProgress
    from storage_proxy.settings import Settings, load_settings
    from storage_proxy.site import Site

log = structlog.get_logger()

DEQUEUE_SECONDS = 1.0
ADOPT_SECONDS = 1.0
LIVE_SECONDS = 5.0
RECONNECT_SECONDS = 0.5
ABANDONED_SECONDS = 600.0


@dataclass
class Worker:
    """Runs imports until `stop` is set. An import that is cut short by that goes back to the queue as it is."""

    site: Site
    stop: asyncio.Event
    _running: set[anyio.CancelScope] = field(default_factory=set)

    async def run(self) -> None:
        """Serve the queue; a lost database is waited for, and everything goes on when it is back."""
        complained = False
        while not self.stop.is_set():
            try:
                async with self.site.jobs.queue_manager() as (manager, lost):
                    complained = False
                    await self._serve(manager, lost)
            except DATABASE_AWAY as exc:
                if not complained:
                    log.warning("the database is away; the worker waits for it", reason=type(exc).__name__)
                complained = True
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _serve(self, manager: QueueManager, lost: asyncio.Event) -> None:
        settings = self.site.settings.worker

        async def handle(job: Job, context: Context) -> None:
            await self._handle(job, context, manager.queue_manager_id)

        manager.entrypoint(ENTRYPOINT, accepts_context=True)(handle)
        guards = [
            asyncio.create_task(self._end_with(manager, self.stop)),
            asyncio.create_task(self._end_with(manager, lost)),
            asyncio.create_task(self._adopt(manager)),
        ]
        try:
            await manager.run(
                dequeue_timeout=timedelta(seconds=DEQUEUE_SECONDS),
                batch_size=1,
                max_concurrent_tasks=settings.concurrency,
                heartbeat_timeout=timedelta(seconds=settings.lease_seconds),
                log_aggregation_interval=timedelta(0),
            )
        finally:
            for guard in guards:
                guard.cancel()
            await asyncio.gather(*guards, return_exceptions=True)

    async def _end_with(self, manager: QueueManager, event: asyncio.Event) -> None:
        """End the manager and every running import with the event: PgQueuer itself would wait for them."""
        await event.wait()
        manager.shutdown.set()
        for scope in self._running:
            scope.cancel()

    async def _adopt(self, manager: QueueManager) -> None:
        while True:
            try:
                await self.site.jobs.adopt_orphans(manager.queue_manager_id)
                for task_id in await self.site.approvals.give_up():
                    log.info("nobody approved an import in time", task_id=str(task_id))
                self.site.share.workers = max(1, await self.site.jobs.live_workers(LIVE_SECONDS))
            except (Unavailable, *DATABASE_AWAY):
                log.warning("the database is away; dead workers' imports are looked for later")
            except Exception:
                # One round ends here. Without the next ones this worker would look dead, and adopt nobody's imports.
                log.exception("dead workers' imports could not be looked for")
            await asyncio.sleep(ADOPT_SECONDS)

    async def clear_up(self) -> None:
        """Look every now and then for what dead workers left in artifact storages, and nobody will finish."""
        while True:
            for storage in self.site.storage_pool:
                try:
                    # What is younger than these are stays anyway.
                    count = await storage.remove_abandoned(await self.site.jobs.open_tasks())
                except StowageError as exc:
                    log.warning("abandoned uploads are looked for later", storage=storage.name, code=exc.code)
                except Exception:
                    # One round ends here; without the next ones a bucket would fill with what nobody sees.
                    log.exception("abandoned uploads could not be looked for", storage=storage.name)
                else:
                    if count:
                        log.info("abandoned uploads were removed", storage=storage.name, count=count)
            await asyncio.sleep(ABANDONED_SECONDS)

    async def _handle(self, job: Job, context: Context, holder: UUID) -> None:
        task_id = UUID((job.payload or b"").decode())
        attempt = await self.site.jobs.start(task_id, holder)
        if attempt is None:
            return
        structlog.contextvars.bind_contextvars(task_id=str(task_id), request_id=attempt.order.request_id)
        stopped = False
        try:
            stopped = not await self._settle(attempt, context.cancellation)
        except LeaseLost:
            log.info("the import goes on elsewhere or later")
        finally:
            await _outlast(lambda: self.site.jobs.let_go(task_id, attempt.fence, forgiven=stopped))
        if stopped:
            raise RetryRequested(timedelta(0), reason="the worker was asked to stop")

    async def _settle(self, attempt: Attempt, scope: anyio.CancelScope) -> bool:
        """Run the attempt and write how it ended. False: it was cut short because this worker stops.

        Raises `LeaseLost` if it is to go on without this worker's word.
        """
        task_id, fence = attempt.order.task_id, attempt.fence
        await _outlast(self.site.entered.refresh)
        if attempt.published:
            # Only the word was missing; the counters are those of the attempt that published.
            await self._discard(attempt)
            await _outlast(lambda: self.site.jobs.finish(task_id, fence, ImportState.SUCCEEDED, {}))
            return True
        progress = ImportProgress(self.site.jobs, task_id, fence)
        state, fault = ImportState.CANCELLED, None
        if not attempt.cancel_requested or attempt.publishing:
            self._running.add(scope)
            try:
                with scope:
                    state, fault = await self._attempt(attempt, progress)
            except CancelRequested:
                log.info("the import is cancelled")
            finally:
                self._running.discard(scope)
        if state is ImportState.NEEDS_APPROVAL:
            try:
                await _outlast(lambda: self.site.approvals.wait(task_id, fence, progress.final()))
            except CancelRequested:
                state = ImportState.CANCELLED
            else:
                log.info("the import waits for an approval")
                return True
        if state is ImportState.CANCELLED and not await self._cancel_wanted(progress):
            if self.stop.is_set():
                return False
            raise LeaseLost
        if state is not ImportState.SUCCEEDED:
            await _outlast(lambda: _fenced(progress))
            await self._discard(attempt)
        changes = {**progress.final(), "error": fault}
        await _outlast(lambda: self.site.jobs.finish(task_id, fence, state, changes))
        log.info("import ended", state=state.value, code=fault.code if fault else None)
        return True

    async def _cancel_wanted(self, progress: ImportProgress) -> bool:
        """Whether somebody really asked: the scope is also cancelled when the database goes away or this worker stops."""
        try:
            await _outlast(progress.held)
        except CancelRequested:
            return True
        return False

    async def _discard(self, attempt: Attempt) -> None:
        try:
            await self.site.pipeline.discard(self.site.pipeline.context(attempt.order))
        except StowageError as exc:
            log.warning("the import's staging could not be looked for", code=exc.code)

    async def _attempt(
        self, attempt: Attempt, progress: ImportProgress
    ) -> tuple[ImportState, ImportFault | None]:
        if attempt.number > self.site.settings.worker.max_attempts:
            text = (
                f"the import was started {attempt.number - 1} times without coming to an end; it is given up"
            )
            return ImportState.FAILED, ImportFault(code=AttemptsExhausted.code, message=text)
        if attempt.refusal is not None:
            step = ArtifactStorageImportStep.VERIFY
            return ImportState.FAILED, ImportFault(code=Rejected.code, message=attempt.refusal, step=step)
        order = attempt.order
        if attempt.commit:
            # What an earlier attempt pinned stays pinned, even if its staging is gone.
            order = order.model_copy(
                update={"model": order.model.model_copy(update={"commit": attempt.commit})}
            )
        try:
            context = self.site.pipeline.context(order)
            await _followed(self.site.pipeline.run(context, progress, attempt.approved), progress)
        except ApprovalNeeded:
            return ImportState.NEEDS_APPROVAL, None
        except StowageError as exc:
            return ImportState.FAILED, ImportFault(code=exc.code, message=exc.message, step=progress.step)
        except ImportCancelled:
            await _outlast(lambda: self.site.jobs.request_cancel(order.task_id))
            return ImportState.CANCELLED, None
        except (CancelRequested, LeaseLost):
            raise
        except Exception:
            log.exception("an import failed in a way that nobody foresaw")
            text = f"internal error; the log has it under request id {order.request_id}"
            return ImportState.FAILED, ImportFault(code=Internal.code, message=text, step=progress.step)
        return ImportState.SUCCEEDED, None


async def _fenced(progress: ImportProgress) -> None:
    """Raise `LeaseLost` if another worker has the import: its staging is not this one's to remove."""
    with contextlib.suppress(CancelRequested):
        await progress.held()


async def _followed(work: Coroutine[Any, Any, None], progress: ImportProgress) -> None:
    """Run the import while its progress is written; what the writing learns (cancel, lost lease) ends the import."""
    running, follower = asyncio.create_task(work), asyncio.create_task(progress.follow())
    try:
        await asyncio.wait({running, follower}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        follower.cancel()
        running.cancel()
        # A cancelled anyio scope cancels every further await; the import must have ended before its staging goes.
        with anyio.CancelScope(shield=True):
            await asyncio.gather(running, follower, return_exceptions=True)
    if running.cancelled() and not follower.cancelled():
        follower.result()
    running.result()


async def _outlast(call: Callable[[], Awaitable[None]]) -> None:
    """Repeat a call until the database answers it."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(RECONNECT_SECONDS)


async def serve(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT; what runs then goes back to the queue."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Site.open(settings) as site:
        worker = Worker(site, stop)
        clearing = asyncio.create_task(worker.clear_up())
        try:
            await worker.run()
        finally:
            clearing.cancel()
            await asyncio.gather(clearing, return_exceptions=True)


def run(config: Path) -> None:
    """Run one worker until SIGTERM or SIGINT. Raises `StowageError` for settings that cannot be used."""
    settings = load_settings(config)
    settings.check_secrets()
    logs.configure("storage-proxy-worker")
    uvloop.run(serve(settings))


def main() -> int:
    """Start a worker: `python -m storage_proxy.worker --config storage-proxy.toml`."""
    parser = argparse.ArgumentParser(prog="python -m storage_proxy.worker", description=main.__doc__)
    parser.add_argument("--config", type=Path, required=True, help="path of storage-proxy.toml")
    try:
        run(parser.parse_args().config)
    except StowageError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
