"""What every `AbstractVolume` promises."""

import asyncio
import os
import shutil
import stat
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from proxy_client.errors import (
    BadRequest,
    DestinationConflict,
    NotFound,
    PathRefused,
    QuotaExceeded,
    StorageFailure,
)
from proxy_client.wire import QuotaScopeID, VFolderID
from storage_proxy.volumes import directory
from storage_proxy.volumes.quota import Usage
from storage_proxy.volumes.vfs import VFSVolume, folder_path
from tests.storages.models import Model, chunks, digests_of, modes, put

pytestmark = pytest.mark.anyio


async def test_a_vfolder_lies_where_the_layout_says(volume: VFSVolume, mount: Path, vfid: VFolderID) -> None:
    await volume.create_vfolder(vfid)
    await volume.create_vfolder(vfid)
    await volume.add_file(vfid, "a/b.txt", chunks(b"x"))
    found = mount / vfid.quota_scope.id.hex / "de" / "ad" / "beefdeadbeefdeadbeefdeadbeef" / "a" / "b.txt"
    assert found.read_bytes() == b"x"
    await volume.stage(vfid, UUID(int=7))
    staged = mount / vfid.quota_scope.id.hex / ".staging" / str(UUID(int=7))
    assert stat.S_IMODE(staged.stat().st_mode) == 0o700
    assert stat.S_IMODE(staged.parent.stat().st_mode) == 0o700


async def test_a_projects_files_are_its_groups_too(volume: VFSVolume, mount: Path) -> None:
    vfid = VFolderID(QuotaScopeID("project", uuid4()), uuid4())
    await volume.create_vfolder(vfid)
    await volume.add_file(vfid, "a/b.txt", chunks(b"x"))
    found = modes(mount)
    assert (found["a"], found["b.txt"], found[vfid.folder.hex[4:]]) == (0o775, 0o664, 0o775)


async def test_files_are_added_read_described_and_deleted(volume: VFSVolume, vfid: VFolderID) -> None:
    await volume.create_vfolder(vfid)
    assert await volume.add_file(vfid, "a/b", chunks(b"12", b"3")) == digests_of(b"123")
    assert b"".join([chunk async for chunk in volume.read_file(vfid, "a/b")]) == b"123"
    assert (await volume.get_file_info(vfid, "a/b")).size == 3
    await volume.delete_files(vfid, ["a/b", "not/there", "a"])
    assert [entry.path for entry in await volume.list_files(vfid)] == ["a"]


async def test_a_listing_is_sorted_and_leaves_links_out(
    volume: VFSVolume, mount: Path, vfid: VFolderID
) -> None:
    await volume.create_vfolder(vfid)
    await volume.mkdir(vfid, "b/c")
    await volume.mkdir(vfid, "b/c")
    await volume.add_file(vfid, "a", chunks(b"12"))
    await volume.add_file(vfid, "b/file", chunks(b"1"))
    root = mount / folder_path(vfid)
    (root / "link").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    os.mknod(os.fsencode(root) + b"/\xff")
    entries = await volume.list_files(vfid)
    assert [(entry.path, entry.size, entry.is_directory) for entry in entries] == [
        ("a", 2, False),
        ("b", 0, True),
        ("\ufffd", 0, False),
    ]
    assert await volume.list_files(vfid, "/") == entries
    assert [entry.path for entry in await volume.list_files(vfid, "b")] == ["b/c", "b/file"]
    with pytest.raises(NotFound):
        await volume.list_files(vfid, "none")
    for path in ("a", "link"):
        with pytest.raises(BadRequest) as raised:
            await volume.list_files(vfid, path)
        assert raised.value.field == "path"
    with pytest.raises(PathRefused):
        await volume.list_files(vfid, "../..")


async def test_a_folder_cannot_be_made_where_a_file_lies(volume: VFSVolume, vfid: VFolderID) -> None:
    await volume.create_vfolder(vfid)
    await volume.add_file(vfid, "a", chunks(b""))
    for path in ("a", "a/b"):
        with pytest.raises(DestinationConflict):
            await volume.mkdir(vfid, path)


async def test_a_listing_that_would_be_too_long_is_refused(
    volume: VFSVolume, mount: Path, vfid: VFolderID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "MOST_LISTED", 3)
    await volume.create_vfolder(vfid)
    root = mount / folder_path(vfid)
    put(root, {f"many/{name}": b"" for name in "abc"})
    assert len(await volume.list_files(vfid, "many")) == 3
    put(root, {"many/d": b""})
    with pytest.raises(BadRequest, match="'many' holds 4 entries, and at most 3 are listed; name") as refusal:
        await volume.list_files(vfid, "many")
    assert refusal.value.field == "path"
    assert [entry.path for entry in await volume.list_files(vfid)] == ["many"]


