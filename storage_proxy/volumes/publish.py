"""How staged files become visible; docs/decisions/0003 tells why it is done this way.

Where the destination does not exist, everything appears by one rename of a directory. Else the files are moved
in one by one (`moves`), what they displace waits in the staging area, and the manifest, moved in last, commits.
`publish.json` is written before the first move, so that a successor can go on, or take everything back.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy_client.errors import DestinationConflict, StorageFailure
from proxy_client.wire import OnConflict
from storage_proxy.storages.base import MANIFEST_FOLDER, ImportPlan, Manifest, ManifestFile, PlannedFile
from storage_proxy.volumes import fsio
from storage_proxy.volumes.area import TREE, Area
from storage_proxy.volumes.moves import Move, Moves, Raced
from storage_proxy.volumes.paths import join, manifest_name, manifest_path, parents, shown
from storage_proxy.volumes.survey import Survey, Surveyor, find_destination, read_manifest

_RECORD = "publish.json"
_COMMITTED = "published.json"
_CHAIN = "chain"
_FOLDERS = "folders"
_TRASH = "trash"
_LARGEST_RECORD = 1 << 30  # bytes
_ATTEMPTS = 4


class Record(BaseModel):
    """`publish.json`: a publish that began.

    `ino` is that of the staged tree, or of the folder that is merged into. `tree` is where the staged tree waits
    for its one rename. The last of the `moves` is the manifest; `retired` are older manifests that go after it.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["tree", "merge"]
    path: str
    ino: int
    manifest: Manifest
    staged: tuple[ManifestFile, ...]
    on_conflict: OnConflict
    tree: str = TREE
    moves: tuple[Move, ...] = ()
    keeps: tuple[tuple[str, fsio.Identity], ...] = ()
    retired: tuple[Move, ...] = ()

    @property
    def folders(self) -> list[str]:
        """Every folder of the destination in which a merge changes names."""
        return sorted({move.path.rpartition("/")[0] for move in self.moves})


def began(staging: int) -> bool:
    """Whether a publish from this staging area began; it may be committed already."""
    return fsio.status(staging, _RECORD) is not None


def published(root: int, plan: ImportPlan) -> Manifest | None:
    """Return the manifest at the plan's path if this very import left it."""
    manifest = _manifest_at(root, plan.path, plan.model_id, plan.revision)
    return manifest if manifest is not None and manifest.task_id == plan.task_id else None


def _manifest_at(root: int, path: str, artifact: str, version: str) -> Manifest | None:
    destination = _destination(root, path)
    if destination is None:
        return None
    try:
        return read_manifest(destination, manifest_name(artifact, version))
    finally:
        os.close(destination)


def _destination(root: int, path: str) -> int | None:
    try:
        return find_destination(root, path)
    except DestinationConflict:
        return None


