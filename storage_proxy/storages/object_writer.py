"""Two ways of a file into a staging area of objects.

`PieceWriter` takes ranges in any order and leaves objects that can be read again: for DOWNLOAD. `UploadWriter` takes a
file from front to back and sends it on as parts of what will be published: for ARCHIVE.
"""

import hashlib
import os
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future

from proxy_client.errors import StorageFailure
from storage_proxy.storages.base import PIECE, Digests, PlannedFile, StagedWriter
from storage_proxy.storages.object_area import Hashes, ObjectArea, Source, digests_of, part_size
from storage_proxy.volumes.paths import shown
from storage_proxy.volumes.threads import stop_point

_READ = 1 << 20  # bytes
_WAIT = 0.2  # seconds between two looks at whether anybody still wants it


def _nothing() -> None:
    pass


class _ObjectWriter(StagedWriter):
    """What both ways have in common."""

    def __init__(self, area: ObjectArea, file: PlannedFile) -> None:
        self.size = file.size
        self._area = area
        self._file = file
        self._path = file.path
        self._broken = False
        area.insist_on_claim()

    def write(self, offset: int, data: memoryview, release: Callable[[], None] = _nothing) -> None:
        try:
            if self._broken:
                raise StorageFailure(f"an earlier write to {shown(self._path)} failed")
            if offset + len(data) > self.size:
                raise StorageFailure(f"{shown(self._path)} is longer than {self.size} bytes")
            try:
                self._write(offset, data)
            except BaseException:
                self._broken = True
                raise
        finally:
            release()

    @abstractmethod
    def _write(self, offset: int, data: memoryview) -> None:
        """Take bytes that fit into the file."""

    def copy_from(self, fd: int) -> None:
        if os.fstat(fd).st_size != self.size:
            self._broken = True
            raise StorageFailure(f"the copy of {shown(self._path)} has another size than it should")
        self.restart()
        buffer = memoryview(bytearray(min(_READ, self.size)))
        offset = 0
        while offset < self.size:
            stop_point()
            count = os.preadv(fd, [buffer], offset)
            if not count:
                raise StorageFailure(f"{shown(self._path)} was cut while it was copied")
            self.write(offset, buffer[: min(count, self.size - offset)])
            offset += count

    def _not_whole(self) -> StorageFailure:
        return StorageFailure(f"{shown(self._path)} is not whole")


