"""What every `AbstractStorage` promises."""

import os
import shutil
import stat
from pathlib import Path
from uuid import uuid4

import pytest

from proxy_client.errors import DestinationConflict, DiskFull, NotFound, PathRefused, StorageFailure
from tests.storages.models import FAIL, OVERWRITE, Model, Storage, chunks, digests_of, look, put

pytestmark = pytest.mark.anyio

MODEL = Model({"config.json": b"{}", "weights/model.bin": b"w" * 300_000, "empty": b""})


async def read(place: Storage, path: str) -> bytes:
    return b"".join([chunk async for chunk in place.storage.stream_download(path)])


async def test_an_uploaded_file_comes_back_with_its_digests(place: Storage) -> None:
    data = os.urandom(2_500_000)
    assert await place.storage.stream_upload("a/b.bin", chunks(data[:7], data[7:])) == digests_of(data)
    assert await read(place, "a/b.bin") == data
    assert all([len(chunk) <= 1 << 20 async for chunk in place.storage.stream_download("a/b.bin")])
    info = await place.storage.get_file_info("a/b.bin")
    assert (info.path, info.size) == ("a/b.bin", len(data))
    assert info.modified_at.tzinfo is not None


async def test_an_upload_replaces_and_one_that_breaks_off_does_not(place: Storage) -> None:
    await place.storage.stream_upload("a", chunks(b"first"))

    async def broken() -> object:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await place.storage.stream_upload("a", broken())
    assert await read(place, "a") == b"first"
    await place.storage.stream_upload("a", chunks(b"second"))
    assert look(place.root) == {"a": b"second"}
    assert not [path for path in place.staging.rglob("*") if path.is_file()]


async def test_a_file_that_is_not_there_is_not_found(place: Storage) -> None:
    (place.root / "folder").mkdir()
    os.mkfifo(place.root / "fifo")
    (place.root / "link").symlink_to("/etc/passwd")
    (place.root / "out").symlink_to("/etc")
    for path in ("none", "no/where", "folder", "fifo", "link", "out/passwd"):
        with pytest.raises(NotFound):
            await read(place, path)
        with pytest.raises(NotFound):
            await place.storage.get_file_info(path)
        with pytest.raises(NotFound):
            await place.storage.delete_file(path)
    assert len(look(place.root)) == 4


async def test_a_deleted_file_is_gone(place: Storage) -> None:
    await place.storage.stream_upload("a/b", chunks(b"x"))
    await place.storage.delete_file("a/b")
    with pytest.raises(NotFound):
        await place.storage.delete_file("a/b")


async def test_hostile_paths_are_refused_everywhere(place: Storage) -> None:
    staging = await place.storage.open_staging(uuid4())
    for path in ("../x", "/etc/x", ".staging/x", "a\0"):
        with pytest.raises(PathRefused):
            await place.storage.stream_upload(path, chunks(b""))
        with pytest.raises(PathRefused):
            await place.storage.get_file_info(path)
        with pytest.raises(PathRefused):
            await place.storage.delete_file(path)
        with pytest.raises(PathRefused):
            staging.open_writer(path, 1)
        with pytest.raises(PathRefused):
            await staging.digests(path)
        for plan in (Model({path: b"x"}).plan("ok"), MODEL.plan(path)):
            with pytest.raises(PathRefused):
                await place.storage.check_conflicts(plan, FAIL)
            with pytest.raises(PathRefused):
                await place.storage.present_files(plan)
            with pytest.raises(PathRefused):
                await place.storage.publish(plan, [], FAIL)
    assert look(place.root) == {}


async def test_a_link_in_the_way_is_never_followed(place: Storage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (place.root / "out").symlink_to(outside)
    (place.root / "file").symlink_to(outside / "file")
    with pytest.raises(DestinationConflict):
        await place.storage.stream_upload("out/new", chunks(b"x"))
    await place.storage.stream_upload("file", chunks(b"ours"))
    assert look(outside) == {"file": b"theirs"}
    assert (place.root / "file").read_bytes() == b"ours"
    for path, on_conflict in (("out", FAIL), ("out", OVERWRITE), ("out/deeper", OVERWRITE)):
        with pytest.raises(DestinationConflict):
            await MODEL.bring(place.storage, path, on_conflict)
    assert look(outside) == {"file": b"theirs"}


async def test_a_planted_hard_link_is_not_written_through(place: Storage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    os.link(outside, place.root / "config.json")
    await place.storage.stream_upload("config.json", chunks(b"ours"))
    assert outside.read_bytes() == b"theirs"
    (place.root / "config.json").unlink()
    os.link(outside, place.root / "config.json")
    await MODEL.bring(place.storage, "/", OVERWRITE)
    assert outside.read_bytes() == b"theirs"


async def test_modes_are_ours_whatever_the_umask(place: Storage) -> None:
    before = os.umask(0o077)
    try:
        await MODEL.bring(place.storage, "org/model/main")
        await place.storage.stream_upload("up/load", chunks(b"x"))
    finally:
        os.umask(before)
    for path in place.root.rglob("*"):
        if ".staging" in path.relative_to(place.root).parts:
            continue
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) == (0o755 if stat.S_ISDIR(mode) else 0o644), path


async def test_files_belong_to_whom_the_folder_belongs(place: Storage) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(place.root, 1234, 2345)
    await MODEL.bring(place.storage, "a/b")
    await place.storage.stream_upload("up/load", chunks(b"x"))
    for path in place.root.rglob("*"):
        if ".staging" not in path.relative_to(place.root).parts:
            assert (path.lstat().st_uid, path.lstat().st_gid) == (1234, 2345), path


async def test_what_is_staged_is_hidden_until_it_is_published(place: Storage) -> None:
    await MODEL.stage(place.storage, "org/model/main")
    assert look(place.root) == {}
    assert stat.S_IMODE((place.staging / str(MODEL.task_id)).stat().st_mode) == 0o700
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
    assert not (place.staging / str(MODEL.task_id)).exists()


async def test_room_is_checked_before_a_byte_is_written(place: Storage) -> None:
    await place.storage.reserve(1)
    with pytest.raises(DiskFull, match="are free"):
        await place.storage.reserve(1 << 60)


async def test_a_folder_that_is_gone_is_said_without_its_place(place: Storage, tmp_path: Path) -> None:
    shutil.rmtree(place.root)
    for attempt in (
        place.storage.stream_upload("a", chunks(b"")),
        place.storage.get_file_info("a"),
        place.storage.reserve(1),
        place.storage.open_staging(uuid4()),
        place.storage.publishing(uuid4()),
        place.storage.check_conflicts(MODEL.plan("a"), FAIL),
        place.storage.publish(MODEL.plan("a"), [], FAIL),
    ):
        with pytest.raises((NotFound, StorageFailure)) as raised:
            await attempt
        assert str(tmp_path) not in raised.value.message
    assert not place.root.exists()


async def test_present_files_are_those_with_the_right_bytes(place: Storage) -> None:
    files = {**MODEL.files, "config.json": b"[]"}
    put(place.root / "a", files)
    (place.root / "a" / "empty").unlink()
    (place.root / "a" / "empty").symlink_to("/dev/null")
    present = await place.storage.present_files(MODEL.plan("a"))
    assert [file.path for file in present] == ["weights/model.bin"]
