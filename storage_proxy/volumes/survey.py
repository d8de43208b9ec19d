"""A look at a destination before anything is published there: what is absent, ours, kept, or in the way."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from proxy_client.errors import DestinationConflict, PathRefused
from proxy_client.wire import OnConflict
from storage_proxy.storages.base import (
    MANIFEST_FOLDER,
    Digests,
    ImportPlan,
    Manifest,
    ManifestFile,
    PlannedFile,
)
from storage_proxy.volumes import fsio
from storage_proxy.volumes.beneath import FOLDER, open_beneath
from storage_proxy.volumes.journal import Journal
from storage_proxy.volumes.paths import ROOT, check_path, manifest_name, manifest_path, parents, shown

_LARGEST_MANIFEST = 64 << 20  # bytes
_NAMED = 5  # files that a message names


@dataclass(frozen=True)
class Found:
    """A file that lies at the destination; `theirs`: it is not this artifact's."""

    path: str
    identity: fsio.Identity
    theirs: bool = False


@dataclass
class Survey:
    """What publishing a plan would do. Folders are listed from the outside in, paths from the destination on."""

    folders: list[str] = field(default_factory=list)
    adds: list[str] = field(default_factory=list)
    replaces: list[Found] = field(default_factory=list)
    keeps: list[Found] = field(default_factory=list)
    removes: list[Found] = field(default_factory=list)
    retired: list[Found] = field(default_factory=list)
    kept: list[ManifestFile] = field(default_factory=list)
    manifest: Found | None = None
    obstacles: dict[str, str] = field(default_factory=dict)
    overwritable: bool = True

    def insist_on_no_conflict(self, destination: str) -> None:
        """Raise `DestinationConflict` that names the first files and the remedy."""
        if not self.obstacles:
            return
        named = [f"{shown(path)} ({why})" for path, why in list(self.obstacles.items())[:_NAMED]]
        more = f" and {len(self.obstacles) - _NAMED} more" if len(self.obstacles) > _NAMED else ""
        remedy = "import with onConflict: OVERWRITE" if self.overwritable else "move them away"
        raise DestinationConflict(
            f"in the way at {shown(destination)}: {', '.join(named)}{more}; choose another path, or {remedy}"
        )


def find_destination(root: int, path: str) -> int | None:
    """Open the folder of a plan; None if it does not exist. Raises `DestinationConflict` if it can't exist."""
    if path == ROOT:
        return open_beneath(root, "", FOLDER)
    for folder in [*parents(path), path]:
        found = fsio.status(root, folder)
        if found is None:
            return None
        if not stat.S_ISDIR(found.st_mode):
            raise DestinationConflict(
                f"{shown(folder)} is {_what(found)}, and must be a folder; choose another path, or move it away"
            )
    return open_beneath(root, path, FOLDER)


def read_manifest(destination: int, name: str) -> Manifest | None:
    """Read a manifest by its file's name; None where there is none, or something else under that name."""
    text = fsio.read_small(destination, f"{MANIFEST_FOLDER}/{name}", _LARGEST_MANIFEST)
    try:
        manifest = None if text is None else Manifest.model_validate_json(text)
        if manifest is None or manifest_name(manifest.artifact, manifest.version) != name:
            return None
        for file in manifest.files:
            check_path(file.path)
    except (ValidationError, PathRefused):
        return None
    return manifest


def read_digests(
    destination: int, path: str, journal: Journal, area: int | None, *, blob_id: bool = False
) -> Digests | None:
    """Hash a file at the destination; None for no regular file, or one that changes while it is read.

    The journal remembers, if there is a staging area to remember it in.
    """
    try:
        fd = fsio.open_regular(destination, path)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(fd)
        known = journal.seen(path, found)
        if known is not None and (known.blob_id is not None or not blob_id):
            return known
        fsio.settle(fd)
        digests = fsio.digest(fd, blob_id=blob_id)
    finally:
        os.close(fd)
    if digests is not None and area is not None:
        journal.record_seen(area, path, found, digests)
    return digests


