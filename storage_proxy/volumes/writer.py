"""One large file on its way into a staging area: written in place by several threads, hashed behind them.

The pieces that are there are written to the journal as they fill up, at no cost, and every now and then once more
when a sync in the background has made them durable. The hash follows the part of the file that is whole from its start on: from the buffers
themselves where they come in order, else from the page cache. Nothing is read twice from a cold disk.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from proxy_client.errors import StorageFailure
from storage_proxy.storages.base import PIECE, Digests, PlannedFile, StagedWriter
from storage_proxy.volumes import fsio
from storage_proxy.volumes.area import TREE, Area, part_of
from storage_proxy.volumes.beneath import open_beneath
from storage_proxy.volumes.paths import shown
from storage_proxy.volumes.threads import stop_point

_SYNC = 64 << 20  # bytes between two syncs in the background
_FICLONE = 0x40049409  # linux/fs.h
_COPY = 8 << 20  # bytes copied between two looks at whether anybody still wants them

_syncs = ThreadPoolExecutor(max_workers=8, thread_name_prefix="sync")


def _nothing() -> None:
    pass


class DirectoryWriter(StagedWriter):
    """A file in the parts of an `Area`. After an error nothing is accepted until `restart`."""

    def __init__(self, area: Area, file: PlannedFile) -> None:
        self.size = file.size
        self._file = file
        self._area = area
        self._doing = f"writing {shown(file.path)}"
        self._lock = threading.Condition()
        self._folder = -1
        self._fd = -1
        self._fault: Exception | None = None
        self._fills: dict[int, int] = {}
        self._noted: dict[int, int] = {}
        self._undurable: dict[int, int] = {}
        self._unsynced = 0
        self._sync: Future[None] | None = None
        self._hasher: threading.Thread | None = None
        self._stopping = False
        self._spare: memoryview | None = None
        self._waiting: dict[int, tuple[memoryview, Callable[[], None]]] = {}
        self._forget_hash()
        with fsio.translated(self._doing):
            try:
                self._open()
            except BaseException:
                self._close_files()
                raise

    # What is there.

    def _open(self) -> None:
        with self._area.open() as area:
            self._area.insist_on_claim(area)
            self._folder = os.dup(area)
        self._area.journal.refresh(self._folder)
        self._fills = self._area.journal.fills(self._file.path)
        part = part_of(self._file.path)
        try:
            self._fd = open_beneath(self._folder, part, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._fd = fsio.create(self._folder, part, self._area.modes)
        self._area.modes.apply(self._fd)
        found = os.fstat(self._fd).st_size
        claimed = max((piece * PIECE + fill for piece, fill in self._fills.items()), default=0)
        if (
            found > self.size
            or claimed > found
            or any(fill > self._length(n) for n, fill in self._fills.items())
        ):
            # Not what the journal speaks of: somebody else was here.
            self._begin_again()
        self._noted, self._undurable = dict(self._fills), dict(self._fills)
        if found < self.size:
            fsio.allocate(self._fd, self.size)
        self._advance()

    def _length(self, piece: int) -> int:
        """Return how long a piece is; 0 beyond the end."""
        return max(0, min(PIECE, self.size - piece * PIECE))

    def missing(self) -> list[tuple[int, int]]:
        gaps: list[tuple[int, int]] = []
        with self._lock:
            for piece in range(-(-self.size // PIECE)):
                start = piece * PIECE + self._fills.get(piece, 0)
                stop = piece * PIECE + self._length(piece)
                if start == stop:
                    continue
                if gaps and gaps[-1][1] == start:
                    gaps[-1] = (gaps[-1][0], stop)
                else:
                    gaps.append((start, stop))
        return gaps

    # Writing.

    def write(self, offset: int, data: memoryview, release: Callable[[], None] = _nothing) -> None:
        kept = False
        try:
            with fsio.translated(self._doing), self._guarded():
                if offset + len(data) > self.size:
                    raise StorageFailure(f"{shown(self._file.path)} is longer than {self.size} bytes")
                self._area.insist_on_claim(self._folder)
                fsio.write_at(self._fd, data, offset)
                kept = self._filled(offset, data, release)
        finally:
            if not kept:
                release()

    def _guarded(self) -> "_Guard":
        if isinstance(self._fault, OSError):
            raise fsio.storage_error(self._fault, self._doing) from self._fault
        if self._fault is not None:
            raise StorageFailure(f"an earlier write to {shown(self._file.path)} failed") from self._fault
        return _Guard(self)

    def _filled(self, offset: int, data: memoryview, release: Callable[[], None]) -> bool:
        """Count what was written; whether the hash keeps the buffer until it has read it."""
        begin, size = offset, len(data)
        whole: dict[int, int] = {}
        with self._lock:
            while size:
                piece, inside = divmod(begin, PIECE)
                if self._fills.get(piece, 0) != inside:
                    raise StorageFailure(f"{shown(self._file.path)} is not written from front to back")
                count = min(size, PIECE - inside)
                self._fills[piece] = inside + count
                if inside + count == self._length(piece):
                    whole[piece] = inside + count
                begin, size = begin + count, size - count
            keeps = len(data) > 0 and offset == self._frontier and not self._stopping and self._fault is None
            if keeps:
                self._waiting[offset] = (data, release)
            self._advance()
            self._start_hasher()
            self._lock.notify_all()
        if whole:
            self._note(whole)
        return keeps

    def _note(self, whole: dict[int, int]) -> None:
        self._area.journal.record_fills(self._folder, self._file.path, whole, durable=False)
        size = 0
        for piece, length in whole.items():
            fsio.start_writing_back(self._fd, piece * PIECE, length)
            size += length
        with self._lock:
            self._noted.update(whole)
            self._undurable.update(whole)
            self._unsynced += size
            if self._unsynced < _SYNC or (self._sync is not None and not self._sync.done()):
                return
            fills, self._undurable, self._unsynced = self._undurable, {}, 0
            self._sync = _syncs.submit(self._make_durable, fills)

    def _make_durable(self, fills: dict[int, int]) -> None:
        with self._guarded():
            fsio.fdatasync(self._fd)
            self._area.insist_on_claim(self._folder)
            self._area.journal.record_fills(self._folder, self._file.path, fills, durable=True)

    def _settle_sync(self) -> None:
        if (sync := self._sync) is not None:
            with suppress(Exception):  # it is in `_fault`, which whoever goes on meets
                sync.result()
            self._sync = None

    def copy_from(self, fd: int) -> None:
        with fsio.translated(self._doing), self._guarded():
            if os.fstat(fd).st_size != self.size:
                raise StorageFailure(f"the copy of {shown(self._file.path)} has another size than it should")
            self._area.insist_on_claim(self._folder)
            if self.size and not self._cloned(fd):
                for begin in range(0, self.size, _COPY):
                    stop_point()
                    self._area.insist_on_claim(self._folder)
                    fsio.copy_range(fd, self._fd, begin, min(_COPY, self.size - begin))
            # What was hashed before may have been overwritten with something else.
            self._stop_hasher()
            self._forget_hash()
            with self._lock:
                for piece in range(-(-self.size // PIECE)):
                    self._fills[piece] = self._length(piece)
                self._advance()
                self._start_hasher()
                self._lock.notify_all()

    def _cloned(self, fd: int) -> bool:
        try:
            fcntl.ioctl(self._fd, _FICLONE, fd)
        except OSError:
            return False
        return True

    def restart(self) -> None:
        with fsio.translated(self._doing):
            self._stop_hasher()
            self._settle_sync()
            self._area.insist_on_claim(self._folder)
            self._begin_again()
            self._fault = None
            self._forget_hash()

    def _begin_again(self) -> None:
        self._area.journal.record_restart(self._folder, self._file.path)
        fsio.truncate(self._fd, 0)
        self._fills, self._noted, self._undurable, self._unsynced = {}, {}, {}, 0

    # Hashing.

    def _forget_hash(self) -> None:
        self._sha256 = hashlib.sha256()
        self._blob = fsio.blob_hash(self.size) if self._file.wants_blob_id else None
        self._hashed = 0
        self._frontier = 0

    def _advance(self) -> None:
        """Move the frontier to where the file is no longer whole from its start on."""
        piece = self._frontier // PIECE
        while piece * PIECE < self.size and self._fills.get(piece, 0) == self._length(piece):
            piece += 1
        self._frontier = min(self.size, piece * PIECE + self._fills.get(piece, 0))

    def _start_hasher(self) -> None:
        if self._hasher is None and not self._stopping:
            self._hasher = threading.Thread(target=self._hash, name="hash", daemon=True)
            self._hasher.start()

    def _hash(self) -> None:
        try:
            while True:
                with self._lock:
                    while self._hashed >= self._frontier and not self._stopping and self._fault is None:
                        self._lock.wait()
                    if self._stopping or self._fault is not None:
                        return
                    begin = self._hashed
                    data, release = self._waiting.pop(begin, (None, _nothing))
                    end = min([self._frontier, *self._waiting])
                if data is None:
                    data = self._read_back(begin, end)
                try:
                    self._sha256.update(data)
                    if self._blob is not None:
                        self._blob.update(data)
                    size = len(data)
                finally:
                    release()
                with self._lock:
                    self._hashed += size
                    self._lock.notify_all()
        except Exception as exc:  # noqa: BLE001 -- a thread's run ends here; whoever waits for the hash meets the error
            self._failed(exc)
        finally:
            self._release_waiting()

    def _read_back(self, begin: int, end: int) -> memoryview:
        if self._spare is None:
            self._spare = memoryview(bytearray(fsio.CHUNK))
        view = self._spare[: min(len(self._spare), end - begin)]
        count = os.preadv(self._fd, [view], begin)
        if not count:
            raise StorageFailure(f"{shown(self._file.path)} was cut while it was written")
        return view[:count]

    def _failed(self, exc: Exception) -> None:
        with self._lock:
            self._fault = self._fault or exc
            self._lock.notify_all()

    def _release_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for _, release in waiting.values():
            release()

    def _stop_hasher(self) -> None:
        with self._lock:
            hasher, self._hasher = self._hasher, None
            self._stopping = True
            self._lock.notify_all()
        if hasher is not None:
            hasher.join()
        self._release_waiting()
        with self._lock:
            self._stopping = False

    # The end.

    def finish(self) -> Digests:
        with fsio.translated(self._doing), self._guarded():
            with self._lock:
                if self._frontier != self.size:
                    raise StorageFailure(f"{shown(self._file.path)} is not whole")
                if self.size:
                    self._start_hasher()
                while self._hashed < self.size and self._fault is None:
                    self._lock.wait(timeout=1.0)
                    stop_point()
            self._settle_sync()
            if self._fault is not None:
                raise self._fault
            fsio.fdatasync(self._fd)
            found = Digests(
                self.size,
                self._sha256.hexdigest(),
                self._blob.hexdigest() if self._blob is not None else None,
            )
            target = f"{TREE}/{self._file.path}"
            self._area.insist_on_claim(self._folder)
            above = target.rpartition("/")[0]
            fsio.make_folders(self._folder, above, self._area.modes, durable=False)
            fsio.rename(self._folder, part_of(self._file.path), self._folder, target)
            identity = fsio.Identity.of(os.fstat(self._fd))
            self._area.journal.record_finished(self._folder, [(self._file.path, identity, found)])
            self._fills = self._noted = {}
        return found

    def close(self) -> None:
        with fsio.translated(self._doing):
            try:
                self._stop_hasher()
                self._settle_sync()
                if self._fd >= 0 and self._fault is None and self._fills != self._noted:
                    self._area.insist_on_claim(self._folder)
                    self._area.journal.record_fills(self._folder, self._file.path, self._fills, durable=False)
            finally:
                self._close_files()

    def _close_files(self) -> None:
        for fd in (self._fd, self._folder):
            if fd >= 0:
                os.close(fd)
        self._fd = self._folder = -1


class _Guard:
    """Remembers the first error, since after it file, journal and hash may differ."""

    def __init__(self, writer: DirectoryWriter) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            self._writer._failed(error)  # noqa: SLF001 -- the guard is a part of the writer
