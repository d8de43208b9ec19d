"""What every storage in a directory promises besides: links, owners, modes, room."""

import os
import shutil
import stat
from pathlib import Path
from uuid import uuid4

import pytest

from proxy_client.errors import DestinationConflict, DiskFull, NotFound, StorageFailure
from tests.storages.models import FAIL, OVERWRITE, Model, Storage, chunks, look, put

pytestmark = pytest.mark.anyio

MODEL = Model({"config.json": b"{}", "weights/model.bin": b"w" * 300_000, "empty": b""})


async def test_what_is_no_regular_file_is_not_found(directory: Storage) -> None:
    (directory.root / "folder").mkdir()
    os.mkfifo(directory.root / "fifo")
    (directory.root / "link").symlink_to("/etc/passwd")
    (directory.root / "out").symlink_to("/etc")
    for path in ("folder", "fifo", "link", "out/passwd"):
        with pytest.raises(NotFound):
            await anext(aiter(directory.storage.stream_download(path)))
        with pytest.raises(NotFound):
            await directory.storage.get_file_info(path)
        with pytest.raises(NotFound):
            await directory.storage.delete_file(path)
    assert len(look(directory.root)) == 4


async def test_a_link_in_the_way_is_never_followed(directory: Storage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (directory.root / "out").symlink_to(outside)
    (directory.root / "file").symlink_to(outside / "file")
    with pytest.raises(DestinationConflict):
        await directory.storage.stream_upload("out/new", chunks(b"x"))
    await directory.storage.stream_upload("file", chunks(b"ours"))
    assert look(outside) == {"file": b"theirs"}
    assert (directory.root / "file").read_bytes() == b"ours"
    for path, on_conflict in (("out", FAIL), ("out", OVERWRITE), ("out/deeper", OVERWRITE)):
        with pytest.raises(DestinationConflict):
            await MODEL.bring(directory.storage, path, on_conflict)
    assert look(outside) == {"file": b"theirs"}


async def test_a_planted_hard_link_is_not_written_through(directory: Storage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    os.link(outside, directory.root / "config.json")
    await directory.storage.stream_upload("config.json", chunks(b"ours"))
    assert outside.read_bytes() == b"theirs"
    (directory.root / "config.json").unlink()
    os.link(outside, directory.root / "config.json")
    await MODEL.bring(directory.storage, "/", OVERWRITE)
    assert outside.read_bytes() == b"theirs"


async def test_modes_are_ours_whatever_the_umask(directory: Storage) -> None:
    before = os.umask(0o077)
    try:
        await MODEL.bring(directory.storage, "org/model/main")
        await directory.storage.stream_upload("up/load", chunks(b"x"))
    finally:
        os.umask(before)
    for path in directory.root.rglob("*"):
        if ".staging" in path.relative_to(directory.root).parts:
            continue
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) == (0o755 if stat.S_ISDIR(mode) else 0o644), path


async def test_files_belong_to_whom_the_folder_belongs(directory: Storage) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(directory.root, 1234, 2345)
    await MODEL.bring(directory.storage, "a/b")
    await directory.storage.stream_upload("up/load", chunks(b"x"))
    for path in directory.root.rglob("*"):
        if ".staging" not in path.relative_to(directory.root).parts:
            assert (path.lstat().st_uid, path.lstat().st_gid) == (1234, 2345), path


async def test_room_is_checked_before_a_byte_is_written(directory: Storage) -> None:
    await directory.storage.reserve(1)
    with pytest.raises(DiskFull, match="are free"):
        await directory.storage.reserve(1 << 60)


async def test_a_folder_that_is_gone_is_said_without_its_place(directory: Storage, tmp_path: Path) -> None:
    shutil.rmtree(directory.root)
    for attempt in (
        directory.storage.stream_upload("a", chunks(b"")),
        directory.storage.get_file_info("a"),
        directory.storage.reserve(1),
        directory.storage.open_staging(uuid4()),
        directory.storage.publishing(uuid4()),
        directory.storage.check_conflicts(MODEL.plan("a"), FAIL),
        directory.storage.publish(MODEL.plan("a"), [], FAIL),
    ):
        with pytest.raises((NotFound, StorageFailure)) as raised:
            await attempt
        assert str(tmp_path) not in raised.value.message
    assert not directory.root.exists()


async def test_a_link_is_no_present_file(directory: Storage) -> None:
    put(directory.root / "a", MODEL.files)
    (directory.root / "a" / "empty").unlink()
    (directory.root / "a" / "empty").symlink_to("/dev/null")
    present = await directory.storage.present_files(MODEL.plan("a"))
    assert [file.path for file in present] == ["config.json", "weights/model.bin"]


async def test_staging_is_nobody_elses_to_look_into(directory: Storage) -> None:
    await MODEL.stage(directory.storage, "org/model/main")
    assert stat.S_IMODE(directory.staging.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory.staging / str(MODEL.task_id)).stat().st_mode) == 0o700
