"""Disks that are full or refuse: an error that says which, and nothing left behind (P6)."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

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
from tests.storages.models import FAIL, Model, chunks, look, put

pytestmark = pytest.mark.anyio

BIG = Model({"config.json": b"{}", "big": b"x" * 3_000_000})
SMALL = Model({"config.json": b"{}"})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


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
