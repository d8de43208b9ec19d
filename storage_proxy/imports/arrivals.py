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

    async def __aiter__(self) -> AsyncIterator[Arrival]:
        while (arrival := await self._queue.get()) is not None:
            yield arrival
        self._queue.put_nowait(None)  # for whoever else takes from here
