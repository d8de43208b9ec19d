"""Somebody who may write to a vfolder uses that against whoever imports, lists, counts and deletes there.

Never a byte outside, read, written or removed; never a call that does not come back.
"""

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import pytest

from proxy_client.errors import StowageError
from proxy_client.wire import QuotaScopeID, VFolderID
from storage_proxy.storages.volume_adapter import VolumeStorageAdapter
from storage_proxy.volumes import beneath
from storage_proxy.volumes.vfs import VFSVolume, folder_path
from tests.storages.disks import mounted
from tests.storages.models import FAIL, OVERWRITE, Model, chunks, look, put

pytestmark = pytest.mark.anyio

VFID = VFolderID(QuotaScopeID("user", UUID(int=0xA)), UUID(int=0xB))
ROUNDS = 25
LONGEST = 30  # seconds, for a round that takes milliseconds


@pytest.fixture
def mount(quick_path: Path) -> Path:
    path = quick_path / "mount"
    path.mkdir()
    return path


@pytest.fixture
def outside(quick_path: Path) -> Path:
    path = quick_path / "outside"
    put(path, {"theirs": b"precious", "folder/deep": b"precious too"})
    return path


@pytest.fixture(params=["_openat2", "_walk"])
async def volume(request: pytest.FixtureRequest, mount: Path, monkeypatch: pytest.MonkeyPatch) -> VFSVolume:
    monkeypatch.setattr(beneath, "_open_beneath", getattr(beneath, request.param))
    volume = VFSVolume("volume1", mount)
    await volume.create_vfolder(VFID)
    return volume


class Attacker:
    """Changes a folder in a thread: names of the model become links, FIFOs, hard links, files and folders, and go again."""

    NAMES = ("folder", "folder/deep", "folder/a", "config.json", ".stowage")

    def __init__(self, root: Path, outside: Path) -> None:
        self.root = root
        self.outside = outside
        self.away = root.with_name(f"{root.name}-away")
        self.changes = 0
        self._random = random.Random(5)  # noqa: S311 -- the same choices every time
        self._stop = threading.Event()

    def _clear(self, path: Path) -> None:
        # A rename, as quick as an attacker is: what is there is put aside.
        with suppress(OSError):
            path.rename(self.away.with_name(f"aside{self.changes}"))

    def _plant(self, path: Path) -> None:
        plant: tuple[Callable[[], object], ...] = (
            lambda: path.symlink_to(self.outside),
            lambda: path.symlink_to(self.outside / "folder"),
            lambda: path.symlink_to(self.outside / "theirs"),
            lambda: path.symlink_to("../" * 12 + str(self.outside).lstrip("/")),
            lambda: os.link(self.outside / "theirs", path),
            lambda: os.mkfifo(path),
            lambda: path.write_bytes(b"mine"),
            path.mkdir,
        )
        with suppress(OSError):
            self._random.choice(plant)()

    def _rename_all(self) -> None:
        with suppress(OSError):
            self.root.rename(self.away)
            if self._random.random() < 0.5:
                self.root.symlink_to(self.outside)
                self.root.unlink()
            self.away.rename(self.root)

    def _work(self) -> None:
        while not self._stop.is_set():
            self.changes += 1
            if self._random.random() < 0.1:
                self._rename_all()
                continue
            path = self.root / self._random.choice(self.NAMES)
            if not path.parent.is_symlink():  # nobody but this thread makes links
                self._clear(path)
                self._plant(path)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


