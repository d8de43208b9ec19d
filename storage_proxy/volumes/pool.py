"""The volumes of a storage proxy, by name."""

from collections.abc import Iterator, Mapping
from typing import Self

from proxy_client.errors import NotFound
from storage_proxy.settings import Settings
from storage_proxy.volumes.base import AbstractVolume
from storage_proxy.volumes.vfs import VFSVolume


class VolumePool:
    """Every volume that is configured; iterating gives them in the order of their names."""

    def __init__(self, volumes: Mapping[str, AbstractVolume]) -> None:
        self._volumes = dict(sorted(volumes.items()))

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Make the volumes of the `[volume.NAME]` sections. Touches no file system."""
        return cls({name: VFSVolume(name, section.path) for name, section in settings.volume.items()})

    def get_volume(self, name: str) -> AbstractVolume:
        """Return a volume. Raises `NotFound` that names the known ones."""
        if name not in self._volumes:
            known = ", ".join(self._volumes) or "none"
            raise NotFound(
                f"this storage proxy has no volume {name!r} (it has: {known}); add [volume.{name}] to its configuration",
                field="volume_name",
            )
        return self._volumes[name]

    def __iter__(self) -> Iterator[AbstractVolume]:
        return iter(self._volumes.values())