async def test_walks_over_whole_folders_make_nothing_else_wait(
    volume: VFSVolume, vfid: VFolderID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await volume.create_vfolder(vfid)
    walking, most, go_on, count = 0, 0, threading.Event(), threading.Lock()

    def slow(*_: object, **__: object) -> Usage:
        nonlocal walking, most
        with count:
            walking += 1
            most = max(most, walking)
        go_on.wait(60)
        with count:
            walking -= 1
        return Usage(0, 0)

    monkeypatch.setattr(directory, "measure", slow)
    walks = [asyncio.create_task(volume.vfolder_usage(vfid)) for _ in range(100)]
    try:
        async with asyncio.timeout(30):
            while walking < 4:
                await asyncio.sleep(0.01)
            await volume.info()
            assert await volume.list_files(vfid) == []
    finally:
        go_on.set()
        await asyncio.gather(*walks)
    assert most == 4


async def test_a_path_is_sanitized_by_the_one_policy(volume: VFSVolume, vfid: VFolderID) -> None:
    assert volume.sanitize_vfpath(vfid, "a/b") == "a/b"
    with pytest.raises(PathRefused):
        volume.sanitize_vfpath(vfid, "a/../b")


async def test_a_vfolder_that_is_not_there_is_not_found(volume: VFSVolume, vfid: VFolderID) -> None:
    for attempt in (
        volume.list_files(vfid),
        volume.vfolder_usage(vfid),
        volume.mkdir(vfid, "a"),
        volume.add_file(vfid, "a", chunks(b"")),
        volume.get_file_info(vfid, "a"),
        volume.stage(vfid, uuid4()),
        volume.reserve(vfid, 1),
        volume.present_files(vfid, Model({"a": b""}).plan("x")),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_a_deleted_vfolder_is_gone_with_everything_in_it(
    volume: VFSVolume, mount: Path, vfid: VFolderID
) -> None:
    await volume.delete_vfolder(vfid)
    await volume.create_vfolder(vfid)
    other = VFolderID(vfid.quota_scope, uuid4())
    await volume.create_vfolder(other)
    await volume.add_file(other, "kept", chunks(b"x"))
    root = mount / folder_path(vfid)
    outside = mount.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (root / "link").symlink_to(outside)
    deep = os.open(root, os.O_RDONLY)
    for _ in range(1500):  # deeper than PATH_MAX and than Python recurses
        os.mkdir("d", dir_fd=deep)
        inner = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    await volume.delete_vfolder(vfid)
    await volume.delete_vfolder(vfid)
    with pytest.raises(NotFound):
        await volume.list_files(vfid)
    assert [entry.path for entry in await volume.list_files(other)] == ["kept"]
    assert (outside / "file").read_bytes() == b"theirs"
    staging = mount / vfid.quota_scope.id.hex / ".staging"
    assert [path.name for path in staging.iterdir()] == ["uploads"]


async def test_what_is_staged_for_a_deleted_vfolder_can_be_discarded(
    volume: VFSVolume, mount: Path, vfid: VFolderID
) -> None:
    await volume.create_vfolder(vfid)
    await volume.stage(vfid, UUID(int=7))
    await volume.delete_vfolder(vfid)
    await (await volume.stage(vfid, UUID(int=7))).discard()
    assert not (mount / vfid.quota_scope.id.hex / ".staging" / str(UUID(int=7))).exists()


async def test_use_and_limit_of_a_scope(volume: VFSVolume, vfid: VFolderID) -> None:
    scope = vfid.quota_scope
    found = await volume.get_quota_scope(scope)
    assert (found.used_bytes, found.limit_bytes) == (0, None)
    found = await volume.set_quota_scope(scope, 1000)
    assert (found.used_bytes, found.limit_bytes) == (0, 1000)
    await volume.create_vfolder(vfid)
    await volume.add_file(vfid, "a", chunks(b"x" * 700))
    await volume.add_file(vfid, "b/c", chunks(b"x" * 100))
    usage = await volume.vfolder_usage(vfid)
    assert (usage.used_bytes, usage.file_count, usage.limit_bytes) == (800, 2, 1000)
    await volume.reserve(vfid, 200)
    with pytest.raises(QuotaExceeded, match="800 of the 1000 bytes"):
        await volume.reserve(vfid, 201)
    assert (await volume.set_quota_scope(scope, 10)).used_bytes == 800
    await volume.reserve(vfid, 0)
    await volume.set_quota_scope(scope, None)
    await volume.reserve(vfid, 201)


async def test_a_hard_link_counts_once(volume: VFSVolume, mount: Path, vfid: VFolderID) -> None:
    await volume.create_vfolder(vfid)
    await volume.add_file(vfid, "a", chunks(b"x" * 100))
    root = mount / folder_path(vfid)
    os.link(root / "a", root / "b")
    assert (await volume.vfolder_usage(vfid)).used_bytes == 100


async def test_a_volume_tells_its_capacity(volume: VFSVolume, mount: Path) -> None:
    info = await volume.info()
    assert (info.name, info.backend) == ("volume1", "vfs")
    assert info.total_bytes is not None
    assert info.used_bytes is not None
    assert 0 < info.used_bytes < info.total_bytes
    shutil.rmtree(mount)
    with pytest.raises(StorageFailure, match="mounted") as raised:
        await volume.info()
    assert str(mount) not in raised.value.message
