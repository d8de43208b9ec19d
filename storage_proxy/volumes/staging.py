"""A staging area in a directory: `<.staging of the destination's file system>/<task id>/`, mode 0700.

owner.<name>     who may change anything here: the attempt that opened it last
plan.json        the import's plan
journal          what is durable and what it hashes to (see `journal`)
parts/<hash>     files on their way, named by the hash of their path
tree/<path>      finished files, laid out as they will be published
publish.json …   a publish that began (see `publish`)
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from pydantic import ValidationError

from proxy_client.errors import StorageError, StorageFailure
from storage_proxy.storages.base import Digests, ImportPlan, StagedWriter, StagingArea
from storage_proxy.volumes import fsio
from storage_proxy.volumes.beneath import open_beneath
from storage_proxy.volumes.journal import Journal
from storage_proxy.volumes.paths import check_path, shown
from storage_proxy.volumes.threads import in_thread, stop_point

TREE = "tree"
_OWNER = "owner."
_PARTS = "parts"
_PLAN = "plan.json"
_LARGEST_PLAN = 1 << 30  # bytes
_BLOCK = 256 << 10  # bytes handed to a thread at a time, at least
_SYNC = 4 << 20  # bytes written between two syncs; with the blocks under way, less than 8 MiB are ever lost


class Area:
    """The directory behind a staging area; every method blocks. Several may stand for the same directory."""

    def __init__(self, mount: Path, path: str, modes: fsio.Modes) -> None:
        self.mount = mount
        self.path = path
        self.modes = modes
        self.journal = Journal()
        self._owner = f"{_OWNER}{uuid4().hex}"

    @contextmanager
    def open(self) -> Iterator[int]:
        """Open the directory; FileNotFoundError if it is not there."""
        with fsio.trusted(self.mount) as mount, fsio.opened(mount, self.path) as area:
            yield area

    def make(self) -> None:
        """Make the directory when it is not there."""
        with fsio.trusted(self.mount) as mount:
            fsio.make_folders(mount, self.path, fsio.PRIVATE)
        with self.open() as area:
            fsio.make_folders(area, _PARTS, fsio.PRIVATE)
            self.journal.refresh(area)

    def claim(self) -> None:
        """Let nobody else change anything here, until somebody else claims it."""
        with self.open() as area:
            # A rename takes no room: a full disk must not keep anybody from cleaning up.
            for name, _ in fsio.names(area):
                if name.startswith(_OWNER):
                    with suppress(FileNotFoundError):
                        fsio.rename(area, name, area, self._owner)
            if fsio.status(area, self._owner) is None:
                os.close(fsio.create(area, self._owner, fsio.PRIVATE))

    def insist_on_claim(self, area: int) -> None:
        """Raise `StorageFailure` if somebody claimed it since.

        A worker that stood still for longer than its lease does not know that another one has its import.
        """
        if fsio.status(area, self._owner) is None:
            raise StorageFailure("the import was taken over by another worker")

    def exists(self) -> bool:
        """Whether the directory is there."""
        with fsio.trusted(self.mount) as mount:
            return fsio.is_folder(mount, self.path)

    def remove(self) -> None:
        """Remove the directory with everything in it: at once for whoever looks, then piece by piece."""
        gone = f"{self.path}.gone"
        with fsio.trusted(self.mount) as mount:
            fsio.remove_tree(mount, gone)
            if fsio.is_folder(mount, self.path):
                fsio.rename_new(mount, self.path, mount, gone)
                fsio.remove_tree(mount, gone)
        self.journal = Journal()

    def load_plan(self) -> ImportPlan | None:
        """Read the plan."""
        with self.open() as area:
            text = fsio.read_small(area, _PLAN, _LARGEST_PLAN)
        try:
            return None if text is None else ImportPlan.model_validate_json(text)
        except ValidationError as exc:
            raise StorageFailure("the import's saved plan is damaged; import again") from exc

    def save_plan(self, plan: ImportPlan) -> None:
        """Write the plan."""
        earlier = self.load_plan()
        if earlier is not None and earlier.commit != plan.commit:
            raise StorageFailure(f"the staged bytes are of commit {earlier.commit}; discard them first")
        with self.open() as area:
            self.insist_on_claim(area)
            fsio.write_file(area, _PLAN, plan.model_dump_json().encode(), fsio.PRIVATE)

    def digests(self, path: str) -> Digests | None:
        """Return what a finished file hashes to, reading it only where the journal does not tell."""
        with self.open() as area:
            identity = fsio.identity(area, f"{TREE}/{path}")
            if identity is None:
                return None
            known = self.journal.finished(path, identity)
            if known is None:
                self.journal.refresh(area)
                known = self.journal.finished(path, identity)
            return known or self._read_digests(area, path)

    def _read_digests(self, area: int, path: str) -> Digests | None:
        try:
            fd = fsio.open_regular(area, f"{TREE}/{path}")
        except FileNotFoundError:
            return None
        try:
            found = fsio.digest(fd)
            identity = fsio.Identity.of(os.fstat(fd))
        finally:
            os.close(fd)
        if found is not None:
            self.journal.record_finished(area, path, identity, found)
        return found

    def drop(self, path: str) -> None:
        """Remove a file, finished or partial."""
        with self.open() as area:
            self.insist_on_claim(area)
            self.journal.record_drop(area, path)
            fsio.remove_tree(area, f"{TREE}/{path}")
            fsio.remove_tree(area, part_of(path))


def part_of(path: str) -> str:
    """Return where the partial file of `path` lies; hashed, since a part may be there before its folders."""
    return f"{_PARTS}/{hashlib.sha256(path.encode()).hexdigest()}"


class DirectoryStaging(StagingArea):
    """A staging area in a directory; `give_back` undoes a publish that began and was not finished."""

    def __init__(self, area: Area, give_back: Callable[[], None]) -> None:
        self._area = area
        self._give_back = give_back

    async def load_plan(self) -> ImportPlan | None:
        with fsio.translated("reading the import's plan"):
            return await in_thread(self._area.load_plan)

    async def save_plan(self, plan: ImportPlan) -> None:
        with fsio.translated("saving the import's plan"):
            await in_thread(self._area.save_plan, plan)

    def open_writer(self, path: str, size: int) -> StagedWriter:
        return DirectoryWriter(self._area, check_path(path), size)

    async def digests(self, path: str) -> Digests | None:
        with fsio.translated(f"reading {shown(path)}"):
            return await in_thread(self._area.digests, check_path(path))

    async def drop(self, path: str) -> None:
        with fsio.translated(f"removing {shown(path)}"):
            await in_thread(self._area.drop, check_path(path))

    def read(self, path: str) -> AsyncIterator[bytes]:
        def open_file() -> int:
            with self._area.open() as area:
                return fsio.open_regular(area, f"{TREE}/{path}")

        return stream(open_file, check_path(path))

    async def discard(self) -> None:
        def work() -> None:
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


class _Part:
    """A partial file, its place in the journal and its hashes; every method blocks.

    The lock lets a writer that is cancelled twice close the file without pulling it away from a write.
    """

    def __init__(self, area: Area, path: str, size: int) -> None:
        self._area = area
        self._path = path
        self._size = size
        self._lock = threading.Lock()
        self._fd = -1
        self._durable = 0
        self._sound = False
        self.offset = 0
        self._reset()

    def _reset(self) -> None:
        self._sha256, self._blob = hashlib.sha256(), fsio.blob_hash(self._size)

    def resume(self) -> int:
        """Open the file, cut it to what is durable, hash that, and return how much it is."""
        with self._area.open() as area:
            self._area.insist_on_claim(area)
            self._area.journal.refresh(area)
            durable = self._area.journal.offset(self._path)
            try:
                self._fd = open_beneath(area, part_of(self._path), os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                self._fd = fsio.create(area, part_of(self._path), self._area.modes)
        # Shorter than what was durable, or longer than the whole file: somebody else was here. Begin again.
        if durable > min(os.fstat(self._fd).st_size, self._size):
            durable = 0
        self._area.modes.apply(self._fd)
        fsio.truncate(self._fd, durable)
        while self.offset < durable:
            stop_point()
            chunk = os.read(self._fd, min(fsio.CHUNK, durable - self.offset))
            self._hash(chunk)
        self._durable = durable
        self._sound = True
        return durable

    def _hash(self, data: bytes) -> None:
        self._sha256.update(data)
        self._blob.update(data)
        self.offset += len(data)

    def append(self, block: Sequence[bytes]) -> None:
        """Hash and write; after an error nothing is accepted until `restart`, since hash and file may differ."""
        with self._lock:
            if not self._sound:
                raise StorageFailure(f"an earlier write to {shown(self._path)} failed")
            self._sound = False
            with self._area.open() as area:
                self._area.insist_on_claim(area)
            for piece in block:
                fsio.write_all(self._fd, piece)
                self._hash(piece)
            if self.offset - self._durable >= _SYNC:
                self._sync()
            self._sound = True

    def _sync(self) -> None:
        fsio.fdatasync(self._fd)
        with self._area.open() as area:
            self._area.insist_on_claim(area)
            self._area.journal.record_offset(area, self._path, self.offset)
        self._durable = self.offset

    def restart(self) -> None:
        """Begin again at 0."""
        with self._area.open() as area:
            self._area.insist_on_claim(area)
            self._area.journal.record_offset(area, self._path, 0)
        fsio.truncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.offset = self._durable = 0
        self._reset()
        self._sound = True

    def finish(self) -> Digests:
        """Make the file durable and give it its name."""
        fsio.fdatasync(self._fd)
        found = Digests(self.offset, self._sha256.hexdigest(), self._blob.hexdigest())
        if self.offset != self._size:  # the blob id's hash begins with the size
            found = fsio.digest(self._fd) or found
        target = f"{TREE}/{self._path}"
        with self._area.open() as area:
            self._area.insist_on_claim(area)
            fsio.make_folders(area, target.rpartition("/")[0], self._area.modes, durable=False)
            fsio.rename(area, part_of(self._path), area, target)
            identity = fsio.Identity.of(os.fstat(self._fd))
            self._area.journal.record_finished(area, self._path, identity, found)
        self._sound = False
        return found

    def close(self, *, keep: bool) -> None:
        """Close the file; `keep` makes what was written durable for the next writer."""
        with self._lock:
            try:
                if keep and self._sound and self.offset > self._durable:
                    self._sync()
            finally:
                self._sound = False
                if self._fd >= 0:
                    os.close(self._fd)
                self._fd = -1


class DirectoryWriter(StagedWriter):
    """A file on its way into a `DirectoryStaging`. One block is written by a thread while the next one gathers."""

    def __init__(self, area: Area, path: str, size: int) -> None:
        self._part = _Part(area, path, size)
        self._doing = f"writing {shown(path)}"
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._writing: asyncio.Task[None] | None = None
        self.offset = 0

    async def __aenter__(self) -> Self:
        with fsio.translated(self._doing):
            try:
                self.offset = await in_thread(self._part.resume)
            except BaseException:
                self._part.close(keep=False)
                raise
        return self

    async def write(self, data: bytes | memoryview) -> None:
        self._gathered.append(bytes(data))  # no copy of what is bytes already
        self._gathered_size += len(data)
        self.offset += len(data)
        if self._gathered_size >= _BLOCK:
            await self._settle()
            self._writing = asyncio.create_task(in_thread(self._part.append, self._take()))

    def _take(self) -> list[bytes]:
        block, self._gathered, self._gathered_size = self._gathered, [], 0
        return block

    async def _settle(self) -> None:
        """Wait for the block that is being written."""
        if self._writing is not None:
            writing = self._writing
            with fsio.translated(self._doing):
                await asyncio.shield(writing)
            self._writing = None

    async def restart(self) -> None:
        await self._forget()
        with fsio.translated(self._doing):
            await in_thread(self._part.restart)
        self.offset = 0

    async def _forget(self) -> None:
        """Drop what has gathered and wait for the block that is being written, whatever comes of it."""
        self._take()
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self._writing.exception()
            self._writing = None

    async def finish(self) -> Digests:
        await self._settle()
        block = self._take()

        def work() -> Digests:
            self._part.append(block)
            return self._part.finish()

        with fsio.translated(self._doing):
            return await in_thread(work)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._keep()
        except StorageError:
            if error is None:
                raise

    async def _keep(self) -> None:
        """Make what was accepted durable and close; an error is raised once everything is closed."""
        try:
            await self._settle()
            if self._gathered:
                with fsio.translated(self._doing):
                    await in_thread(self._part.append, self._take())
        finally:
            with fsio.translated(self._doing):
                await in_thread(self._part.close, keep=True)
