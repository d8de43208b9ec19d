"""How far one import is: counted in memory by the steps, written to the database a few times a second."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import structlog

from proxy_client.errors import Unavailable
from proxy_client.wire import ArtifactStorageImportStep, VerificationReport
from storage_proxy.imports.jobs import ImportJobs

log = structlog.get_logger()

# A subscriber of the manager hears of a change within a second; these leave most of that to the way there.
WRITE_INTERVAL = 0.25
CHECK_INTERVAL = 0.5
RATE_WINDOW = 5.0


class ImportProgress:
    """The counters of one attempt. Steps call the synchronous methods as often as they like, from any thread.

    `pin`, `plan`, `enter` and `verified` are durable when they return.
    """

    def __init__(self, jobs: ImportJobs, task_id: UUID, fence: int) -> None:
        self._jobs = jobs
        self._task_id = task_id
        self._fence = fence
        self._lock = threading.Lock()
        self._files_done = 0
        self._bytes_done = 0
        self._received = 0
        self._bytes_reused = 0
        self._written: dict[str, Any] = {}
        self._samples: list[tuple[float, int]] = [(time.monotonic(), 0)]
        self.step: ArtifactStorageImportStep | None = None

    def file_done(self) -> None:
        """Count a file that is whole and has the right digest."""
        with self._lock:
            self._files_done += 1

    def have(self, size: int) -> None:
        """Count bytes that were there before this attempt; negative where they turn out to be no use."""
        with self._lock:
            self._bytes_done += size

    def reused(self, size: int) -> None:
        """Count bytes that were copied from what the proxy has."""
        with self._lock:
            self._bytes_done += size
            self._bytes_reused += size

    def received(self, size: int) -> None:
        """Count bytes from the registry; they make the rate."""
        with self._lock:
            self._bytes_done += size
            self._received += size

    async def pin(self, commit: str) -> None:
        """Report the commit that everything from here on is taken from."""
        await self._insist({"commit": commit})

    async def plan(self, files_total: int, bytes_total: int) -> None:
        """Report how much there is to do."""
        await self._insist({"files_total": files_total, "bytes_total": bytes_total})

    async def enter(self, step: ArtifactStorageImportStep) -> None:
        """Report the step that begins."""
        self.step = step
        await self._insist({**self._counters(), "step": step.value})

    async def verified(self, report: VerificationReport) -> None:
        """Store the verifiers' report."""
        await self._insist({**self._counters(), "verification": report})

    async def begin_publishing(self) -> None:
        """Pass the point of no return. Raises `CancelRequested` or `LeaseLost`."""
        await self._outlast(lambda: self._jobs.begin_publishing(self._task_id, self._fence))

    async def published(self) -> None:
        """Report that everything is visible: from here on the import can only succeed."""
        await self._insist({**self._counters(), "published": True})

    async def held(self) -> None:
        """Raise `LeaseLost` or `CancelRequested` if this attempt should end."""
        await self._jobs.check(self._task_id, self._fence)

    def final(self) -> dict[str, Any]:
        """Return the counters for the last write."""
        return self._counters()

    async def follow(self) -> None:
        """Write what changed until cancelled. Raises `LeaseLost` or `CancelRequested`.

        A database that is away for a while is waited for: the bytes go on meanwhile, and the fence tells
        afterwards whether the import is still this worker's.
        """
        checked = time.monotonic()
        while True:
            await asyncio.sleep(WRITE_INTERVAL)
            now = self._counters()
            rate = self._rate()
            try:
                if any(self._written.get(column) != value for column, value in now.items()):
                    await self._write({**now, "bytes_per_second": rate})
                elif time.monotonic() - checked > CHECK_INTERVAL:
                    await self.held()
                else:
                    continue
                checked = time.monotonic()
            except Unavailable:
                log.warning("the database is away; the import goes on", task_id=str(self._task_id))
                await asyncio.sleep(CHECK_INTERVAL)

    def _counters(self) -> dict[str, Any]:
        return {
            "files_done": self._files_done,
            "bytes_done": self._bytes_done,
            "bytes_reused": self._bytes_reused,
        }

    def _rate(self) -> float:
        now = time.monotonic()
        self._samples.append((now, self._received))
        while len(self._samples) > 2 and now - self._samples[1][0] > RATE_WINDOW:  # noqa: PLR2004 -- keep a pair
            del self._samples[0]
        since, before = self._samples[0]
        return (self._received - before) / max(now - since, 1e-3)

    async def _insist(self, changes: dict[str, Any]) -> None:
        await self._outlast(lambda: self._write(changes))

    @staticmethod
    async def _outlast(write: Callable[[], Awaitable[None]]) -> None:
        """Repeat a write until the database takes it: its absence is no reason to fail an import."""
        while True:
            try:
                return await write()
            except Unavailable:
                await asyncio.sleep(CHECK_INTERVAL)

    async def _write(self, changes: dict[str, Any]) -> None:
        await self._jobs.record(self._task_id, self._fence, changes)
        self._written.update(changes)