async def test_a_racing_attacker_gets_nothing_in_or_out(
    volume: VFSVolume, mount: Path, outside: Path
) -> None:
    root, before = mount / folder_path(VFID), look(outside)
    storage = VolumeStorageAdapter("v", volume, VFID)
    attacker = Attacker(root, outside)
    seen: list[object] = []
    ended = {"whole": 0, "refused": 0}

    async def attempt(number: int) -> None:
        model = Model(
            {"config.json": b"%d" % number, "folder/a": b"a", "folder/deep/er": b"d"},
            model_id=f"org/m{number % 3}",
        )
        work: tuple[Callable[[], object], ...] = (
            lambda: model.bring(storage, "/", (OVERWRITE, FAIL)[number % 2]),
            lambda: model.bring(storage, f"new{number}/folder"),
            lambda: volume.add_file(VFID, "folder/deep/up", chunks(b"up")),
            lambda: volume.list_files(VFID, "folder"),
            lambda: volume.vfolder_usage(VFID),
            lambda: volume.delete_files(
                VFID, ["folder/theirs", "folder/deep/theirs", "folder/deep", "config.json"]
            ),
            lambda: volume.mkdir(VFID, "folder/deep/made"),
            lambda: _read(volume, "folder/theirs"),
            lambda: _read(volume, "config.json"),
        )
        for each in work:
            try:
                seen.append(await each())  # type: ignore[misc]
                ended["whole"] += 1
            except StowageError:
                ended["refused"] += 1

    with attacker.at_work():
        for number in range(ROUNDS):
            async with asyncio.timeout(LONGEST):
                await attempt(number)
    assert look(outside) == before
    assert b"precious too" not in seen  # only a hard link could show it, and none was made of that
    assert attacker.changes > ROUNDS
    assert min(ended.values()) > 0, ended


async def _read(volume: VFSVolume, path: str) -> bytes:
    return b"".join([chunk async for chunk in volume.read_file(VFID, path)])


async def test_a_deletion_follows_no_link_and_takes_no_name_away_elsewhere(
    volume: VFSVolume, mount: Path, outside: Path
) -> None:
    root, before = mount / folder_path(VFID), look(outside)
    put(root, {"mine": b"m", "a/b/mine": b"m"})
    (root / "link").symlink_to(outside)
    (root / "a" / "link").symlink_to(outside / "theirs")
    os.link(outside / "theirs", root / "a" / "hard")
    os.mkfifo(root / "a" / "fifo")
    usage = await volume.vfolder_usage(VFID)
    assert (usage.used_bytes, usage.file_count) == (1 + 1 + len(b"precious"), 3)
    assert [entry.path for entry in await volume.list_files(VFID)] == ["a", "mine"]
    async with asyncio.timeout(LONGEST):
        await volume.delete_vfolder(VFID)
    assert not root.exists()
    assert look(outside) == before


async def test_a_deletion_that_races_with_an_attacker_stays_inside(
    volume: VFSVolume, mount: Path, outside: Path
) -> None:
    before = look(outside)
    attacker = Attacker(mount / folder_path(VFID), outside)
    with attacker.at_work():
        for _ in range(ROUNDS):
            async with asyncio.timeout(LONGEST):
                with suppress(StowageError):
                    await volume.create_vfolder(VFID)
                with suppress(StowageError):
                    await volume.add_file(VFID, "folder/deep/x", chunks(b"x"))
                with suppress(StowageError):
                    await volume.delete_vfolder(VFID)
    assert look(outside) == before


@pytest.mark.parametrize("kind", ["another file system", "a folder of the same"])
async def test_what_is_mounted_in_a_folder_is_not_the_folders(
    volume: VFSVolume, mount: Path, outside: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "a folder of the same" and "_walk" in request.node.name:
        pytest.skip("without openat2 a bind mount of the same file system looks like a folder")
    inner = mount / folder_path(VFID) / "inner"
    inner.mkdir()
    put(inner.parent, {"mine": b"m"})
    options = ("-t", "tmpfs", "none") if kind == "another file system" else ("--bind", outside)
    with mounted(inner, *options):
        put(inner, {"precious": b"p" * 100})
        before = look(inner)
        assert (await volume.vfolder_usage(VFID)).used_bytes == 1
        with pytest.raises(StowageError):
            await volume.delete_vfolder(VFID)
        # The folder waits in the staging area, and what is mounted in it went there with it.
        place = mount / VFID.quota_scope.id.hex / ".staging" / f"deleted-{VFID.folder.hex}"
        assert look(place / "inner") == before
        place.rename(inner.parent)
    await volume.delete_vfolder(VFID)
    assert not inner.parent.exists()
