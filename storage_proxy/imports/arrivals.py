"""Files of one import on their way from one step to the next: what one has finished, the next one takes at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from storage_proxy.storages.base import Digests, PlannedFile


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that is whole and has the right digest. `present`: it lies at the destination already."""

    file: PlannedFile
    digests: Digests
    present: bool = False


class Arrivals:
    """A queue with an end; several may take from it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Arrival | None] = asyncio.Queue()

    def put(self, file: PlannedFile, digests: Digests, *, present: bool = False) -> None:
        """Hand a file on."""
        self._queue.put_nowait(Arrival(file, digests, present=present))

    def end(self) -> None:
        """Say that no more come."""
        self._queue.put_nowait(None)

    async def batches(self, most: int, most_bytes: int) -> AsyncIterator[list[Arrival]]:
        """Yield what has arrived: one file at least, at most `most`, and none more from so many bytes on."""
        while (arrival := await self._queue.get()) is not None:
            batch, size = [arrival], arrival.file.size
            while len(batch) < most and size < most_bytes and not self._queue.empty():
                if (arrival := self._queue.get_nowait()) is None:
                    self.end()
                    break
                batch.append(arrival)
                size += arrival.file.size
            yield batch
        self.end()  # for whoever else takes from here
