import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest

from proxy_client.wire import QuotaScopeID, VFolderID
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.storages.volume_adapter import VolumeStorageAdapter
from storage_proxy.volumes.vfs import VFSVolume
from tests.storages.models import Place, Storage

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
    memory = Path("/dev/shm")  # noqa: S108 -- a name of our own below it
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory, prefix="stowage-test-") as path:
        yield Path(path)


@pytest.fixture
def volume(mount: Path) -> VFSVolume:
    return VFSVolume("volume1", mount)


@pytest.fixture
def vfid() -> VFolderID:
    return VFID


@pytest.fixture
def vfs(mount: Path) -> Storage:
    return Storage(VFSStorage("archive", mount), mount, mount / ".staging")


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


@pytest.fixture(params=["vfs", "vfolder"])
async def place(request: pytest.FixtureRequest, mount: Path) -> Place:
    """A storage of every kind."""
    return await _directory(request.param, mount)
