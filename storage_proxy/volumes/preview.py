"""A look into a vfolder for people: what an import would meet there, and which models it holds. Bounded in time and count."""

import os
import stat
import time
from collections import deque
from collections.abc import Mapping

from pydantic import ValidationError

from proxy_client.errors import DestinationConflict
from proxy_client.wire import ImportPreview, OnConflict, PathConflict, VFolderModel
from storage_proxy.storages.base import (
    MANIFEST_FOLDER,
    Digests,
    ImportPlan,
    Manifest,
    ManifestFile,
    PlannedFile,
)
from storage_proxy.volumes import fsio
from storage_proxy.volumes.journal import Journal
from storage_proxy.volumes.paths import ROOT, join
from storage_proxy.volumes.survey import Surveyor, find_destination, read_manifest
from storage_proxy.volumes.threads import stop_point

MOST_SHOWN = 100  # conflicts
MOST_READ = 256 << 20  # bytes of files that are hashed for one preview
MOST_MODELS = 1000
MOST_ENTRIES = 100_000  # of the folders that are searched for manifests
SECONDS = 5.0


def preview(root: int, plan: ImportPlan) -> ImportPreview:
    """Return what publishing the plan would bring and meet, as far as a quick look tells."""
    try:
        destination = find_destination(root, plan.path)
    except DestinationConflict as exc:
        conflict = PathConflict(path=plan.path, reason=exc.message)
        return ImportPreview(
            total_bytes=plan.total_bytes, missing_bytes=plan.total_bytes, conflicts=[conflict]
        )
    if destination is None:
        return ImportPreview(total_bytes=plan.total_bytes, missing_bytes=plan.total_bytes)
    try:
        glance = _Glance(destination, plan)
        survey = glance.survey(None)
    finally:
        os.close(destination)
    conflicts = [
        PathConflict(path=join(plan.path, path), reason=reason) for path, reason in survey.obstacles.items()
    ]
    return ImportPreview(
        total_bytes=plan.total_bytes,
        missing_bytes=plan.total_bytes - sum(file.size for file in survey.kept),
        conflicts=conflicts[:MOST_SHOWN],
        truncated=glance.incomplete or len(conflicts) > MOST_SHOWN,
    )


class _Glance(Surveyor):
    """Reads little: what a manifest lists with its present size, and was not written to since, counts as unchanged.

    `incomplete`: not every file was looked at, or read where that would have been needed.
    """

    def __init__(self, destination: int, plan: ImportPlan) -> None:
        super().__init__(destination, plan, OnConflict.FAIL, Journal(), None)
        self.incomplete = False
        self._until = time.monotonic() + SECONDS
        self._left = MOST_READ
        self._imported_at: dict[tuple[str, str], float] = {}

    def _note(self, manifest: Manifest) -> None:
        stop_point()
        at = manifest.imported_at.timestamp()
        for file in manifest.files:
            key = (file.path, file.sha256)
            self._imported_at[key] = max(at, self._imported_at.get(key, at))

    def _classify(self, file: PlannedFile, staged: Mapping[str, ManifestFile] | None) -> None:
        stop_point()
        if time.monotonic() > self._until:
            self.incomplete = True
        else:
            super()._classify(file, staged)

    def _classify_regular(
        self, file: PlannedFile, found: os.stat_result, staged: ManifestFile | None, at_hand: bool
    ) -> None:
        if found.st_size in {file.size, *(each.size for each in self._listed(file.path))} and (
            self._unchanged(file.path, found, blob_id=file.wants_blob_id) is None
        ):
            if found.st_size > self._left:
                self.incomplete = True
                return
            self._left -= found.st_size
        super()._classify_regular(file, found, staged, at_hand)

    def _classify_gone(self, path: str) -> None:
        """Look at nothing: what goes is in nobody's way."""

    def _digests(
        self, path: str, found: os.stat_result, sizes: set[int], *, blob_id: bool = False
    ) -> Digests | None:
        unchanged = self._unchanged(path, found, blob_id=blob_id)
        return unchanged or super()._digests(path, found, sizes, blob_id=blob_id)

    def _listed(self, path: str) -> list[ManifestFile]:
        return [*self._own.get(path, ()), *(file for file, _ in self._others.get(path, ()))]

    def _unchanged(self, path: str, found: os.stat_result, *, blob_id: bool) -> Digests | None:
        """Return what a manifest says of the file, if the file's size and time do not speak against it."""
        if blob_id:
            return None
        for file in self._listed(path):
            if file.size == found.st_size and found.st_mtime <= self._imported_at[file.path, file.sha256]:
                return Digests(file.size, file.sha256)
        return None


def find_models(root: int) -> list[VFolderModel]:
    """Read the manifests below an open folder, those near it first; sorted by path and artifact."""
    models: list[VFolderModel] = []
    folders = deque([""])
    entries = 0
    until = time.monotonic() + SECONDS
    while folders and entries < MOST_ENTRIES and len(models) < MOST_MODELS and time.monotonic() < until:
        stop_point()
        folder = folders.popleft()
        try:
            with fsio.opened(root, folder) as fd, os.scandir(fd) as found:
                for entry in found:
                    entries += 1
                    if entry.name == MANIFEST_FOLDER:
                        models += _models_in(fd, folder, MOST_MODELS - len(models))
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(f"{folder}/{entry.name}" if folder else entry.name)
                    if entries >= MOST_ENTRIES:
                        break
        except OSError:
            # One that vanished or cannot be entered; of the root that is an error.
            if not folder:
                raise
    return sorted(models, key=lambda model: (model.path, model.artifact, model.version))


def _models_in(folder: int, path: str, most: int) -> list[VFolderModel]:
    """Return the models of one folder; what is no manifest of Stowage's is passed over."""
    if not fsio.is_folder(folder, MANIFEST_FOLDER):
        return []
    with fsio.opened(folder, MANIFEST_FOLDER) as manifests:
        names = sorted(name for name, found in fsio.names(manifests) if stat.S_ISREG(found.st_mode))
    models: list[VFolderModel] = []
    for name in names[:most]:
        stop_point()
        if (manifest := read_manifest(folder, name)) is None:
            continue
        try:
            models.append(
                VFolderModel(
                    path=os.fsencode(path).decode(errors="replace") or ROOT,
                    size=sum(file.size for file in manifest.files),
                    file_count=len(manifest.files),
                    **manifest.model_dump(exclude={"files", "format"}),
                )
            )
        except ValidationError:
            continue
    return models
