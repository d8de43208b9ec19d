"""What a disk holds when the power is cut: an image of a mounted file system, copied while a process writes.

What the process gave to the kernel is in the kernel's memory; the image has only what the kernel gave to the disk.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes import fsio, journal, writer
from tests.storages.disks import make_image, mounted
from tests.storages.models import FAIL, Model, fill, look, put, write
from tests.storages.pieces import BIG, DATA, PIECE, WHOLE, area, reopened, write_range

pytestmark = pytest.mark.usefixtures("small_pieces")

MODEL = Model({"config.json": b"{}", "weights/a.bin": b"w" * (2 * PIECE + 5), "readme": b"r"})
USERS = {"mine": b"m", "weights/mine": b"m2"}


class Disk:
    """A mounted image; `cut` keeps what the disk holds now, `after` mounts what was kept."""

    def __init__(self, image: Path, mount: Path) -> None:
        self.mount = mount
        self._image = image
        self._cuts: list[Path] = []
        self._cutting = threading.Lock()

    def cut(self) -> None:
        with self._cutting:  # files are synced side by side
            path = self._image.with_name(f"cut{len(self._cuts)}")
            run(["cp", "--sparse=always", self._image, path], check=True)
            self._cuts.append(path)

    def after(self) -> Iterator[Path]:
        for path in self._cuts:
            with mounted(path.with_suffix(".mount"), "-o", "loop", path) as mount:
                yield mount


@pytest.fixture
def disk(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    image = quick_path / "image"
    make_image(image, 16 << 20, "mkfs.ext4", "-q", "-F")
    # Nothing but our own syncs makes anything durable.
    monkeypatch.setattr(fsio, "start_writing_back", lambda *_: None)
    with mounted(quick_path / "mount", "-o", "loop,commit=300", image) as mount:
        (mount / "lost+found").rmdir()
        yield Disk(image, mount)


def boot_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "boot_id", lambda: "another boot")


def test_no_claim_is_durable_before_its_bytes(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_SYNC", 2 * PIECE)
    record = journal.Journal.record_fills

    def recorded(*args: Any, durable: bool) -> None:
        record(*args, durable=durable)
        disk.cut()

    monkeypatch.setattr(journal.Journal, "record_fills", recorded)
    with reopened(disk.mount).open_writer(BIG) as file:
        for piece in (3, 0, 1, 7, 6, 2):
            write_range(file, piece * PIECE, (piece + 1) * PIECE)
            assert isinstance(file, writer.DirectoryWriter)
            if file._sync is not None:
                file._sync.result()
    monkeypatch.undo()
    monkeypatch.setattr(writer, "PIECE", PIECE)
    boot_again(monkeypatch)
    there = []
    for mount in disk.after():
        with reopened(mount).open_writer(BIG) as file:
            there.append(len(DATA) - sum(stop - start for start, stop in file.missing()))
            fill(file, DATA)
            assert file.finish() == WHOLE
    assert there == sorted(there)
    assert there[-1] == 6 * PIECE


def test_what_is_recorded_as_finished_is_whole(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = reopened(disk.mount)
    files = {f"{number}": b"%d" % number * 3000 for number in range(20)}
    plan = {name: BIG.model_copy(update={"path": name, "size": len(data)}) for name, data in files.items()}
    write(staging, BIG, DATA)
    for name, data in files.items():
        staging.add(plan[name], data)
    disk.cut()
    asyncio.run(staging.settle())
    disk.cut()
    run(["sync", "-f", disk.mount], check=True)
    disk.cut()
    boot_again(monkeypatch)
    found = [asyncio.run(reopened(mount).all_digests([*plan.values(), BIG])) for mount in disk.after()]
    for digests in found:
        assert digests.get(BIG.path) in (None, WHOLE)
    assert len(found[-1]) == 21
    for mount in disk.after():
        recorded = journal.Journal()
        with fsio.trusted(area(mount)) as folder:
            recorded.refresh(folder)
        for name in [*files, BIG.path]:
            path = area(mount) / "tree" / name
            if path.exists() and recorded.finished(name, fsio.Identity.of(path.stat())):
                assert path.read_bytes() == (files | {BIG.path: DATA})[name]


class Cutting:
    """Stands in for `os` inside `fsio`: the disk is copied after each sync."""

    def __init__(self, disk: Disk) -> None:
        self.count = 0
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in {"fsync", "fdatasync"}:
            return real

        def call(fd: int) -> None:
            real(fd)
            self.count += 1
            self._disk.cut()

        return call


@pytest.mark.parametrize("path", ["new/path", "/"], ids=["a new path", "a merge"])
def test_the_power_is_cut_at_any_sync_of_an_import(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(writer, "_SYNC", PIECE)
    put(disk.mount, USERS)
    run(["sync", "-f", disk.mount], check=True)
    before = look(disk.mount)
    with monkeypatch.context() as patch:
        cutting = Cutting(disk)
        patch.setattr(fsio, "os", cutting)
        asyncio.run(MODEL.bring(VFSStorage("archive", disk.mount), path))
    disk.cut()
    assert cutting.count > 20
    after = look(disk.mount)
    boot_again(monkeypatch)

    async def go_on(storage: VFSStorage) -> None:
        if await storage.publishing(MODEL.task_id):
            await storage.publish(MODEL.plan(path), MODEL.staged(), FAIL)
        else:
            await MODEL.bring(storage, path)

    found: dict[str, object] = {}
    for mount in disk.after():
        found = look(mount)
        assert USERS.items() <= found.items()
        if path != "/":
            assert found in (before, after)
        asyncio.run(go_on(VFSStorage("archive", mount)))
        assert look(mount) == after
    # What was answered before the power was cut is there.
    assert found == after
