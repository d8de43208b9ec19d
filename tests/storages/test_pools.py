from pathlib import Path

import pytest

from proxy_client.errors import NotFound
from storage_proxy.settings import Settings
from storage_proxy.storages.pool import StoragePool
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes.pool import VolumePool
from storage_proxy.volumes.vfs import VFSVolume


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "proxy": {
                "name": "local",
                "database-file": tmp_path / "database",
                "secret-file": tmp_path / "secret",
                "manager-url": "http://127.0.0.1:1",
            },
            "volume": {"volume1": {"path": tmp_path / "volume1"}, "fast": {"path": tmp_path / "fast"}},
            "artifact-storages": {"archive": {"path": tmp_path / "archive"}},
        }
    )


def test_volumes_are_found_by_name(settings: Settings) -> None:
    pool = VolumePool.from_settings(settings)
    assert isinstance(pool.get_volume("volume1"), VFSVolume)
    assert [volume.name for volume in pool] == ["fast", "volume1"]
    with pytest.raises(NotFound, match="fast, volume1"):
        pool.get_volume("volume2")


def test_artifact_storages_are_found_by_name(settings: Settings) -> None:
    pool = StoragePool.from_settings(settings)
    assert isinstance(pool.get_storage("archive"), VFSStorage)
    assert [storage.name for storage in pool] == ["archive"]
    with pytest.raises(NotFound, match="it has: archive"):
        pool.get_storage("scratch")
