"""A staging area of objects, as the import's steps see it."""

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from storage_proxy.storages.base import (
    PIECE,
    Digests,
    ImportPlan,
    PlannedFile,
    StagedWriter,
    StagingArea,
)
from storage_proxy.storages.object_area import ObjectArea, digests_of
from storage_proxy.storages.object_writer import PieceWriter, UploadWriter
from storage_proxy.volumes.paths import check_path, join
from storage_proxy.volumes.threads import in_thread


class ObjectStaging(StagingArea):
    """A staging area of objects; `give_back` undoes a publish that began and was not finished.

    destination: where the import will be published, if nobody reads the staged files before that: large ones are then
    sent to their place as they are written. None keeps them readable here.
    """

    def __init__(
        self,
        area: ObjectArea,
        give_back: Callable[[], None],
        *,
        destination: str | None,
        least_part: int,
        room: threading.Semaphore,
    ) -> None:
        self._area = area
        self._give_back = give_back
        self._destination = destination
        self._least_part = least_part
        self._room = room

    async def load_plan(self) -> ImportPlan | None:
        return await in_thread(self._area.load_plan)

    async def save_plan(self, plan: ImportPlan) -> None:
        await in_thread(self._area.save_plan, plan)

    def open_writer(self, file: PlannedFile) -> StagedWriter:
        check_path(file.path)
        if self._destination is None:
            return PieceWriter(self._area, file)
        if file.size <= self._least_part or self._area.entry(file.path).digests is not None:
            return PieceWriter(self._area, file, whole=self._least_part)
        key = self._area.keys.of(join(self._destination, file.path))
        return UploadWriter(self._area, file, key, self._least_part, self._room)

    def add(self, file: PlannedFile, content: bytes | bytearray | memoryview) -> Digests:
        check_path(file.path)
        found = digests_of(content, blob_id=file.wants_blob_id)
        if len(content) <= max(self._least_part, PIECE):
            self._area.put_whole(file.path, content, found)
            return found
        with PieceWriter(self._area, file) as writer:
            writer.write(0, memoryview(content))
            return writer.finish()

    async def settle(self) -> None:
        """What the server has answered is durable."""

    async def digests(self, file: PlannedFile) -> Digests | None:
        check_path(file.path)
        return await in_thread(self._area.digests, file)

    async def all_digests(self, files: Iterable[PlannedFile]) -> dict[str, Digests]:
        def work() -> dict[str, Digests]:
            found = {file.path: self._area.digests(file) for file in files}
            return {path: digests for path, digests in found.items() if digests is not None}

        return await in_thread(work)

    async def drop(self, path: str) -> None:
        await in_thread(self._area.drop, check_path(path))

    def read(self, path: str) -> AsyncIterator[bytes]:
        check_path(path)
        return stream(lambda: self._area.stream(path))

    def open_local(self, path: str) -> int | None:
        check_path(path)
        return None

    async def discard(self) -> None:
        def work() -> None:
            self._give_back()
            self._area.remove()

        await in_thread(work)


async def stream(open_stream: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
    """Yield what a blocking iterator yields, each chunk fetched in a thread."""
    chunks = open_stream()
    try:
        while (chunk := await in_thread(_next, chunks)) is not None:
            yield chunk
    finally:
        if hasattr(chunks, "close"):
            await in_thread(chunks.close)


def _next(chunks: Iterator[bytes]) -> bytes | None:
    return next(chunks, None)
