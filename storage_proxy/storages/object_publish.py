"""How staged objects become visible; docs/decisions/0008 tells why it is done this way, and what a reader may see.

`publish.json` is written before anything is visible, so that a successor can go on, or take everything back. Then one
object after another appears: copied on the server, or by the completion of its upload. What they replace was copied
into the staging area before. The manifest comes last and commits; what is gone upstream goes after it.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy_client.errors import DestinationConflict, NotFound, StorageError, StorageFailure
from proxy_client.wire import OnConflict
from storage_proxy.storages.base import Digests, ImportPlan, ManifestFile
from storage_proxy.storages.object_area import COMMITTED, RECORD, Keys, ObjectArea, Source
from storage_proxy.storages.object_survey import (
    Destination,
    Found,
    Hashed,
    ObjectFile,
    ObjectManifest,
    Surveyor,
    insist_on_a_folder,
    read_manifest,
)
from storage_proxy.storages.s3 import Head, S3Client
from storage_proxy.storages.s3_answers import Listed, NoSuchUpload
from storage_proxy.volumes.moves import Raced
from storage_proxy.volumes.paths import manifest_name, manifest_path, shown

_ATTEMPTS = 4


class Move(BaseModel):
    """One object that appears: the upload `source` completed, or a copy of the staged object `copy_of`.

    `old` is the ETag of what it replaces; None where nothing lies there.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    size: int
    sha256: str
    blob_id: str | None
    copy_of: str
    source: Source | None
    old: str | None

    @property
    def digests(self) -> Digests:
        """What its bytes hash to."""
        return Digests(self.size, self.sha256, self.blob_id)


class Record(BaseModel):
    """`publish.json`: a publish that began. The files of `manifest` that moves bring have no ETag yet.

    `keeps`, `removes` and `retired` are paths with ETags; `manifest_old` is the ETag of the manifest that is replaced.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    manifest: ObjectManifest
    staged: tuple[ManifestFile, ...]
    on_conflict: OnConflict
    moves: tuple[Move, ...]
    keeps: tuple[tuple[str, str], ...]
    removes: tuple[tuple[str, str], ...]
    retired: tuple[tuple[str, str], ...]
    manifest_old: str | None


def published(client: S3Client, keys: Keys, plan: ImportPlan) -> ObjectManifest | None:
    """Return the manifest at the plan's path if this very import left it."""
    manifest = read_manifest(client, keys.below(plan.path), manifest_name(plan.model_id, plan.revision))
    return manifest if manifest is not None and manifest.task_id == plan.task_id else None


