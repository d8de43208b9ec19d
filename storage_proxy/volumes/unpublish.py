"""Taking an import out of a folder again: its manifest's files that nobody changed, and then the manifest."""

import os
from contextlib import suppress

from proxy_client.errors import DestinationConflict
from storage_proxy.storages.base import MANIFEST_FOLDER, Manifest, ManifestFile
from storage_proxy.volumes import fsio
from storage_proxy.volumes.paths import ROOT, manifest_name, manifest_path, parents
from storage_proxy.volumes.survey import find_destination, read_manifest


def unpublish(root: int, path: str, artifact: str, version: str) -> Manifest | None:
    """Remove what an import published at `path`; returns its manifest, None if there is none. May be repeated.

    Folders that become empty go too, up to `root`. Blocks.
    """
    try:
        destination = find_destination(root, path)
    except DestinationConflict:  # somebody put a file where the folder was
        return None
    if destination is None:
        return None
    try:
        manifest = read_manifest(destination, manifest_name(artifact, version))
        if manifest is None:
            return None
        others = _listed_by_others(destination, manifest)
        folders = set()
        for file in manifest.files:
            if _goes(destination, file, others):
                with suppress(FileNotFoundError):
                    fsio.unlink(destination, file.path)
            folders.update(parents(file.path))
        for folder in sorted(folders, reverse=True):
            if not fsio.remove_folder(destination, folder) and fsio.is_folder(destination, folder):
                fsio.sync_folder(destination, folder)
        fsio.unlink(destination, manifest_path(artifact, version))
        fsio.remove_folder(destination, MANIFEST_FOLDER)
        fsio.sync_folder(destination, "")
    finally:
        os.close(destination)
    if path != ROOT:
        _remove_empty(root, path)
    return manifest


def _listed_by_others(destination: int, ours: Manifest) -> set[tuple[str, str]]:
    with fsio.opened(destination, MANIFEST_FOLDER) as folder:
        names = sorted(name for name, _ in fsio.names(folder))
    names.remove(manifest_name(ours.artifact, ours.version))
    manifests = (read_manifest(destination, name) for name in names)
    return {(file.path, file.sha256) for manifest in manifests if manifest for file in manifest.files}


def _goes(destination: int, file: ManifestFile, others: set[tuple[str, str]]) -> bool:
    """Whether the file that lies there is the one of the manifest, and nobody else's."""
    if file.preexisting or (file.path, file.sha256) in others:
        return False
    try:
        fd = fsio.open_regular(destination, file.path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        if os.fstat(fd).st_size != file.size:
            return False
        digests = fsio.digest(fd, blob_id=False)
        inode = os.fstat(fd).st_ino
    finally:
        os.close(fd)
    found = fsio.identity(destination, file.path)
    return digests is not None and digests.sha256 == file.sha256 and found is not None and found.ino == inode


def _remove_empty(root: int, path: str) -> None:
    for folder in reversed([*parents(path), path]):
        if not fsio.remove_folder(root, folder):
            return
        fsio.sync_folder(root, folder.rpartition("/")[0])
