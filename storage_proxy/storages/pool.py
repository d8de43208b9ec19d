"""The artifact storages of a storage proxy, by name."""

from collections.abc import Iterator, Mapping
from typing import Self

from proxy_client.errors import NotFound
from storage_proxy.settings import S3StorageSection, Settings, VFSStorageSection
from storage_proxy.storages.base import AbstractStorage
from storage_proxy.storages.object import ObjectStorage
from storage_proxy.storages.vfs import VFSStorage


def _storage(name: str, section: VFSStorageSection | S3StorageSection) -> AbstractStorage:
    if isinstance(section, S3StorageSection):
        return ObjectStorage(name, section)
    return VFSStorage(name, section.path)


class StoragePool:
    """Every artifact storage, configured or entered; iterating gives them in the order of their names."""

    def __init__(self, storages: Mapping[str, AbstractStorage]) -> None:
        self._configured = dict(storages)
        self._storages = dict(sorted(storages.items()))

    def enter(self, storages: Mapping[str, AbstractStorage]) -> None:
        """Have these beside the configured ones, in place of those entered before."""
        self._storages = dict(sorted({**storages, **self._configured}.items()))

    def as_now(self) -> "StoragePool":
        """Return a pool that stays as this one is now."""
        return StoragePool(self._storages)

    def __contains__(self, name: object) -> bool:
        return name in self._storages

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the storages of the `[artifact-storages.NAME]` sections. Touches no file system and no network."""
        sections = settings.artifact_storages
        return cls({name: _storage(name, section) for name, section in sections.items()})

    def get_storage(self, name: str) -> AbstractStorage:
        """Return a storage. Raises `NotFound` that names the known ones."""
        if name not in self._storages:
            known = ", ".join(self._storages) or "none"
            raise NotFound(
                f"this storage proxy has no artifact storage {name!r} (it has: {known}); "
                f"add [artifact-storages.{name}] to its configuration, or enter it at the manager",
                field="storage_name",
            )
        return self._storages[name]

    async def aclose(self) -> None:
        """Close every storage."""
        for storage in self:
            await storage.aclose()

    def __iter__(self) -> Iterator[AbstractStorage]:
        return iter(self._storages.values())