class Publication:
    """One publish of one import, from an area that is claimed. Every method blocks."""

    def __init__(self, area: ObjectArea, hashed: Hashed) -> None:
        self._area = area
        self._client = area.client
        self._keys = area.keys
        self._hashed = hashed

    def run(
        self, plan: ImportPlan, staged: Sequence[ManifestFile], on_conflict: OnConflict
    ) -> ObjectManifest:
        """Publish, or go on with a publish that began. As `AbstractStorage.publish`."""
        record = self._load()
        if record is None:
            if (manifest := published(self._client, self._keys, plan)) is not None:
                return manifest
        elif (manifest := self._finished(record)) is not None:
            return manifest
        at = plan.path
        if record is not None:
            staged, on_conflict = record.staged, record.on_conflict
            try:
                return self._carry_out(record)
            except Raced as exc:
                at = exc.path
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(plan, {file.path: file for file in staged}, on_conflict)
            except Raced as exc:
                at = exc.path
        raise DestinationConflict(f"{shown(at)} keeps changing while it is published to; import again later")

    def give_back(self) -> None:
        """Undo a publish that began and was not committed, so that the staging area may go."""
        record = self._load()
        if record is not None and self._finished(record) is None:
            self._take_back(record, again=False)

    # What an earlier attempt left.

    def _load(self) -> Record | None:
        content = self._area.load(RECORD)
        try:
            return None if content is None else Record.model_validate_json(content)
        except ValidationError as exc:
            raise StorageFailure(
                "the record of a publish that began is damaged; an operator must look"
            ) from exc

    def _committed(self, record: Record) -> ObjectManifest | None:
        ours = record.manifest
        name = manifest_name(ours.artifact, ours.version)
        found = read_manifest(self._client, self._keys.below(record.path), name)
        return found if found is not None and found.task_id == ours.task_id else None

    def _finished(self, record: Record) -> ObjectManifest | None:
        """Return the manifest if it was committed, after bringing what follows a commit to its end."""
        content = self._area.load(COMMITTED)
        with suppress(ValidationError):
            if content is not None:
                return ObjectManifest.model_validate_json(content)
        found = self._committed(record)
        if found is not None:
            self._finish(record, found)
        return found

    # An attempt.

    def _attempt(
        self, plan: ImportPlan, staged: Mapping[str, ManifestFile], on_conflict: OnConflict
    ) -> ObjectManifest:
        insist_on_a_folder(self._client, self._keys, plan.path)
        there = Destination(self._client, self._keys, plan.path)
        survey = Surveyor(there, plan, on_conflict, self._hashed).survey(staged)
        survey.obstacles.insist_on_no_conflict(plan.path)
        brought: list[tuple[str, Found | None]] = [(path, None) for path in survey.adds]
        brought += [(found.path, found) for found in survey.replaces]
        moves = [self._prepare(there, staged[path], old) for path, old in brought]
        record = Record(
            path=plan.path,
            manifest=_manifest(plan, [*survey.kept, *(_unborn(move) for move in moves)]),
            staged=tuple(staged.values()),
            on_conflict=on_conflict,
            moves=tuple(moves),
            keeps=tuple((found.path, found.etag) for found in survey.keeps),
            removes=tuple((found.path, found.etag) for found in survey.removes),
            retired=tuple((found.path, found.etag) for found in survey.retired),
            manifest_old=survey.manifest.etag if survey.manifest else None,
        )
        self._area.insist_on_claim()
        self._area.save(RECORD, record.model_dump_json().encode())
        return self._carry_out(record)

    def _prepare(self, there: Destination, staged: ManifestFile, old: Found | None) -> Move:
        """Bring a staged file to where one request lets it appear. What was verified is what is published."""
        path, key = staged.path, f"{there.prefix}{staged.path}"
        entry = self._area.entry(path)
        digests = entry.digests
        if digests is None or (digests.size, digests.sha256) != (staged.size, staged.sha256):
            raise StorageFailure(f"the staged file {shown(path)} is not the verified one; import again")
        source = None
        if entry.whole is None:
            source = self._area.read_done(path)
            if not source.upload_id:
                source = self._compose(path, key, source.part_size, digests)
            elif source.key != key:
                raise StorageFailure(f"{shown(path)} was staged for another place; import again")
        return Move(
            path=path,
            size=digests.size,
            sha256=digests.sha256,
            blob_id=digests.blob_id,
            copy_of=entry.whole[0] if entry.whole else "",
            source=source,
            old=old.etag if old else None,
        )

    def _compose(self, path: str, key: str, piece: int, digests: Digests) -> Source:
        """Let the pieces of a file be the parts of an upload; copied on the server, and not again after a crash."""
        upload, there = self._area.begin_upload(path, key, digests.size, digests.sha256)

        def copy(number: int) -> str:
            part = there.get(number + 1)
            # Swift lists parts that were copied without their ETags.
            if part is not None and part.etag and part.size == min(piece, digests.size - number * piece):
                return part.etag
            return self._client.copy_part(
                key, upload.upload_id, number + 1, self._area.piece_key(path, number), None
            )

        etags = self._client.side_by_side(copy, range(-(-digests.size // piece)))
        return upload.model_copy(update={"parts": tuple(enumerate(etags, 1))})

    # Forward.

    def _carry_out(self, record: Record) -> ObjectManifest:
        prefix = self._keys.below(record.path)
        try:
            self._area.insist_on_claim()
            there = Destination(self._client, self._keys, record.path).objects
            etags = self._client.side_by_side(
                lambda move: self._make(prefix, move, there.get(move.path)), record.moves
            )
            made = {move.path: etag for move, etag in zip(record.moves, etags, strict=True)}
            self._insist_on_all(record, made)
            manifest = _born(record.manifest, made)
            self._commit(record, manifest)
        except (StorageError, Raced):
            self._area.insist_on_claim()
            self._take_back(record, again=True)
            raise
        self._finish(record, manifest)
        return manifest

    def _is_made(self, head: Head, move: Move) -> bool:
        return head.metadata.get("stowage-task") == str(self._area.task_id) and head.size == move.size

    def _make(self, prefix: str, move: Move, there: Listed | None) -> str:
        """Make a move that may be made or not made; returns the ETag. Raises `Raced` where somebody was quicker."""
        key = f"{prefix}{move.path}"
        head = self._client.head(key) if there is not None else None
        if head is not None and self._is_made(head, move):
            return head.etag
        if (None if head is None else head.etag) != move.old:
            raise Raced(move.path)
        if head is not None:
            self._client.copy(key, self._area.displaced_key(move.path), head.size, head.metadata)
        if move.source is None:
            return self._client.copy(move.copy_of, key, move.size, self._area.metadata(move.digests))
        try:
            return self._client.complete(key, move.source.upload_id, move.source.parts)
        except (NoSuchUpload, NotFound) as exc:
            head = self._client.head(key)
            if head is None or not self._is_made(head, move):
                raise StorageFailure(
                    f"the staged parts of {shown(move.path)} are gone; import again"
                ) from exc
            return head.etag

    def _insist_on_all(self, record: Record, made: Mapping[str, str]) -> None:
        """Raise `Raced` if anything that was made or kept was touched by somebody else meanwhile."""
        there = Destination(self._client, self._keys, record.path)
        manifest = manifest_path(record.manifest.artifact, record.manifest.version)
        wanted: dict[str, str | None] = {**made, **dict(record.keeps), manifest: record.manifest_old}
        for path, etag in wanted.items():
            listed = there.objects.get(path)
            if (listed.etag if listed else None) != etag:
                # Some listings lag behind; the object itself does not.
                head = self._client.head(f"{there.prefix}{path}")
                if (head.etag if head else None) != etag:
                    raise Raced(path)

    def _commit(self, record: Record, manifest: ObjectManifest) -> None:
        key = f"{self._keys.below(record.path)}{manifest_path(manifest.artifact, manifest.version)}"
        self._area.insist_on_claim()
        try:
            self._client.put(key, _text(manifest), self._area.metadata(None))
        except StorageError:
            # The answer may be lost, and not the request.
            if self._committed(record) is None:
                raise

    def _finish(self, record: Record, manifest: ObjectManifest) -> None:
        """Do what follows the commit; none of it may fail an import that is published."""
        with suppress(StorageError):
            self._client.side_by_side(
                lambda gone: self._remove(record.path, *gone), [*record.retired, *record.removes]
            )
        with suppress(StorageError):
            self._area.save(COMMITTED, manifest.model_dump_json().encode())

    def _remove(self, folder: str, path: str, etag: str) -> None:
        key = f"{self._keys.below(folder)}{path}"
        head = self._client.head(key)
        if head is not None and head.etag == etag:
            self._client.delete(key)

    # Back.

    def _take_back(self, record: Record, *, again: bool) -> None:
        """Undo every move. `again`: what was an upload is staged once more, since its parts are gone."""
        prefix = self._keys.below(record.path)

        def undo(move: Move) -> None:
            key = f"{prefix}{move.path}"
            head = self._client.head(key)
            if head is None or not self._is_made(head, move):
                return
            if again and move.source is not None:
                self._area.take_whole(move.path, key, move.digests)
            if move.old is None:
                self._client.delete(key)
                return
            displaced = self._area.displaced_key(move.path)
            old = self._client.head(displaced)
            if old is None:
                raise StorageFailure(f"what lay at {shown(move.path)} before is gone; an operator must look")
            self._client.copy(displaced, key, old.size, old.metadata)

        self._client.side_by_side(undo, record.moves)
        self._area.forget(RECORD)


def _manifest(plan: ImportPlan, files: Iterable[ObjectFile]) -> ObjectManifest:
    return ObjectManifest(
        artifact=plan.model_id,
        version=plan.revision,
        registry=plan.registry,
        commit=plan.commit,
        task_id=plan.task_id,
        requested_by=plan.requested_by,
        imported_at=datetime.now(UTC),
        files=tuple(sorted(files, key=lambda file: file.path)),
    )


def _unborn(move: Move) -> ObjectFile:
    return ObjectFile(path=move.path, size=move.size, sha256=move.sha256, blob_id=move.blob_id)


def _born(manifest: ObjectManifest, made: Mapping[str, str]) -> ObjectManifest:
    files = tuple(
        file.model_copy(update={"etag": made[file.path]}) if file.path in made else file
        for file in manifest.files
    )
    return manifest.model_copy(update={"files": files})


def _text(manifest: ObjectManifest) -> bytes:
    return manifest.model_dump_json(indent=1).encode() + b"\n"
