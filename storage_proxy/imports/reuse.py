"""Bringing files that the proxy has already: copied from an artifact storage, or from what another import stages.

Two imports of one revision fetch it once: the younger one waits for the files that the older one is fetching, as long as those
grow. A copy is hashed like anything else, and what cannot be had this way is fetched.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from proxy_client.errors import StowageError
from proxy_client.wire import ArtifactStorageImportStep
from storage_proxy.concurrency import together
from storage_proxy.imports.context import ImportStepContext, open_targets
from storage_proxy.imports.holdings import Held, Holdings, Neighbour
from storage_proxy.imports.progress import ImportProgress
from storage_proxy.imports.relay import copy_local, copy_stream
from storage_proxy.storages.base import AbstractStorage, Digests, ImportPlan, PlannedFile, StagingArea
from storage_proxy.volumes.pool import VolumePool
from storage_proxy.volumes.threads import in_thread

log = structlog.get_logger()

_LOOK = 0.1  # seconds between two looks at what a neighbour has staged
_REFRESH = 0.5  # seconds between two looks at which neighbours are still at work
_PATIENCE = 30.0  # seconds for which a neighbour may make no progress
_SMALL = 8 << 20  # bytes up to which a file is copied at once; larger ones in the background


@dataclass
class _Source:
    """A neighbour's staging area, seen from outside."""

    neighbour: Neighbour
    storage: AbstractStorage
    files: dict[tuple[int, str | None, str | None], PlannedFile]
    bytes_done: int = 0
    grew: float = field(default_factory=time.monotonic)

    @property
    def task_id(self) -> UUID:
        return self.neighbour.order.task_id

    def open(self, wanted: PlannedFile) -> int | None:
        """Open the neighbour's copy if it is whole. Blocks."""
        return self.storage.open_staged(self.task_id, self.files[_key(wanted)])


def _key(file: PlannedFile) -> tuple[int, str | None, str | None]:
    return file.size, file.sha256, None if file.sha256 else file.blob_id


@dataclass
class Reuse:
    """One import's copies. `arrived` is called with each file that is whole and right."""

    holdings: Holdings
    volume_pool: VolumePool
    context: ImportStepContext
    staging: StagingArea
    progress: ImportProgress
    arrived: Callable[[PlannedFile, Digests], None]

    async def held(self, wanted: Sequence[PlannedFile]) -> list[PlannedFile]:
        """Copy what artifact storages hold; return the files that are still missing."""
        found = await self.holdings.find(wanted)
        missing = []
        for file in wanted:
            for place in found.get(file.path, ()):
                if await self._copy_held(file, place):
                    break
            else:
                missing.append(file)
        return missing

    async def _copy_held(self, file: PlannedFile, place: Held) -> bool:
        try:
            storage = self.context.storage_pool.get_storage(place.storage)
            fd = await in_thread(storage.open_local, place.path)
            if fd is not None:
                return await self.take(file, fd)
            if not storage.local:
                return await self._download(file, storage, place.path)
        except StowageError as exc:
            log.info("a file that was held cannot be copied", storage=place.storage, code=exc.code)
        await self.holdings.forget(place)
        return False

    async def _download(self, file: PlannedFile, storage: AbstractStorage, path: str) -> bool:
        return await self._checked(file, await copy_stream(storage.stream_download(path), file, self.staging))

    async def _checked(self, file: PlannedFile, found: Digests) -> bool:
        if not file.matches(found):
            await self.staging.drop(file.path)
            return False
        self.progress.reused(file.size)
        self.progress.file_done()
        self.arrived(file, found)
        return True

    # What other imports stage.

    async def split(
        self, plan: ImportPlan, wanted: Sequence[PlannedFile]
    ) -> tuple[list[PlannedFile], "Awaited"]:
        """Return the files to fetch now, and those that an older import has or is about to have."""
        sources = []
        for neighbour in await self.holdings.neighbours(plan.task_id):
            source = await self._source(neighbour) if neighbour.older else None
            if source is not None:
                sources.append(source)
        awaited = {
            file.path: (file, source)
            for source in reversed(sources)
            for file in wanted
            if file.size and _key(file) in source.files
        }
        now = [file for file in wanted if file.path not in awaited]
        return now, Awaited(self, plan.task_id, list(awaited.values()))

    async def _source(self, neighbour: Neighbour) -> _Source | None:
        order = neighbour.order
        try:
            targets = open_targets(order, self.volume_pool)
            storage = targets[ArtifactStorageImportStep.DOWNLOAD].resolve(self.context.storage_pool)
            plan = await storage.staged_plan(order.task_id)
        except StowageError:
            return None
        return (
            None if plan is None else _Source(neighbour, storage, {_key(file): file for file in plan.files})
        )

    async def take(self, file: PlannedFile, fd: int) -> bool:
        """Copy an open local file, and close it; whether it is what it should be."""
        try:
            if os.fstat(fd).st_size != file.size:
                return False
            return await self._checked(file, await in_thread(copy_local, fd, file, self.staging))
        finally:
            os.close(fd)