class PieceWriter(_ObjectWriter):
    """A file as piece objects, or as one object if it is no longer than `whole` bytes.

    A range that is being written holds one piece in memory.
    """

    def __init__(self, area: ObjectArea, file: PlannedFile, *, whole: int = PIECE) -> None:
        super().__init__(area, file)
        self._piece = -(-whole // PIECE) * PIECE if file.size <= whole else part_size(file.size, PIECE)
        self._in_one = file.size <= self._piece
        self._lock = threading.Lock()
        self._buffers: dict[int, bytearray] = {}
        self._slots: dict[int, int] = {}
        self._forget_hash()
        entry = area.entry(file.path)
        self._finished = entry.digests
        self._there = {
            number
            for number, size in entry.pieces.items()
            if not self._in_one and size == self._length(number) and size
        }

    def _length(self, number: int) -> int:
        return max(0, min(self._piece, self.size - number * self._piece))

    def missing(self) -> list[tuple[int, int]]:
        gaps: list[tuple[int, int]] = []
        if self._finished is not None:
            return gaps
        with self._lock:
            for slot in range(-(-self.size // PIECE)):
                start, stop = slot * PIECE + self._slots.get(slot, 0), min((slot + 1) * PIECE, self.size)
                if start == stop or start // self._piece in self._there:
                    continue
                if gaps and gaps[-1][1] == start:
                    gaps[-1] = (gaps[-1][0], stop)
                else:
                    gaps.append((start, stop))
        return gaps

    def _write(self, offset: int, data: memoryview) -> None:
        while data:
            number, inside = divmod(offset, self._piece)
            chunk = data[: min(len(data), self._piece - inside)]
            self._fill(number, inside, chunk)
            offset, data = offset + len(chunk), data[len(chunk) :]

    def _fill(self, number: int, inside: int, data: memoryview) -> None:
        length = self._length(number)
        with self._lock:
            if number in self._there:
                return
            buffer = self._buffers.get(number)
            if buffer is None:
                buffer = self._buffers[number] = bytearray(length)
        buffer[inside : inside + len(data)] = data
        begin, left = number * self._piece + inside, len(data)
        with self._lock:
            while left:
                slot, at = divmod(begin, PIECE)
                if self._slots.get(slot, 0) != at:
                    raise StorageFailure(f"{shown(self._path)} is not written from front to back")
                count = min(left, PIECE - at)
                self._slots[slot] = at + count
                begin, left = begin + count, left - count
            first = number * self._piece // PIECE
            last = -(-(number * self._piece + length) // PIECE)
            whole = sum(self._slots.get(slot, 0) for slot in range(first, last)) == length
        if whole and not self._in_one:
            self._put(number, buffer)

    def _put(self, number: int, buffer: bytearray) -> None:
        self._area.client.put(self._area.piece_key(self._path, number), buffer)
        with self._lock:
            self._there.add(number)
            self._area.entry(self._path).pieces[number] = len(buffer)
            del self._buffers[number]
            if number == self._hashed:  # it came in order, so it need not be read again
                self._hashes.update(buffer)
                self._hashed += 1

    def _forget_hash(self) -> None:
        self._hashes = Hashes(self.size, blob_id=self._file.wants_blob_id)
        self._hashed = 0

    def restart(self) -> None:
        self._area.drop(self._path)
        with self._lock:
            self._buffers, self._slots, self._there = {}, {}, set()
            self._finished = None
            self._forget_hash()
            self._broken = False

    def finish(self) -> Digests:
        if self._finished is not None:
            return self._finished
        if self._broken or self.missing():
            raise self._not_whole()
        self._area.insist_on_claim()
        if self._in_one:
            content = self._buffers.get(0, bytearray())
            found = digests_of(content, blob_id=self._file.wants_blob_id)
            self._area.put_whole(self._path, content, found)
        else:
            for number in range(self._hashed, -(-self.size // self._piece)):
                for chunk in self._area.client.stream(self._area.piece_key(self._path, number)):
                    self._hashes.update(chunk)
            found = self._hashes.digests()
            self._area.put_done(self._path, Source(part_size=self._piece), found)
        self._finished = found
        return found

    def close(self) -> None:
        with self._lock:
            self._buffers = {}


class UploadWriter(_ObjectWriter):
    """A file as the parts of an upload to `key`, which appears when the import is published.

    Parts go in the background; `room` bounds how many are held in memory, over all files. A part that an earlier
    attempt sent is not sent again if its bytes are the same.
    """

    def __init__(
        self, area: ObjectArea, file: PlannedFile, key: str, least: int, room: threading.Semaphore
    ) -> None:
        super().__init__(area, file)
        self._part = part_size(file.size, least)
        self._room = room
        self._upload, there = area.begin_upload(file.path, key, file.size, file.sha256)
        self._earlier = {number: (part.etag, part.size) for number, part in there.items()}
        self._sent: dict[int, Future[str]] = {}
        self._buffer: bytearray | None = None
        self._begin()

    def _begin(self) -> None:
        self._hashes = Hashes(self.size, blob_id=self._file.wants_blob_id)
        self._filled = 0

    def missing(self) -> list[tuple[int, int]]:
        offset = self._hashes.size
        return [(offset, self.size)] if offset < self.size else []

    def _write(self, offset: int, data: memoryview) -> None:
        if offset != self._hashes.size:
            raise StorageFailure(f"{shown(self._path)} is not written from front to back")
        self._hashes.update(data)
        while data:
            if self._buffer is None:
                self._buffer = self._take_room(min(self._part, self.size - offset))
                self._filled = 0
            chunk = data[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(chunk)] = chunk
            self._filled += len(chunk)
            offset, data = offset + len(chunk), data[len(chunk) :]
            if self._filled == len(self._buffer):
                self._send(-(-offset // self._part), self._buffer)

    def _take_room(self, size: int) -> bytearray:
        while not self._room.acquire(timeout=_WAIT):
            stop_point()
        for sent in self._sent.values():
            if sent.done() and sent.exception() is not None:
                self._room.release()
                sent.result()
        return bytearray(size)

    def _send(self, number: int, buffer: bytearray) -> None:
        self._buffer = None
        self._sent[number] = self._area.client.submit(lambda: self._put(number, buffer))

    def _put(self, number: int, buffer: bytearray) -> str:
        try:
            etag, size = self._earlier.get(number, ("", -1))
            # An ETag of another kind than MD5 is never equal, and the part is sent again.
            if size == len(buffer) and hashlib.md5(buffer, usedforsecurity=False).hexdigest() == etag:
                return etag
            return self._area.client.upload_part(self._upload.key, self._upload.upload_id, number, buffer)
        finally:
            self._room.release()

    def _settle(self) -> None:
        """Wait for every part that is on its way, and remember those that came through."""
        for number, sent in self._sent.items():
            if sent.exception() is None:
                start = (number - 1) * self._part
                self._earlier[number] = (sent.result(), min(self._part, self.size - start))

    def restart(self) -> None:
        self._settle()
        self._drop_buffer()
        self._sent = {}
        self._begin()
        self._broken = False

    def _drop_buffer(self) -> None:
        if self._buffer is not None:
            self._buffer = None
            self._room.release()

    def finish(self) -> Digests:
        if self._broken or self._hashes.size != self.size:
            raise self._not_whole()
        etags = {number: sent.result() for number, sent in self._sent.items()}
        self._area.insist_on_claim()
        found = self._hashes.digests()
        parts = tuple(sorted(etags.items()))
        source = Source(
            part_size=self._part, key=self._upload.key, upload_id=self._upload.upload_id, parts=parts
        )
        self._area.put_done(self._path, source, found)
        return found

    def close(self) -> None:
        self._settle()
        self._drop_buffer()
