"""A directory as an artifact storage."""

from pathlib import Path

from storage_proxy.storages.base import STAGING_FOLDER, Manifest
from storage_proxy.volumes import fsio
from storage_proxy.volumes.directory import Directory, Place
from storage_proxy.volumes.paths import check_destination, join, shown
from storage_proxy.volumes.threads import in_thread
from storage_proxy.volumes.unpublish import unpublish


class VFSStorage(Directory):
    """An artifact storage in the directory `base_path`, or in the folder `below` it; staging lies in `.staging` inside.

    The directory must exist. No link is followed below `base_path`.
    """

    def __init__(self, name: str, base_path: Path, below: str = "") -> None:
        place = Place(base_path, below, join(below, STAGING_FOLDER), f"artifact storage {name}")
        super().__init__(name, place)

    async def unpublish(self, path: str, artifact: str, version: str) -> Manifest | None:
        check_destination(path)

        def work() -> Manifest | None:
            with self._root() as root:
                return unpublish(root, path, artifact, version)

        with fsio.translated(f"cleaning {shown(path)} up"):
            return await in_thread(work)
