import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from proxy_client.wire import QuotaScopeID, VFolderID
from storage_proxy.storages.base import StagingArea
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.storages.volume_adapter import VolumeStorageAdapter
from storage_proxy.volumes import writer
from storage_proxy.volumes.vfs import VFSVolume
from tests.quick import quick_directory
from tests.s3.place import bucket_of
from tests.storages.models import Place, Storage
from tests.storages.pieces import PIECE, descriptors, reopened

SCOPE = QuotaScopeID("user", UUID(int=0xA))
VFID = VFolderID(SCOPE, UUID("deadbeefdeadbeefdeadbeefdeadbeef"))


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    path = tmp_path / "mount"
    path.mkdir()
    return path


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """An empty folder in memory where the machine has that, for tests that sync thousands of times."""
    with quick_directory(tmp_path) as path:
        yield path


@pytest.fixture
def volume(mount: Path) -> VFSVolume:
    return VFSVolume("volume1", mount)


@pytest.fixture
def vfid() -> VFolderID:
    return VFID


@pytest.fixture
def vfs(mount: Path) -> Storage:
    return Storage(VFSStorage("archive", mount), mount, mount / ".staging")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PIECE", PIECE)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Insist that the test leaves no descriptor and no thread of a writer behind."""
    before = descriptors()
    yield
    assert descriptors() - before == set()
    assert not [thread for thread in threading.enumerate() if thread.name == "hash"]


@pytest.fixture
def staging(mount: Path) -> StagingArea:
    return reopened(mount)


async def _directory(kind: str, mount: Path) -> Storage:
    if kind == "vfs":
        return Storage(VFSStorage("archive", mount), mount, mount / ".staging")
    volume = VFSVolume("volume1", mount)
    await volume.create_vfolder(VFID)
    root = mount / SCOPE.id.hex / "de" / "ad" / "beefdeadbeefdeadbeefdeadbeef"
    adapter = VolumeStorageAdapter("vfolder_storage_request-1", volume, VFID)
    return Storage(adapter, root, mount / SCOPE.id.hex / ".staging")


@pytest.fixture(params=["vfs", "vfolder"])
async def directory(request: pytest.FixtureRequest, mount: Path) -> Storage:
    """A storage in a directory, of each kind."""
    return await _directory(request.param, mount)


@pytest.fixture(params=["vfs", "vfolder", "s3"])
async def place(request: pytest.FixtureRequest, mount: Path) -> AsyncIterator[Place]:
    """A storage of every kind."""
    if request.param != "s3":
        yield await _directory(request.param, mount)
        return
    with bucket_of(request.getfixturevalue("s3_server")) as bucket:
        yield bucket