class Publication:
    """One publish of one import. Every method blocks; `root` is held open for as long as it takes.

    `same_root` tells whether the folder behind `root` still lies where it lay.
    """

    def __init__(self, root: int, area: Area, staging: int, same_root: Callable[[], bool]) -> None:
        self._root = root
        self._area = area
        self._staging = staging
        self._same_root = same_root

    def run(self, plan: ImportPlan, staged: Sequence[ManifestFile], on_conflict: OnConflict) -> Manifest:
        """Publish, or go on with a publish that began. As `AbstractStorage.publish`."""
        record = self._load()
        manifest = published(self._root, plan) if record is None else self._finished(record)
        if manifest is not None:
            return manifest
        at = plan.path
        if record is not None:
            staged, on_conflict = record.staged, record.on_conflict
            try:
                if (manifest := self._go_on(record)) is not None:
                    return manifest
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
        if record is not None and record.kind == "merge" and self._finished(record) is None:
            self._take_back(record)

    def _insist_on_claim(self) -> None:
        self._area.insist_on_claim(self._staging)

    # What an earlier attempt left.

    def _load(self) -> Record | None:
        text = fsio.read_small(self._staging, _RECORD, _LARGEST_RECORD)
        try:
            return None if text is None else Record.model_validate_json(text)
        except ValidationError as exc:
            raise StorageFailure(
                "the record of a publish that began is damaged; an operator must look"
            ) from exc

    def _finished(self, record: Record) -> Manifest | None:
        """Return the record's manifest if it was committed, after bringing what follows a commit to its end."""
        ours = record.manifest
        if fsio.status(self._staging, _COMMITTED) is None:
            if record.kind == "tree":
                committed = all(not self._is_tree(place, record) for place in (TREE, record.tree))
            else:
                found = _manifest_at(self._root, record.path, ours.artifact, ours.version)
                committed = found is not None and found.task_id == ours.task_id
            if not committed:
                return None
            with suppress(Raced):  # its owner may have moved it since
                self._sync(record)
        self._finish(record)
        return ours

    def _is_tree(self, place: str, record: Record) -> bool:
        return (found := fsio.identity(self._staging, place)) is not None and found.ino == record.ino

    def _go_on(self, record: Record) -> Manifest | None:
        """Roll a merge forward; put a tree that was not renamed yet back to where a new attempt expects it."""
        if record.kind == "tree":
            self._unchain(record)
            return None
        destination = _destination(self._root, record.path)
        try:
            if destination is not None and os.fstat(destination).st_ino == record.ino:
                return self._carry_out(destination, record)
        finally:
            if destination is not None:
                os.close(destination)
        self._take_back(record)
        return None

    # An attempt.

    def _attempt(
        self, plan: ImportPlan, staged: Mapping[str, ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        destination = find_destination(self._root, plan.path)
        if destination is None:
            return self._publish_tree(plan, staged, on_conflict)
        try:
            return self._publish_merge(destination, plan, staged, on_conflict)
        finally:
            os.close(destination)

    def _check_staged(self, paths: Iterable[str], staged: Mapping[str, ManifestFile]) -> None:
        """What was verified is what is published: the digests on record are those of the verified files."""
        wanted = [
            PlannedFile(path=path, size=staged[path].size, sha256=staged[path].sha256) for path in paths
        ]
        found = self._area.digests(wanted)
        for file in wanted:
            if file.path not in found or not file.matches(found[file.path]):
                raise StorageFailure(
                    f"the staged file {shown(file.path)} is not the verified one; import again"
                )

    def _place_manifest(self, plan: ImportPlan, files: Iterable[ManifestFile]) -> Manifest:
        manifest = Manifest(
            artifact=plan.model_id,
            version=plan.revision,
            registry=plan.registry,
            commit=plan.commit,
            task_id=plan.task_id,
            requested_by=plan.requested_by,
            imported_at=datetime.now(UTC),
            files=tuple(sorted(files, key=lambda file: file.path)),
        )
        fsio.make_folders(self._staging, f"{TREE}/{MANIFEST_FOLDER}", self._area.modes, durable=False)
        path = f"{TREE}/{manifest_path(plan.model_id, plan.revision)}"
        text = manifest.model_dump_json(indent=1).encode() + b"\n"
        fsio.write_file(self._staging, path, text, self._area.modes)
        return manifest

    def _write_record(self, record: Record) -> None:
        self._insist_on_claim()
        fsio.write_file(self._staging, _RECORD, record.model_dump_json().encode(), fsio.PRIVATE)

    def _drop_record(self) -> None:
        self._insist_on_claim()
        fsio.unlink(self._staging, _RECORD)
        fsio.sync_folder(self._staging, "")

    # The destination does not exist: one rename.

    def _publish_tree(
        self, plan: ImportPlan, staged: Mapping[str, ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        if gone := [file.path for file in plan.files if file.path not in staged]:
            raise DestinationConflict(
                f"{shown(join(plan.path, gone[0]))} was removed while the import ran; import again"
            )
        self._check_staged(staged, staged)
        manifest = self._place_manifest(plan, staged.values())
        self._prune({*staged, manifest_path(plan.model_id, plan.revision)})
        existing = [folder for folder in parents(plan.path) if fsio.is_folder(self._root, folder)]
        components = plan.path.split("/")
        top, below = "/".join(components[: len(existing) + 1]), components[len(existing) + 1 :]
        record = Record(
            kind="tree",
            path=plan.path,
            ino=os.stat(TREE, dir_fd=self._staging).st_ino,
            manifest=manifest,
            staged=tuple(staged.values()),
            on_conflict=on_conflict,
            tree="/".join([_CHAIN, *below]) if below else TREE,
        )
        self._write_record(record)
        begun = _CHAIN if below else TREE
        try:
            self._chain(record)
            self._insist_on_claim()
            fsio.rename_new(self._staging, begun, self._root, top)
        except OSError as exc:
            self._unchain(record)
            if isinstance(exc, (FileExistsError, FileNotFoundError, NotADirectoryError)):
                raise Raced(top) from exc
            raise
        try:
            self._insist_on_place(record)
            fsio.sync_folder(self._root, top.rpartition("/")[0])
        except (OSError, Raced):
            fsio.rename_new(self._root, top, self._staging, begun)
            self._unchain(record)
            raise
        self._finish(record)
        return manifest

    def _prune(self, wanted: set[str]) -> None:
        """Make the staged tree hold what is wanted and nothing else, and durable."""
        needed = {folder for path in wanted for folder in parents(path)}
        surplus = []
        for path, found in fsio.walk(self._staging, TREE):
            inner = path.removeprefix(f"{TREE}/")
            if inner not in (needed if stat.S_ISDIR(found.st_mode) else wanted):
                surplus.append(path)
        for path in surplus:
            fsio.remove_tree(self._staging, path)
        for folder in sorted(needed, reverse=True):
            fsio.sync_folder(self._staging, f"{TREE}/{folder}")
        fsio.sync_folder(self._staging, TREE)

    def _chain(self, record: Record) -> None:
        """Lay the tree into the folders above it that do not exist either, so that one rename brings all."""
        if record.tree == TREE:
            return
        fsio.remove_tree(self._staging, _CHAIN)
        above = record.tree.rpartition("/")[0]
        fsio.make_folders(self._staging, above, self._area.modes)
        fsio.rename_new(self._staging, TREE, self._staging, record.tree)
        fsio.sync_folder(self._staging, above)

    def _unchain(self, record: Record) -> None:
        if record.tree != TREE:
            if self._is_tree(record.tree, record):
                fsio.rename(self._staging, record.tree, self._staging, TREE)
            fsio.remove_tree(self._staging, _CHAIN)
        self._drop_record()

    def _insist_on_place(self, record: Record) -> None:
        """Raise `Raced` if the root, or the folder below it, is not any more where it was opened."""
        found = fsio.identity(self._root, "" if record.path == "/" else record.path)
        if not self._same_root() or found is None or found.ino != record.ino:
            raise Raced(record.path)

    # The destination exists: a merge.

    def _publish_merge(
        self, destination: int, plan: ImportPlan, staged: Mapping[str, ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        surveyor = Surveyor(destination, plan, on_conflict, self._area.journal, self._staging)
        survey = surveyor.survey(staged)
        survey.insist_on_no_conflict(plan.path)
        brought = [*survey.adds, *(found.path for found in survey.replaces)]
        self._check_staged(brought, staged)
        manifest = self._place_manifest(plan, [*survey.kept, *(staged[path] for path in brought)])
        record = Record(
            kind="merge",
            path=plan.path,
            ino=os.fstat(destination).st_ino,
            manifest=manifest,
            staged=tuple(staged.values()),
            on_conflict=on_conflict,
            moves=tuple(self._moves(survey, manifest_path(plan.model_id, plan.revision))),
            keeps=tuple((found.path, found.identity) for found in survey.keeps),
            retired=tuple(
                Move(kind="remove", path=found.path, source=f"{_TRASH}/m{number}", old=found.identity)
                for number, found in enumerate(survey.retired)
            ),
        )
        self._write_record(record)
        return self._carry_out(destination, record)

    def _moves(self, survey: Survey, manifest: str) -> list[Move]:
        """Turn a survey into moves: folders from the outside in, files, what goes, and the manifest last."""
        for folder in (_FOLDERS, _TRASH):
            fsio.remove_tree(self._staging, folder)
            fsio.make_folder(self._staging, folder, fsio.PRIVATE)
        moves = []
        for number, path in enumerate(survey.folders):
            source = f"{_FOLDERS}/{number}"
            fsio.make_folder(self._staging, source, self._area.modes)
            new = fsio.identity(self._staging, source)
            moves.append(Move(kind="folder", path=path, source=source, new=new))
        moves += [self._brought(path, None, theirs=False) for path in survey.adds]
        moves += [self._brought(found.path, found.identity, theirs=found.theirs) for found in survey.replaces]
        moves += [
            Move(kind="remove", path=found.path, source=f"{_TRASH}/{number}", old=found.identity)
            for number, found in enumerate(survey.removes)
        ]
        old = survey.manifest
        moves.append(
            self._brought(manifest, old.identity if old else None, theirs=old is not None and old.theirs)
        )
        return moves

    def _brought(self, path: str, old: fsio.Identity | None, *, theirs: bool) -> Move:
        source = f"{TREE}/{path}"
        new = fsio.identity(self._staging, source)
        kind: Literal["add", "replace"] = "add" if old is None else "replace"
        return Move(kind=kind, path=path, source=source, new=new, old=old, theirs=theirs)

    def _carry_out(self, destination: int, record: Record) -> Manifest:
        moves = Moves(destination, self._staging, record.manifest.task_id)
        *before, manifest = record.moves
        try:
            for move in before:
                self._insist_on_claim()
                moves.make(move)
            for folder in record.folders:
                _sync_folder(destination, folder)
            self._insist_on_all(destination, moves, before, record)
            self._insist_on_claim()
            moves.make(manifest)
            _sync_folder(destination, MANIFEST_FOLDER)
        except (OSError, Raced):
            self._take_back(record)
            raise
        self._finish(record)
        return record.manifest

    def _insist_on_all(self, destination: int, moves: Moves, made: Sequence[Move], record: Record) -> None:
        """Raise `Raced` if anything that was moved, kept or opened was touched by somebody else meanwhile."""
        self._insist_on_place(record)
        for move in made:
            if not moves.stands(move):
                raise Raced(move.path)
        for path, identity in record.keeps:
            if fsio.identity(destination, path) != identity:
                raise Raced(path)

    def _take_back(self, record: Record) -> None:
        """Undo the moves of a merge, the last one first. After an error the record stays, for another try."""
        destination = _destination(self._root, record.path)
        try:
            if destination is None or os.fstat(destination).st_ino != record.ino:
                self._insist_on_nothing_of_theirs(record)
            else:
                moves = Moves(destination, self._staging, record.manifest.task_id)
                faults = [fault for move in reversed(record.moves) if (fault := self._undo(moves, move))]
                for folder in record.folders:
                    with suppress(OSError):
                        fsio.sync_folder(destination, folder)
                if faults:
                    raise faults[0]
        finally:
            if destination is not None:
                os.close(destination)
        self._drop_record()

    def _undo(self, moves: Moves, move: Move) -> OSError | None:
        self._insist_on_claim()
        try:
            moves.take_back(move)
        except OSError as exc:
            return exc
        return None

    def _insist_on_nothing_of_theirs(self, record: Record) -> None:
        for move in record.moves:
            if move.theirs and fsio.identity(self._staging, move.source) == move.old:
                raise StorageFailure(
                    f"{shown(record.path)} was moved away while files in it were being replaced; "
                    "the replaced ones are kept in the staging area"
                )

    # After the commit: nothing here may fail an import that is published.

    def _sync(self, record: Record) -> None:
        if record.kind == "tree":
            for folder in ["", *parents(record.path)]:
                _sync_folder(self._root, folder)
        elif (destination := _destination(self._root, record.path)) is not None:
            try:
                for folder in record.folders:
                    _sync_folder(destination, folder)
            finally:
                os.close(destination)

    def _finish(self, record: Record) -> None:
        with suppress(OSError):
            fsio.write_file(
                self._staging, _COMMITTED, record.manifest.model_dump_json().encode(), fsio.PRIVATE
            )
        if record.kind == "tree" or (destination := _destination(self._root, record.path)) is None:
            return
        moves = Moves(destination, self._staging, record.manifest.task_id)
        try:
            for move in record.retired:
                with suppress(OSError, Raced):
                    moves.make(move)
            for move in record.moves:
                if move.kind == "remove":
                    with suppress(OSError):
                        _remove_empty(destination, parents(move.path))
        finally:
            os.close(destination)


def _sync_folder(root: int, path: str) -> None:
    """Make a folder durable that somebody may have taken away."""
    try:
        fsio.sync_folder(root, path)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise Raced(path) from exc


def _remove_empty(destination: int, folders: Sequence[str]) -> None:
    for folder in reversed(folders):
        if not fsio.remove_folder(destination, folder) and fsio.identity(destination, folder) is not None:
            return
