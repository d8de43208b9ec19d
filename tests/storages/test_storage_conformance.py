"""What every `AbstractStorage` promises, wherever its bytes lie."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from proxy_client.errors import DestinationConflict, NotFound, PathRefused, StorageFailure
from storage_proxy.storages.base import PIECE, StagingArea
from tests.storages.models import (
    FAIL,
    OVERWRITE,
    Model,
    Place,
    chunks,
    digests_of,
    fill,
    planned,
    write,
)

pytestmark = pytest.mark.anyio

MODEL = Model({"config.json": b"{}", "weights/model.bin": b"w" * 300_000, "empty": b""})
TASK = UUID(int=1)
DATA = os.urandom(1 << 20) * 17 + b"end"  # two pieces and a bit
BIG = planned("a/big", DATA)


async def read(place: Place, path: str) -> bytes:
    return b"".join([chunk async for chunk in place.storage.stream_download(path)])


async def staged(staging: StagingArea, path: str) -> bytes:
    return b"".join([chunk async for chunk in staging.read(path)])


# The visible side.


async def test_an_uploaded_file_comes_back_with_its_digests(place: Place) -> None:
    data = os.urandom(2_500_000)
    uploaded = await place.storage.stream_upload("a/b.bin", chunks(data[:7], data[7:]))
    assert (uploaded.size, uploaded.sha256) == (len(data), digests_of(data).sha256)
    assert await read(place, "a/b.bin") == data
    assert all([len(chunk) <= 1 << 20 async for chunk in place.storage.stream_download("a/b.bin")])
    info = await place.storage.get_file_info("a/b.bin")
    assert (info.path, info.size) == ("a/b.bin", len(data))
    assert info.modified_at.tzinfo is not None


async def test_an_upload_replaces_and_one_that_breaks_off_does_not(place: Place) -> None:
    await place.storage.stream_upload("a", chunks(b"first"))

    async def broken() -> object:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await place.storage.stream_upload("a", broken())
    assert await read(place, "a") == b"first"
    await place.storage.stream_upload("a", chunks(b"second"))
    assert await place.visible() == {"a": b"second"}
    assert await place.hidden() == []


async def test_an_empty_file_is_a_file(place: Place) -> None:
    assert (await place.storage.stream_upload("empty", chunks())).sha256 == digests_of(b"").sha256
    assert await read(place, "empty") == b""
    assert (await place.storage.get_file_info("empty")).size == 0


async def test_a_file_that_is_not_there_is_not_found(place: Place) -> None:
    await place.put({"folder/file": b"x"})
    for path in ("none", "no/where", "folder", "fold", "folder/file/deeper"):
        with pytest.raises(NotFound):
            await read(place, path)
        with pytest.raises(NotFound):
            await place.storage.get_file_info(path)
        with pytest.raises(NotFound):
            await place.storage.delete_file(path)
        assert await asyncio.to_thread(place.storage.open_local, path) is None
    assert await place.visible() == {"folder/file": b"x"}


async def test_a_deleted_file_is_gone(place: Place) -> None:
    await place.storage.stream_upload("a/b", chunks(b"x"))
    await place.storage.stream_upload("a/bc", chunks(b"y"))
    await place.storage.delete_file("a/b")
    with pytest.raises(NotFound):
        await place.storage.delete_file("a/b")
    assert await place.visible() == {"a/bc": b"y"}


async def test_hostile_paths_are_refused_everywhere(place: Place) -> None:
    staging = await place.storage.open_staging(uuid4())
    for path in ("../x", "/etc/x", ".staging/x", "a\0"):
        with pytest.raises(PathRefused):
            await place.storage.stream_upload(path, chunks(b""))
        with pytest.raises(PathRefused):
            await place.storage.get_file_info(path)
        with pytest.raises(PathRefused):
            await place.storage.delete_file(path)
        with pytest.raises(PathRefused):
            await asyncio.to_thread(staging.open_writer, planned(path, b"x"))
        with pytest.raises(PathRefused):
            await asyncio.to_thread(staging.add, planned(path, b"x"), b"x")
        with pytest.raises(PathRefused):
            await asyncio.to_thread(staging.open_local, path)
        with pytest.raises(PathRefused):
            await staging.digests(planned(path, b"x"))
        with pytest.raises(PathRefused):
            await staging.drop(path)
        for plan in (Model({path: b"x"}).plan("ok"), MODEL.plan(path)):
            with pytest.raises(PathRefused):
                await place.storage.check_conflicts(plan, FAIL)
            with pytest.raises(PathRefused):
                await place.storage.present_files(plan)
            with pytest.raises(PathRefused):
                await place.storage.publish(plan, [], FAIL)
    assert await place.visible() == {}


async def test_an_error_names_no_place_of_the_machine(place: Place, tmp_path: Path) -> None:
    for attempt in (place.storage.get_file_info("none"), place.storage.delete_file("no/where")):
        with pytest.raises(NotFound) as raised:
            await attempt
        assert str(tmp_path) not in raised.value.message


# Publishing.


async def test_what_is_staged_is_hidden_until_it_is_published(place: Place) -> None:
    await MODEL.stage(place.storage, "org/model/main")
    assert await place.visible() == {}
    assert not await place.storage.publishing(MODEL.task_id)
    plan = MODEL.plan("org/model/main")
    assert await place.storage.present_files(plan) == []
    manifest = await place.storage.publish(plan, MODEL.staged(), FAIL)
    assert await place.storage.publishing(MODEL.task_id)
    assert {path: await read(place, f"org/model/main/{path}") for path in MODEL.files} == MODEL.files
    assert {file.path for file in await place.storage.present_files(plan)} == set(MODEL.files)
    assert await place.storage.publish(plan, [], FAIL) == manifest
    await (await place.storage.open_staging(MODEL.task_id)).discard()
    assert not await place.storage.publishing(MODEL.task_id)
    assert await place.storage.publish(plan, [], FAIL) == manifest
    assert await place.hidden() == []


async def test_the_users_own_file_is_in_the_way(place: Place) -> None:
    await place.put({"a/config.json": b"mine", "a/mine": b"m", "ab": b"sibling"})
    before = await place.visible()
    with pytest.raises(DestinationConflict, match=r"config\.json"):
        await MODEL.bring(place.storage, "a")
    assert await place.visible() == before
    await MODEL.bring(place.storage, "a", OVERWRITE)
    found = await place.visible()
    assert {path: found[f"a/{path}"] for path in MODEL.files} == MODEL.files
    assert (found["a/mine"], found["ab"]) == (b"m", b"sibling")
    assert await place.hidden() == []


async def test_a_new_revision_replaces_and_removes_what_was_imported(place: Place) -> None:
    await MODEL.bring(place.storage, "a")
    await place.put({"a/mine": b"m"})
    newer = replace(MODEL, files={"config.json": b"[]", "sub/new": b"n"}, task_id=uuid4())
    manifest = await newer.bring(place.storage, "a")
    found = await place.visible()
    assert {path for path in found if ".stowage" not in path} == {"a/config.json", "a/sub/new", "a/mine"}
    assert {file.path for file in manifest.files} == {"config.json", "sub/new"}


async def test_present_files_are_those_with_the_right_bytes(place: Place) -> None:
    files = {**MODEL.files, "config.json": b"[]"}
    del files["empty"]
    await place.put({f"a/{path}": data for path, data in files.items()})
    present = await place.storage.present_files(MODEL.plan("a"))
    assert [file.path for file in present] == ["weights/model.bin"]


# The hidden side.


async def test_the_plan_is_kept_and_another_commits_is_refused(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)
    assert await staging.load_plan() is None
    plan = Model({"a": b"1", "ümlaut": b""}).plan("a/b")
    await staging.save_plan(plan)
    staging = await place.storage.open_staging(TASK)
    assert await staging.load_plan() == plan
    await staging.save_plan(plan)
    with pytest.raises(StorageFailure, match="discard"):
        await staging.save_plan(Model({"a": b"2"}).plan("a/b"))
    await staging.discard()
    await staging.discard()
    assert await place.hidden() == []
    assert await (await place.storage.open_staging(TASK)).load_plan() is None


@pytest.mark.parametrize("lfs", [True, False], ids=["sha256", "blob id"])
async def test_a_finished_file_has_its_digests(place: Place, lfs: bool) -> None:
    staging = await place.storage.open_staging(TASK)
    file = planned("a/b", b"content", lfs=lfs)
    assert await staging.digests(file) is None
    found = await asyncio.to_thread(write, staging, file, b"content")
    assert found == digests_of(b"content", blob_id=not lfs)
    assert file.matches(found)
    for area in (staging, await place.storage.open_staging(TASK)):
        assert await area.digests(file) == found
    assert await staged(staging, "a/b") == b"content"


async def test_ranges_are_written_by_several_threads_at_once(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)

    def work() -> object:
        with staging.open_writer(BIG) as writer, ThreadPoolExecutor() as threads:
            assert writer.missing() == [(0, len(DATA))]

            def put_range(start: int) -> None:
                stop = min(start + PIECE, len(DATA))
                for begin in range(start, stop, 3_000_000):
                    writer.write(begin, memoryview(DATA)[begin : min(begin + 3_000_000, stop)])

            list(threads.map(put_range, reversed(range(0, len(DATA), PIECE))))
            assert writer.missing() == []
            return writer.finish()

    assert await asyncio.to_thread(work) == digests_of(DATA, blob_id=False)
    assert await staged(staging, "a/big") == DATA


async def test_leaving_without_finish_keeps_every_whole_piece(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)

    def leave() -> None:
        with suppress(ConnectionResetError), staging.open_writer(BIG) as writer:
            writer.write(PIECE, memoryview(DATA)[PIECE : 2 * PIECE])
            writer.write(0, memoryview(DATA)[:5000])
            raise ConnectionResetError

    await asyncio.to_thread(leave)
    assert await staging.digests(BIG) is None
    for _ in range(2):
        staging = await place.storage.open_staging(TASK)
        with await asyncio.to_thread(staging.open_writer, BIG) as writer:
            (start, stop), *rest = writer.missing()
            assert start <= 5000
            assert stop == PIECE
            assert rest == [(2 * PIECE, len(DATA))]
    assert await asyncio.to_thread(write, staging, BIG, DATA) == digests_of(DATA, blob_id=False)
    assert await staged(staging, "a/big") == DATA


async def test_a_restart_forgets_every_byte(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)

    def work() -> object:
        with staging.open_writer(BIG) as writer:
            writer.write(0, memoryview(b"x" * (PIECE + 10)))
            writer.restart()
            assert writer.missing() == [(0, len(DATA))]
        with staging.open_writer(BIG) as writer:
            assert writer.missing() == [(0, len(DATA))]
            fill(writer, DATA)
            return writer.finish()

    assert await asyncio.to_thread(work) == digests_of(DATA, blob_id=False)
    assert await staged(staging, "a/big") == DATA


async def test_a_file_that_is_not_whole_is_not_finished(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)

    def work() -> None:
        with staging.open_writer(BIG) as writer:
            writer.write(0, memoryview(DATA)[:PIECE])
            with pytest.raises(StorageFailure, match="not whole"):
                writer.finish()

    await asyncio.to_thread(work)
    assert await staging.digests(BIG) is None


async def test_more_than_the_file_holds_is_refused(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)

    def work() -> None:
        with (
            staging.open_writer(planned("a", b"abc")) as writer,
            pytest.raises(StorageFailure, match="longer than 3 bytes"),
        ):
            writer.write(0, memoryview(b"abcd"))

    await asyncio.to_thread(work)
    assert await staging.digests(planned("a", b"abc")) is None


async def test_every_buffer_is_released_once(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)
    released: list[int] = []
    lock = threading.Lock()

    def release(number: int) -> None:
        with lock:
            released.append(number)

    def work() -> None:
        with staging.open_writer(BIG) as writer:
            for number, begin in enumerate(range(0, len(DATA), 1 << 20)):
                data = memoryview(DATA)[begin : begin + (1 << 20)]
                writer.write(begin, data, lambda number=number: release(number))
            writer.finish()

    await asyncio.to_thread(work)
    assert sorted(released) == list(range(18))


async def test_a_whole_file_is_copied_from_a_local_one(place: Place, tmp_path: Path) -> None:
    staging = await place.storage.open_staging(TASK)
    source = tmp_path / "source"
    source.write_bytes(DATA)

    def work() -> object:
        with source.open("rb") as file, staging.open_writer(BIG) as writer:
            writer.copy_from(file.fileno())
            assert writer.missing() == []
            return writer.finish()

    assert await asyncio.to_thread(work) == digests_of(DATA, blob_id=False)
    source.write_bytes(b"changed since")
    assert await staged(staging, "a/big") == DATA


async def test_a_copy_of_another_size_is_refused(place: Place, tmp_path: Path) -> None:
    staging = await place.storage.open_staging(TASK)
    (tmp_path / "source").write_bytes(DATA[:-1])

    def work() -> None:
        with (tmp_path / "source").open("rb") as file, staging.open_writer(BIG) as writer:
            with pytest.raises(StorageFailure, match="another size"):
                writer.copy_from(file.fileno())
            writer.restart()
            assert writer.missing() == [(0, len(DATA))]

    await asyncio.to_thread(work)


async def test_small_files_are_added_by_many_threads(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)
    files = {f"folder{number % 3}/{number}": b"%d" % number * 1000 for number in range(40)}
    plan = [planned(path, data, lfs=bool(len(path) % 2)) for path, data in files.items()]

    def work() -> None:
        with ThreadPoolExecutor(8) as threads:
            for file, found in zip(
                plan, threads.map(lambda file: staging.add(file, files[file.path]), plan), strict=True
            ):
                assert file.matches(found)

    await asyncio.to_thread(work)
    await staging.settle()
    again = await place.storage.open_staging(TASK)
    found = await again.all_digests([*plan, planned("none", b"")])
    assert found == {file.path: digests_of(files[file.path], blob_id=file.wants_blob_id) for file in plan}
    assert await staged(again, "folder0/3") == files["folder0/3"]
    assert await place.visible() == {}


async def test_a_dropped_file_is_gone_finished_or_not(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)
    small = planned("small", b"x")

    def begin() -> None:
        staging.add(small, b"x")
        with staging.open_writer(BIG) as writer:
            writer.write(0, memoryview(DATA)[:PIECE])

    def begins_anew() -> bool:
        with staging.open_writer(BIG) as writer:
            return writer.missing() == [(0, len(DATA))]

    await asyncio.to_thread(begin)
    for path in ("small", "a/big", "a/big", "none"):
        await staging.drop(path)
    assert await asyncio.to_thread(begins_anew)
    await asyncio.to_thread(write, staging, BIG, DATA)
    await staging.drop("a/big")
    assert await asyncio.to_thread(begins_anew)
    assert await staging.all_digests([small, BIG]) == {}


async def test_a_wrong_file_is_brought_again(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)
    small = planned("small", b"right", lfs=False)
    assert not small.matches(await asyncio.to_thread(staging.add, small, b"wrong"))
    await staging.drop("small")
    assert small.matches(await asyncio.to_thread(staging.add, small, b"right"))
    await staging.settle()
    assert await staging.digests(small) == digests_of(b"right")
    assert await staged(staging, "small") == b"right"


async def test_a_local_file_is_opened_where_there_is_one(place: Place) -> None:
    staging = await place.storage.open_staging(TASK)
    await asyncio.to_thread(staging.add, planned("a/b", b"content"), b"content")
    await staging.settle()
    assert await asyncio.to_thread(staging.open_local, "none") is None
    fd = await asyncio.to_thread(staging.open_local, "a/b")
    if fd is not None:
        with os.fdopen(fd, "rb") as file:
            assert file.read() == b"content"
    await staging.discard()
