"""A large file in small pieces, on its way into the staging area of a directory."""

import asyncio
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from storage_proxy.storages.base import StagedWriter, StagingArea
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes.area import part_of
from tests.storages.faults import KILLED, in_child
from tests.storages.models import digests_of, planned

TASK = UUID(int=1)
PIECE = 1 << 16
DATA = random.Random(1).randbytes(10 * PIECE + 10)  # noqa: S311 -- the same in every run
BIG = planned("a/big", DATA)
WHOLE = digests_of(DATA, blob_id=False)


async def staging_in(mount: Path) -> StagingArea:
    return await VFSStorage("archive", mount).open_staging(TASK)


def reopened(mount: Path) -> StagingArea:
    return asyncio.run(staging_in(mount))


def area(mount: Path) -> Path:
    return mount / ".staging" / str(TASK)


def part(mount: Path) -> Path:
    return area(mount) / part_of(BIG.path)


def write_range(writer: StagedWriter, start: int, stop: int, step: int = 10_000) -> None:
    for begin in range(start, stop, step):
        writer.write(begin, memoryview(DATA)[begin : min(begin + step, stop)])


def write_and_die(mount: Path, *ranges: tuple[int, int]) -> None:
    """Write the ranges in threads at once, and die without a word."""

    async def work() -> None:
        writer = (await staging_in(mount)).open_writer(BIG)
        with ThreadPoolExecutor(len(ranges)) as threads:
            list(threads.map(lambda found: write_range(writer, *found), ranges))
        os._exit(KILLED)

    assert in_child(work) == KILLED


def descriptors() -> set[str]:
    """Return the process's descriptors of files below a folder named `mount`."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(f"{path.name} {path.readlink()}")
    return {name for name in found if "/mount" in name}
