"""Disks that are full or refuse: an error that says which, and nothing left behind (P6)."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from proxy_client.errors import (
    DiskFull,
    QuotaExceeded,
    ReadOnlyStorage,
    StorageError,
    StorageFailure,
)
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes import fsio
from tests.storages.disks import make_image, mounted, run
from tests.storages.models import FAIL, Model, chunks, digests_of, fill, look, planned, put, write

pytestmark = pytest.mark.anyio

BIG = Model({"config.json": b"{}", "big": b"x" * 3_000_000})
SMALL = Model({"config.json": b"{}"})
TASK = UUID(int=1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=2m", "none") as path:
        yield path


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A real file system that has quotas even for root, and reflinks."""
    make_image(tmp_path / "image", 256 << 20, "mkfs.btrfs", "-q", "-f")
    with mounted(tmp_path / "disk", "-o", "loop", tmp_path / "image") as path:
        yield path


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


async def test_a_full_disk_fails_one_import_and_no_other(small_disk: Path) -> None:
    storage = VFSStorage("archive", small_disk)
    put(small_disk, {"mine": b"m" * 1000})
    with pytest.raises(DiskFull, match="3000002 bytes are needed"):
        await storage.reserve(3_000_002)
    with pytest.raises(DiskFull, match="ENOSPC") as raised:
        await BIG.bring(storage, "org/big")
    assert str(small_disk) not in raised.value.message
    assert look(small_disk) == {"mine": b"m" * 1000}
    assert not any((small_disk / ".staging").iterdir())
    await SMALL.bring(storage, "org/small")
    assert (small_disk / "org" / "small" / "config.json").read_bytes() == b"{}"


async def test_room_is_taken_when_a_writer_opens(small_disk: Path) -> None:
    storage = VFSStorage("archive", small_disk)
    staging = await storage.open_staging(TASK)
    with pytest.raises(DiskFull, match="ENOSPC"):
        staging.open_writer(planned("big", b"x" * 3_000_000))
    data = b"x" * 1_200_000
    with staging.open_writer(planned("first", data)) as first:
        with pytest.raises(DiskFull):
            staging.open_writer(planned("second", data))
        fill(first, data)
        assert first.finish() == digests_of(data, blob_id=False)
    with pytest.raises(DiskFull):
        staging.add(planned("third", data), data)
    for path in ("big", "second", "third"):
        await staging.drop(path)
    assert write(staging, planned("small", b"s"), b"s") == digests_of(b"s", blob_id=False)


@pytest.mark.soak
async def test_a_quota_of_the_file_system_is_said(btrfs: Path) -> None:
    mount = btrfs / "volume"
    for command in (
        ("btrfs", "quota", "enable", btrfs),
        ("btrfs", "subvolume", "create", mount),
        ("btrfs", "qgroup", "limit", "2M", mount),
    ):
        if not run(*command):
            pytest.skip("no quotas here")
    storage = VFSStorage("archive", mount)
    put(mount, {"mine": b"m" * 1000})
    big = Model({"config.json": b"{}", "big": os.urandom(6_000_000)})
    with pytest.raises(QuotaExceeded, match="EDQUOT"):
        await big.bring(storage, "org/big")
    assert look(mount) == {"mine": b"m" * 1000}
    assert not any((mount / ".staging").iterdir())
    await SMALL.bring(storage, "org/small")
    assert (mount / "org" / "small" / "config.json").read_bytes() == b"{}"


@pytest.mark.soak
async def test_a_copy_shares_its_blocks_where_it_can(btrfs: Path) -> None:
    data = os.urandom(1 << 20) * 40
    (btrfs / "source").write_bytes(data)
    run("sync", "-f", btrfs)
    before = os.statvfs(btrfs).f_bavail
    staging = await VFSStorage("archive", btrfs).open_staging(TASK)
    file = planned("copy", data)
    with (btrfs / "source").open("rb") as source, staging.open_writer(file) as writer:
        writer.copy_from(source.fileno())
        assert file.matches(writer.finish())
    run("sync", "-f", btrfs)
    taken = (before - os.statvfs(btrfs).f_bavail) * os.statvfs(btrfs).f_frsize
    assert taken < len(data) // 2


async def test_an_upload_that_finds_no_room_leaves_nothing(small_disk: Path) -> None:
    storage = VFSStorage("archive", small_disk)
    with pytest.raises(DiskFull):
        await storage.stream_upload("big", chunks(*[b"x" * 500_000] * 6))
    assert look(small_disk) == {}
    assert not any((small_disk / ".staging" / "uploads").iterdir())


async def test_a_disk_that_fills_up_before_the_publish_leaves_it_as_it_was(small_disk: Path) -> None:
    storage = VFSStorage("archive", small_disk)
    put(small_disk, {"mine": b"m"})
    await SMALL.stage(storage, "/")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(b"f" * 4_000_000)
    before = look(small_disk)
    with pytest.raises(DiskFull):
        await storage.publish(SMALL.plan("/"), SMALL.staged(), FAIL)
    assert look(small_disk) == before
    (small_disk / "filler").unlink()
    await storage.publish(SMALL.plan("/"), SMALL.staged(), FAIL)
    assert (small_disk / "config.json").read_bytes() == b"{}"


async def test_a_read_only_disk_is_said(small_disk: Path) -> None:
    storage = VFSStorage("archive", small_disk)
    await SMALL.bring(storage, "org/small")
    make_read_only(small_disk)
    with pytest.raises(ReadOnlyStorage, match="EROFS"):
        await BIG.bring(storage, "org/big")
    with pytest.raises(ReadOnlyStorage):
        await storage.delete_file("org/small/config.json")
    assert [chunk async for chunk in storage.stream_download("org/small/config.json")] == [b"{}"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, QuotaExceeded),
        (errno.EROFS, ReadOnlyStorage),
        (errno.EACCES, ReadOnlyStorage),
        (errno.EPERM, ReadOnlyStorage),
        (errno.EIO, StorageFailure),
        (errno.ESTALE, StorageFailure),
    ],
)
def test_an_error_of_the_file_system_has_its_own_code(number: int, kind: type[StorageError]) -> None:
    with pytest.raises(kind) as raised, fsio.translated("writing 'a'"):
        raise OSError(number, os.strerror(number), "/secret/place/a")
    assert type(raised.value) is kind
    assert errno.errorcode[number] in raised.value.message
    assert "while writing 'a'" in raised.value.message
    assert "/secret" not in raised.value.message