def _what(found: os.stat_result) -> str:
    if stat.S_ISDIR(found.st_mode):
        return "a folder"
    if stat.S_ISLNK(found.st_mode):
        return "a link"
    return "a file" if stat.S_ISREG(found.st_mode) else "neither a file nor a folder"


class Surveyor:
    """Looks at one destination for one plan. Reads files, changes nothing."""

    def __init__(
        self, destination: int, plan: ImportPlan, on_conflict: OnConflict, journal: Journal, area: int | None
    ) -> None:
        self._destination = destination
        self._plan = plan
        self._overwrite = on_conflict is OnConflict.OVERWRITE
        self._journal = journal
        self._area = area
        self._survey = Survey()
        self._folders: dict[str, bool] = {}
        self._own: dict[str, list[ManifestFile]] = {}
        self._others: dict[str, list[tuple[ManifestFile, str]]] = {}
        self._inodes: set[int] = set()

    def survey(self, staged: Mapping[str, ManifestFile] | None) -> Survey:
        """Classify everything; `staged` are the files at hand, None for "all will be"."""
        self._read_manifests()
        for file in self._plan.files:
            self._classify(file, staged)
        self._classify_manifest()
        planned = {file.path for file in self._plan.files}
        for path in self._own.keys() - planned:
            self._classify_gone(path)
        return self._survey

    def _read_manifests(self) -> None:
        if not fsio.is_folder(self._destination, MANIFEST_FOLDER):
            return
        ours = manifest_name(self._plan.model_id, self._plan.revision)
        with fsio.opened(self._destination, MANIFEST_FOLDER) as folder:
            entries = sorted(fsio.names(folder))
        for name, found in entries:
            manifest = read_manifest(self._destination, name)
            if manifest is None:
                continue
            self._note(manifest)
            if manifest.artifact != self._plan.model_id:
                for file in manifest.files:
                    self._others.setdefault(file.path, []).append((file, manifest.artifact))
                continue
            for file in manifest.files:
                self._own.setdefault(file.path, []).append(file)
            place = Found(f"{MANIFEST_FOLDER}/{name}", fsio.Identity.of(found))
            if name == ours:
                self._survey.manifest = place
            else:
                self._survey.retired.append(place)

    def _note(self, manifest: Manifest) -> None:
        """Learn more from a manifest of the destination."""

    def _in_the_way(self, path: str, why: str, *, overwritable: bool = False) -> None:
        self._survey.obstacles.setdefault(path, why)
        self._survey.overwritable &= overwritable

    def _has_folder(self, path: str) -> bool | None:
        """Whether the folder of `path` is there; None if it can't be, which is a conflict. Notes what is missing."""
        for folder in parents(path):
            if folder in self._survey.obstacles:
                return None
            if folder in self._folders:
                continue
            above = folder.rpartition("/")[0]
            found = self._look(folder) if self._folders.get(above, True) else None
            if found is not None and not stat.S_ISDIR(found.st_mode):
                self._in_the_way(folder, f"{_what(found)} where a folder must be")
                return None
            self._folders[folder] = found is not None
            if found is None:
                self._survey.folders.append(folder)
        return self._folders.get(path.rpartition("/")[0], True)

    def _look(self, path: str) -> os.stat_result | None:
        return fsio.status(self._destination, path)

    def _classify(self, file: PlannedFile, staged: Mapping[str, ManifestFile] | None) -> None:
        at_hand = staged is None or file.path in staged
        has_folder = self._has_folder(file.path)
        if has_folder is None:
            return
        found = self._look(file.path) if has_folder else None
        if found is None:
            if at_hand:
                self._survey.adds.append(file.path)
            else:
                self._in_the_way(file.path, "it vanished while the import ran")
            return
        self._inodes.add(found.st_ino)
        if stat.S_ISREG(found.st_mode):
            self._classify_regular(file, found, None if staged is None else staged.get(file.path), at_hand)
        elif not stat.S_ISLNK(found.st_mode):
            self._in_the_way(file.path, f"{_what(found)} where a file must be")
        elif self._overwrite and at_hand:
            self._survey.replaces.append(Found(file.path, fsio.Identity.of(found), theirs=True))
        else:
            self._in_the_way(file.path, "a link", overwritable=at_hand)

    def _classify_regular(
        self, file: PlannedFile, found: os.stat_result, staged: ManifestFile | None, at_hand: bool
    ) -> None:
        path = file.path
        digests = self._digests(path, found, {file.size}, blob_id=file.wants_blob_id)
        other = self._other_owner(path, digests)
        same = digests is not None and file.matches(digests)
        if same and staged is not None and digests is not None:
            same = digests.sha256 == staged.sha256
        ours = self._is_ours(path, digests)
        if same and digests is not None and (self._overwrite or other is None or ours):
            self._survey.keeps.append(Found(path, fsio.Identity.of(found)))
            self._survey.kept.append(
                ManifestFile(path=path, size=digests.size, sha256=digests.sha256, preexisting=not ours)
            )
        elif at_hand and (self._overwrite or (ours and other is None)):
            theirs = not ours or other is not None
            self._survey.replaces.append(Found(path, fsio.Identity.of(found), theirs=theirs))
        elif not at_hand:
            self._in_the_way(path, "it was changed while the import ran")
        elif other is not None:
            self._in_the_way(path, f"it belongs to {other}", overwritable=True)
        elif path in self._own:
            self._in_the_way(path, "it was changed since it was imported", overwritable=True)
        else:
            self._in_the_way(path, "it was not imported", overwritable=True)

    def _digests(
        self, path: str, found: os.stat_result, sizes: set[int], *, blob_id: bool = False
    ) -> Digests | None:
        """Hash a file, if its size alone does not say already that nobody knows it."""
        listed = [*self._own.get(path, ()), *(file for file, _ in self._others.get(path, ()))]
        if found.st_size not in sizes | {file.size for file in listed}:
            return None
        return read_digests(self._destination, path, self._journal, self._area, blob_id=blob_id)

    def _is_ours(self, path: str, digests: Digests | None) -> bool:
        """Whether our manifests list these very bytes as put there by us."""
        if digests is None:
            return False
        listed = [file for file in self._own.get(path, ()) if file.sha256 == digests.sha256]
        return bool(listed) and not any(file.preexisting for file in listed)

    def _other_owner(self, path: str, digests: Digests | None) -> str | None:
        """Return the other model whose manifest lists these very bytes."""
        if digests is None:
            return None
        listed = self._others.get(path, ())
        return next((artifact for file, artifact in listed if file.sha256 == digests.sha256), None)

    def _classify_manifest(self) -> None:
        path = manifest_path(self._plan.model_id, self._plan.revision)
        has_folder = self._has_folder(path)
        if self._survey.manifest is not None or not has_folder:
            return
        found = self._look(path)
        if found is None:
            return
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            self._in_the_way(path, f"{_what(found)} where the manifest must be")
        elif self._overwrite:
            self._survey.manifest = Found(path, fsio.Identity.of(found), theirs=True)
        else:
            self._in_the_way(path, "it is no manifest of Stowage's", overwritable=True)

    def _classify_gone(self, path: str) -> None:
        """Look at a file that our manifests list and the plan does not: what nobody changed goes."""
        try:
            found = self._look(path)
        except NotADirectoryError:
            return
        # A file system that ignores case shows a planned file under its old name too.
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_ino in self._inodes:
            return
        digests = self._digests(path, found, set())
        if self._is_ours(path, digests) and self._other_owner(path, digests) is None:
            self._survey.removes.append(Found(path, fsio.Identity.of(found)))
