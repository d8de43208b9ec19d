"""A directory as an artifact storage."""

from pathlib import Path

from storage_proxy.storages.base import STAGING_FOLDER
from storage_proxy.volumes.directory import Directory, Place


class VFSStorage(Directory):
    """An artifact storage in the directory `base_path`, which must exist; staging lies in `.staging` inside it."""

    def __init__(self, name: str, base_path: Path) -> None:
        place = Place(mount=base_path, root="", staging=STAGING_FOLDER, what=f"artifact storage {name}")
        super().__init__(name, place)
