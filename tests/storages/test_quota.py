"""A limit that no file system enforces: who gets the room, and when it is taken back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from proxy_client.errors import QuotaExceeded
from proxy_client.wire import QuotaScopeID, VFolderID
from storage_proxy.storages.base import AbstractStorage, PlannedFile
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.storages.volume_adapter import VolumeStorageAdapter
from storage_proxy.volumes.vfs import VFSVolume
from tests.storages.models import Model, planned, write
from tests.storages.pieces import PIECE

pytestmark = pytest.mark.anyio

VFID = VFolderID(QuotaScopeID("user", UUID(int=0xA)), UUID(int=0xB))
ONE, TWO = UUID(int=1), UUID(int=2)


@dataclass
class Limited:
    """A storage with a limit: that of a vfolder's scope, or one that the manager tells with each question."""

    storage: AbstractStorage
    set_limit: Callable[[int | None], Awaitable[None]]
    told: Callable[[], int | None]

    async def reserve(self, task_id: UUID, needed: int) -> None:
        await self.storage.open_staging(task_id)
        await self.storage.reserve(needed, task_id=task_id, limit=self.told())

    async def insist(self, task_id: UUID) -> None:
        await self.storage.insist_on_limit(task_id, limit=self.told())

    async def put(self, path: str, size: int) -> None:
        async def one() -> object:
            yield b"x" * size

        await self.storage.stream_upload(path, one())  # type: ignore[arg-type]

    async def write(self, task_id: UUID, name: str, size: int) -> PlannedFile:
        data = b"y" * size
        file = planned(name, data)
        write(await self.storage.open_staging(task_id), file, data)
        return file

    async def discard(self, task_id: UUID) -> None:
        await (await self.storage.open_staging(task_id)).discard()


@pytest.fixture(params=["vfolder", "vfs"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Limited:
    if request.param == "vfs":
        limits: list[int | None] = [None]

        async def tell(limit: int | None) -> None:
            limits[0] = limit

        return Limited(VFSStorage("archive", tmp_path), tell, lambda: limits[0])
    volume = VFSVolume("volume1", tmp_path)
    await volume.create_vfolder(VFID)

    async def keep(limit: int | None) -> None:
        await volume.set_quota_scope(VFID.quota_scope, limit)

    return Limited(VolumeStorageAdapter("v", volume, VFID), keep, lambda: None)


async def test_an_import_fits_to_the_last_byte_and_not_beyond(place: Limited) -> None:
    await place.put("mine", 300)
    for limit, fits in ((None, True), (10_000, True), (1000, True), (999, False), (300, False), (0, False)):
        await place.set_limit(limit)
        if fits:
            await place.reserve(ONE, 700)
            await place.insist(ONE)
        else:
            with pytest.raises(QuotaExceeded, match=f"300 of the {limit} bytes"):
                await place.reserve(ONE, 700)
        await place.discard(ONE)
    await place.set_limit(1000)
    await Model({"model.bin": b"m" * 700}).bring(place.storage, "org/model")


async def test_of_two_that_fit_alone_the_later_one_is_refused_and_the_room_is_free_again(
    place: Limited,
) -> None:
    await place.set_limit(1000)
    await place.reserve(ONE, 600)
    with pytest.raises(QuotaExceeded, match="600 of the 1000 bytes"):
        await place.reserve(TWO, 401)
    await place.reserve(TWO, 400)
    await place.write(TWO, "b", 400)
    await place.insist(ONE)
    await place.insist(TWO)
    await place.discard(ONE)
    await place.reserve(ONE, 600)


async def test_of_many_at_once_no_more_get_room_than_there_is(place: Limited) -> None:
    await place.set_limit(1000)
    found = await asyncio.gather(
        *(place.reserve(UUID(int=number), 300) for number in range(1, 9)), return_exceptions=True
    )
    assert [type(each) for each in found].count(QuotaExceeded) == 5
    assert found.count(None) == 3


async def test_what_was_promised_holds_for_whoever_takes_the_import_over(place: Limited) -> None:
    size = PIECE + 1000
    await place.set_limit(size)
    await place.reserve(ONE, size)
    data = b"y" * size
    with (await place.storage.open_staging(ONE)).open_writer(planned("big", data)) as writer:
        writer.write(0, memoryview(data)[:PIECE])
    await place.reserve(ONE, size)  # a partial file is needed in full, and counts once
    with pytest.raises(QuotaExceeded):
        await place.reserve(TWO, 1)
    await place.insist(ONE)


async def test_what_somebody_writes_meanwhile_and_a_limit_that_shrinks_are_noticed(place: Limited) -> None:
    await place.set_limit(1000)
    await place.reserve(ONE, 600)
    await place.write(ONE, "a", 500)
    await place.put("mine", 400)
    await place.insist(ONE)
    await place.put("more", 1)
    with pytest.raises(QuotaExceeded, match="1001 bytes"):
        await place.insist(ONE)
    await place.set_limit(1001)
    await place.insist(ONE)
    await place.set_limit(700)
    with pytest.raises(QuotaExceeded, match="allows 700 by now"):
        await place.insist(ONE)
    await place.set_limit(None)
    await place.insist(ONE)


async def test_the_older_of_two_stays_where_a_limit_shrinks_to_one(place: Limited) -> None:
    await place.set_limit(1000)
    await place.reserve(TWO, 500)
    await place.reserve(ONE, 500)
    await place.write(ONE, "a", 500)
    await place.set_limit(600)
    await place.insist(TWO)
    with pytest.raises(QuotaExceeded):
        await place.insist(ONE)
