"""A staging area in a directory, as the import's steps see it."""

import hashlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import NamedTuple

from proxy_client.errors import StorageError
from storage_proxy.storages.base import Digests, ImportPlan, PlannedFile, StagedWriter, StagingArea
from storage_proxy.volumes import fsio, threads
from storage_proxy.volumes.area import TREE, Area
from storage_proxy.volumes.paths import check_path, shown
from storage_proxy.volumes.threads import in_thread
from storage_proxy.volumes.writer import DirectoryWriter

# A batch of small files that one round of syncs makes durable; so many may be under way before who writes has to wait.
_BATCH_FILES = 128
_BATCH_BYTES = 32 << 20
_BATCHES = 2
_SYNCS = 8  # side by side


class _Small(NamedTuple):
    path: str
    fd: int
    digests: Digests


def _sync(batch: Iterable[_Small]) -> None:
    for small in batch:
        fsio.fdatasync(small.fd)


class DirectoryStaging(StagingArea):
    """A staging area in a directory; `give_back` undoes a publish that began and was not finished."""

    def __init__(self, area: Area, give_back: Callable[[], None]) -> None:
        self._area = area
        self._give_back = give_back
        self._lock = threading.Lock()
        self._batch: list[_Small] = []
        self._batch_bytes = 0
        self._durable: deque[Future[None]] = deque()
        self._open_area = -1

    def __del__(self) -> None:
        # An attempt that broke off settles nothing; its descriptors must go all the same.
        self._close()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        for small in self._take():
            os.close(small.fd)
        if self._open_area >= 0:
            os.close(self._open_area)
            self._open_area = -1

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the area, which stays open for all small files of an attempt: a walk for each costs as much as its bytes."""
        with self._lock:
            if self._open_area < 0:
                with self._area.open() as area:
                    self._open_area = os.dup(area)
            area = os.dup(self._open_area)
        try:
            self._area.insist_on_claim(area)
            yield area
        finally:
            os.close(area)

    async def load_plan(self) -> ImportPlan | None:
        with fsio.translated("reading the import's plan"):
            return await in_thread(self._area.load_plan)

    async def save_plan(self, plan: ImportPlan) -> None:
        with fsio.translated("saving the import's plan"):
            await in_thread(self._area.save_plan, plan)

    def open_writer(self, file: PlannedFile) -> StagedWriter:
        check_path(file.path)
        return DirectoryWriter(self._area, file)

    def add(self, file: PlannedFile, content: bytes | bytearray | memoryview) -> Digests:
        check_path(file.path)
        with fsio.translated(f"writing {shown(file.path)}"):
            fd = self._create(file.path)
            try:
                view = memoryview(content)
                fsio.write_at(fd, view, 0)
                blob = fsio.blob_hash(len(view)) if file.wants_blob_id else None
                if blob is not None:
                    blob.update(view)
                found = Digests(
                    len(view), hashlib.sha256(view).hexdigest(), None if blob is None else blob.hexdigest()
                )
            except BaseException:
                os.close(fd)
                raise
        with self._lock:
            self._batch.append(_Small(file.path, fd, found))
            self._batch_bytes += len(view)
            full = len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES
            if full:
                self._durable.append(threads.background.submit(self._make_durable, self._take()))
            earlier = self._durable.popleft() if len(self._durable) > _BATCHES else None
        if earlier is not None:
            earlier.result()
        return found

    def _create(self, path: str) -> int:
        """Make the file under its final name: nobody believes in it before the journal or a second reading tells what it hashes to."""
        above, _, name = f"{TREE}/{path}".rpartition("/")
        with self._opened() as area:
            try:
                folder = fsio.open_folder(area, above)
            except FileNotFoundError:
                fsio.make_folders(area, above, self._area.modes, durable=False)
                folder = fsio.open_folder(area, above)
            try:
                try:
                    return fsio.create(folder, name, self._area.modes)
                except FileExistsError:
                    fsio.remove_tree(folder, name)
                    return fsio.create(folder, name, self._area.modes)
            finally:
                os.close(folder)

    def _take(self) -> list[_Small]:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        return batch

    def _make_durable(self, batch: list[_Small]) -> None:
        """Sync the files of a batch, and only then write down what they hash to."""
        if not batch:
            return
        try:
            with fsio.translated("writing small files"):
                for small in batch:
                    fsio.start_writing_back(small.fd, 0, small.digests.size)
                parts = [threads.syncs.submit(_sync, batch[part::_SYNCS]) for part in range(_SYNCS)]
                wait(parts)
                for part in parts:
                    part.result()
                finished = [
                    (small.path, fsio.Identity.of(os.fstat(small.fd)), small.digests) for small in batch
                ]
                with self._opened() as area:
                    self._area.journal.record_finished(area, finished)
        finally:
            for small in batch:
                os.close(small.fd)

    async def settle(self) -> None:
        def work() -> None:
            with self._lock:
                batch = self._take()
            try:
                self._make_durable(batch)
            finally:
                self._settle_earlier()

        try:
            await in_thread(work)
        finally:
            self.close()

    def _settle_earlier(self) -> None:
        """Wait for the batches that are under way; raises the first one's error."""
        with self._lock:
            earlier, self._durable = self._durable, deque()
        wait(earlier)
        for batch in earlier:
            batch.result()

    async def digests(self, file: PlannedFile) -> Digests | None:
        return (await self.all_digests([file])).get(file.path)

    async def all_digests(self, files: Iterable[PlannedFile]) -> dict[str, Digests]:
        wanted = list(files)
        for file in wanted:
            check_path(file.path)
        await self.settle()
        with fsio.translated("reading staged files"):
            return await in_thread(self._area.digests, wanted)

    async def drop(self, path: str) -> None:
        await self.settle()
        with fsio.translated(f"removing {shown(path)}"):
            await in_thread(self._area.drop, check_path(path))

    def open_local(self, path: str) -> int | None:
        with (
            fsio.translated(f"reading {shown(path)}"),
            suppress(FileNotFoundError),
            self._area.open() as area,
        ):
            return fsio.open_regular(area, f"{TREE}/{check_path(path)}")
        return None

    def read(self, path: str) -> AsyncIterator[bytes]:
        def open_file() -> int:
            with self._area.open() as area:
                return fsio.open_regular(area, f"{TREE}/{path}")

        return stream(open_file, check_path(path))

    async def discard(self) -> None:
        def work() -> None:
            with suppress(StorageError):  # what cannot be made durable is about to go
                self._settle_earlier()
            with self._lock:
                self._close()
            self._give_back()
            self._area.remove()

        with fsio.translated("removing the staging area"):
            await in_thread(work)


async def stream(open_file: Callable[[], int], path: str) -> AsyncIterator[bytes]:
    """Stream the file that `open_file` opens, in chunks of at most 1 MiB; `path` is for messages."""
    with fsio.translated(f"reading {shown(path)}"):
        fd = await in_thread(open_file)
        try:
            while chunk := await in_thread(os.read, fd, fsio.CHUNK):
                yield chunk
        finally:
            os.close(fd)
