"""A look at a folder of a bucket before anything is published there: what is absent, ours, kept, or in the way.

The same rules as for a directory (`volumes.survey`). Here an object that nobody changed is known by the ETag that its
manifest gives; any other is read and hashed, if its size alone does not say already that nobody knows it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from proxy_client.errors import DestinationConflict, NotFound, PathRefused
from proxy_client.wire import OnConflict
from storage_proxy.storages.base import (
    MANIFEST_FOLDER,
    STAGING_FOLDER,
    Digests,
    ImportPlan,
    Manifest,
    ManifestFile,
    PlannedFile,
)
from storage_proxy.storages.object_area import Hashes, Keys
from storage_proxy.storages.s3 import S3Client
from storage_proxy.storages.s3_answers import Listed, ObjectChanged
from storage_proxy.volumes.paths import ROOT, check_path, manifest_name, manifest_path, parents, shown
from storage_proxy.volumes.survey import Survey as Obstacles

_LARGEST_MANIFEST = 64 << 20  # bytes


class ObjectFile(ManifestFile):
    """A published object. `etag` is the one it was published with, `blob_id` Git's id where it is known."""

    etag: str = ""
    blob_id: str | None = None

    @property
    def digests(self) -> Digests:
        """What its bytes hash to."""
        return Digests(self.size, self.sha256, self.blob_id)


class ObjectManifest(Manifest):
    """A manifest that knows ETags. One that another kind of storage wrote has none, and its objects are read."""

    files: tuple[ObjectFile, ...]


@dataclass(frozen=True)
class Found:
    """An object that lies at the destination; `theirs`: it is not this artifact's."""

    path: str
    etag: str
    size: int
    theirs: bool = False


@dataclass
class Survey:
    """What publishing a plan would do; paths from the destination on."""

    adds: list[str] = field(default_factory=list)
    replaces: list[Found] = field(default_factory=list)
    keeps: list[Found] = field(default_factory=list)
    removes: list[Found] = field(default_factory=list)
    retired: list[Found] = field(default_factory=list)
    kept: list[ObjectFile] = field(default_factory=list)
    manifest: Found | None = None
    obstacles: Obstacles = field(default_factory=Obstacles)


class Destination:
    """A folder of the bucket, as one listing showed it. `objects` are by path from the folder on."""

    def __init__(self, client: S3Client, keys: Keys, path: str) -> None:
        self.client = client
        self.prefix = keys.below(path)
        self.objects: dict[str, Listed] = {}
        for found in client.objects(self.prefix):
            inner = found.key.removeprefix(self.prefix)
            # Some tools make an empty object that ends with a slash where they show a folder.
            if not inner.endswith("/") and not (path == ROOT and inner.startswith(f"{STAGING_FOLDER}/")):
                self.objects[inner] = found
        self.folders = {folder for inner in self.objects for folder in parents(inner)}

    def manifests(self) -> Iterator[tuple[str, ObjectManifest]]:
        """Yield what is a manifest, by path."""
        for path in sorted(self.objects):
            folder, _, name = path.rpartition("/")
            if folder == MANIFEST_FOLDER and self.objects[path].size <= _LARGEST_MANIFEST:
                manifest = read_manifest(self.client, self.prefix, name)
                if manifest is not None:
                    yield path, manifest


def read_manifest(client: S3Client, prefix: str, name: str) -> ObjectManifest | None:
    """Read a manifest by its name; None where there is none, or something else under that name."""
    content = client.get_small(f"{prefix}{MANIFEST_FOLDER}/{name}", _LARGEST_MANIFEST)
    try:
        manifest = None if content is None else ObjectManifest.model_validate_json(content)
        if manifest is None or manifest_name(manifest.artifact, manifest.version) != name:
            return None
        for file in manifest.files:
            check_path(file.path)
    except (ValidationError, PathRefused):
        return None
    return manifest


def insist_on_a_folder(client: S3Client, keys: Keys, path: str) -> None:
    """Raise `DestinationConflict` where an object has the name of a folder that the files shall lie in."""
    above = [] if path == ROOT else [*parents(path), path]
    found = client.side_by_side(lambda folder: client.head(keys.of(folder)), above)
    for folder, head in zip(above, found, strict=True):
        if head is not None:
            raise DestinationConflict(
                f"{shown(folder)} is a file, and must be a folder; choose another path, or move it away"
            )


class Hashed:
    """What objects hash to that had to be read, by key and ETag. Shared by the looks of one storage."""

    _MOST = 100_000

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Digests] = {}

    def read(self, client: S3Client, found: Listed, *, blob_id: bool) -> Digests | None:
        """Hash an object; None if it is changed or removed meanwhile."""
        known = self._known.get((found.key, found.etag))
        if known is not None and (known.blob_id is not None or not blob_id):
            return known
        hashes = Hashes(found.size, blob_id=blob_id)
        try:
            for chunk in client.stream(found.key, etag=found.etag):
                hashes.update(chunk)
        except (NotFound, ObjectChanged):
            return None
        if len(self._known) >= self._MOST:
            self._known.clear()
        digests: Digests = hashes.digests()
        self._known[found.key, found.etag] = digests
        return digests