class Awaited:
    """Files that an older import is fetching."""

    def __init__(self, reuse: Reuse, task_id: UUID, files: list[tuple[PlannedFile, _Source]]) -> None:
        self._reuse = reuse
        self._task_id = task_id
        self._pending = files
        self._told: set[UUID] = set()
        self._missing: list[PlannedFile] = []
        self._open: asyncio.Queue[tuple[PlannedFile, int] | None] = asyncio.Queue()

    async def bring(self) -> list[PlannedFile]:
        """Copy each file once it is whole; return those that did not come. Nobody waits for an import that stands still."""
        if not self._pending:
            return []
        try:
            await together(self._watch(), self._copy())
        finally:
            while not self._open.empty():
                if (waiting := self._open.get_nowait()) is not None:
                    os.close(waiting[1])
            with suppress(StowageError):
                await self._reuse.holdings.wait_for(self._task_id, [])
        return self._missing

    async def _watch(self) -> None:
        """Open what is whole as soon as it is: open, it stays readable when the older import publishes or ends."""
        looked = 0.0
        while self._pending:
            await self._tell()
            pending, self._pending = self._pending, []
            for file, source in pending:
                fd = await in_thread(source.open, file)
                if fd is None:
                    self._pending.append((file, source))
                elif file.size > _SMALL:
                    self._open.put_nowait((file, fd))
                elif not await self._reuse.take(file, fd):
                    self._missing.append(file)
            if self._pending and time.monotonic() - looked > _REFRESH:
                looked = time.monotonic()
                await self._give_up_on_who_is_gone()
            if self._pending:
                await asyncio.sleep(_LOOK)
        await self._tell()
        self._open.put_nowait(None)

    async def _tell(self) -> None:
        """Let the older imports know that they are waited for, and when they no longer are."""
        wanted = {source.task_id for _, source in self._pending}
        if wanted != self._told:
            await self._reuse.holdings.wait_for(self._task_id, wanted)
            self._told = wanted

    async def _give_up_on_who_is_gone(self) -> None:
        alive = {
            neighbour.order.task_id: neighbour.bytes_done
            for neighbour in await self._reuse.holdings.neighbours(self._task_id)
        }
        now = time.monotonic()
        pending, self._pending = self._pending, []
        for file, source in pending:
            if alive.get(source.task_id, 0) > source.bytes_done:
                source.bytes_done, source.grew = alive[source.task_id], now
            if source.task_id in alive and now - source.grew < _PATIENCE:
                self._pending.append((file, source))
            else:
                self._missing.append(file)

    async def _copy(self) -> None:
        while (ready := await self._open.get()) is not None:
            file, fd = ready
            if not await self._reuse.take(file, fd):
                self._missing.append(file)