class Surveyor:
    """Looks at one destination for one plan. Reads objects, changes nothing."""

    def __init__(
        self, destination: Destination, plan: ImportPlan, on_conflict: OnConflict, hashed: Hashed
    ) -> None:
        self._there = destination
        self._plan = plan
        self._overwrite = on_conflict is OnConflict.OVERWRITE
        self._hashed = hashed
        self._survey = Survey()
        self._own: dict[str, list[ObjectFile]] = {}
        self._others: dict[str, list[tuple[ObjectFile, str]]] = {}

    def survey(self, staged: Mapping[str, ManifestFile] | None) -> Survey:
        """Classify everything; `staged` are the files at hand, None for "all will be"."""
        self._read_manifests()
        for file in self._plan.files:
            self._classify(file, staged)
        self._classify_manifest()
        for path in self._own.keys() - {file.path for file in self._plan.files}:
            self._classify_gone(path)
        return self._survey

    def present(self) -> Iterator[ManifestFile]:
        """Yield the files of the plan that lie there already with the right bytes."""
        self._read_manifests()
        for file in self._plan.files:
            found = self._there.objects.get(file.path)
            if found is not None and found.size == file.size:
                digests = self._digests(found, file.path, {file.size}, blob_id=file.wants_blob_id)
                if digests is not None and file.matches(digests):
                    yield ManifestFile(path=file.path, size=file.size, sha256=digests.sha256)

    def _read_manifests(self) -> None:
        ours = manifest_path(self._plan.model_id, self._plan.revision)
        for path, manifest in self._there.manifests():
            if manifest.artifact != self._plan.model_id:
                for file in manifest.files:
                    self._others.setdefault(file.path, []).append((file, manifest.artifact))
                continue
            for file in manifest.files:
                self._own.setdefault(file.path, []).append(file)
            if path == ours:
                self._survey.manifest = self._found(path)
            else:
                self._survey.retired.append(self._found(path))

    def _found(self, path: str, *, theirs: bool = False) -> Found:
        listed = self._there.objects[path]
        return Found(path, listed.etag, listed.size, theirs)

    def _in_the_way(self, path: str, why: str, *, overwritable: bool = False) -> None:
        self._survey.obstacles.obstacles.setdefault(path, why)
        self._survey.obstacles.overwritable &= overwritable

    def _has_place(self, path: str) -> bool:
        """Whether a file could lie there, which is not so if one is a folder of the other."""
        for folder in parents(path):
            if folder in self._there.objects:
                self._in_the_way(folder, "a file where a folder must be")
                return False
        if path in self._there.folders:
            self._in_the_way(path, "a folder where a file must be")
            return False
        return True

    def _classify(self, file: PlannedFile, staged: Mapping[str, ManifestFile] | None) -> None:
        at_hand = staged is None or file.path in staged
        if not self._has_place(file.path):
            return
        if file.path in self._there.objects:
            self._classify_present(file, None if staged is None else staged.get(file.path), at_hand=at_hand)
        elif at_hand:
            self._survey.adds.append(file.path)
        else:
            self._in_the_way(file.path, "it vanished while the import ran")

    def _classify_present(self, file: PlannedFile, staged: ManifestFile | None, *, at_hand: bool) -> None:
        path, found = file.path, self._there.objects[file.path]
        digests = self._digests(found, path, {file.size}, blob_id=file.wants_blob_id)
        other = self._other_owner(path, digests)
        same = digests is not None and file.matches(digests)
        if same and staged is not None and digests is not None:
            same = digests.sha256 == staged.sha256
        ours = self._is_ours(path, digests)
        if same and digests is not None and (self._overwrite or other is None or ours):
            self._survey.keeps.append(self._found(path))
            self._survey.kept.append(
                ObjectFile(
                    path=path,
                    size=digests.size,
                    sha256=digests.sha256,
                    preexisting=not ours,
                    etag=found.etag,
                    blob_id=digests.blob_id,
                )
            )
        elif at_hand and (self._overwrite or (ours and other is None)):
            self._survey.replaces.append(self._found(path, theirs=not ours or other is not None))
        elif not at_hand:
            self._in_the_way(path, "it was changed while the import ran")
        elif other is not None:
            self._in_the_way(path, f"it belongs to {other}", overwritable=True)
        elif path in self._own:
            self._in_the_way(path, "it was changed since it was imported", overwritable=True)
        else:
            self._in_the_way(path, "it was not imported", overwritable=True)

    def _digests(self, found: Listed, path: str, sizes: set[int], *, blob_id: bool) -> Digests | None:
        listed: list[ObjectFile] = [
            *self._own.get(path, ()),
            *(file for file, _ in self._others.get(path, ())),
        ]
        if found.size not in sizes | {file.size for file in listed}:
            return None
        for file in listed:
            known = file.blob_id is not None or not blob_id
            if file.etag and (file.etag, file.size) == (found.etag, found.size) and known:
                return file.digests
        return self._hashed.read(self._there.client, found, blob_id=blob_id)

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
        if self._survey.manifest is not None or not self._has_place(path):
            return
        if path not in self._there.objects:
            return
        if self._overwrite:
            self._survey.manifest = self._found(path, theirs=True)
        else:
            self._in_the_way(path, "it is no manifest of Stowage's", overwritable=True)

    def _classify_gone(self, path: str) -> None:
        """Look at an object that our manifests list and the plan does not: what nobody changed goes."""
        found = self._there.objects.get(path)
        if found is None:
            return
        digests = self._digests(found, path, set(), blob_id=False)
        if self._is_ours(path, digests) and self._other_owner(path, digests) is None:
            self._survey.removes.append(self._found(path))
