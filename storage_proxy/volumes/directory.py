"""A folder on a mounted file system as an `AbstractStorage`: what a vfolder and a VFS artifact storage share."""

import os
import stat
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from proxy_client.errors import BadRequest, DestinationConflict, NotFound, StorageFailure
from proxy_client.wire import ImportPreview, OnConflict, VFolderFile, VFolderModel
from storage_proxy.storages.base import (
    AbstractStorage,
    Digests,
    FileInfo,
    ImportPlan,
    Manifest,
    ManifestFile,
    PlannedFile,
    StagingArea,
)
from storage_proxy.volumes import fsio
from storage_proxy.volumes.area import TREE, Area
from storage_proxy.volumes.paths import (
    ROOT,
    check_destination,
    check_path,
    check_readable,
    check_tree,
    join,
    shown,
)
from storage_proxy.volumes.preview import find_models, preview
from storage_proxy.volumes.publish import Publication, began, published
from storage_proxy.volumes.quota import Usage, insist_on_limit, insist_on_space, measure, reserve
from storage_proxy.volumes.staging import DirectoryStaging, stream
from storage_proxy.volumes.survey import Surveyor, find_destination, read_digests
from storage_proxy.volumes.threads import in_thread, walk_in_thread

T = TypeVar("T")

MOST_LISTED = 10_000

_UPLOADS = "uploads"
_ABANDONED = 24 * 3600  # seconds without a byte after which an upload's remains are removed


@dataclass(frozen=True)
class Place:
    """Where a `Directory` lies: `root` and `staging` below the mount, on the same file system.

    `what` names it in messages; `modes` are those of its files and folders.
    """

    mount: Path
    root: str
    staging: str
    what: str
    modes: fsio.Modes = fsio.PUBLIC


class Directory(AbstractStorage):
    """A storage in a folder. The folder itself is never made here: a volume that is not mounted must not look empty."""

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self._place = place

    # Opening.

    @contextmanager
    def _mount(self) -> Iterator[int]:
        with ExitStack() as stack:
            try:
                mount = stack.enter_context(fsio.trusted(self._place.mount))
            except (FileNotFoundError, NotADirectoryError) as exc:
                raise StorageFailure(f"{self._place.what} is not there; is its file system mounted?") from exc
            yield mount

    @contextmanager
    def _root(self) -> Iterator[int]:
        with self._mount() as mount, ExitStack() as stack:
            try:
                root = stack.enter_context(fsio.opened(mount, self._place.root))
            except (FileNotFoundError, NotADirectoryError) as exc:
                raise NotFound(f"{self._place.what} does not exist") from exc
            yield root

    def _modes(self, root: int) -> fsio.Modes:
        """What belongs into a folder belongs to whom the folder belongs, as far as the process may say so."""
        found = os.fstat(root)
        owner = (found.st_uid, found.st_gid) if os.geteuid() == 0 else None
        return replace(self._place.modes, owner=owner)

    def _same_root(self, root: int) -> bool:
        with self._mount() as mount:
            found = fsio.identity(mount, self._place.root)
            return found is not None and found.ino == os.fstat(root).st_ino

    def _area(self, root: int, task_id: UUID) -> Area:
        return Area(self._place.mount, f"{self._place.staging}/{task_id}", self._modes(root))

    # The visible side.

    async def stream_upload(self, path: str, stream: AsyncIterator[bytes]) -> Digests:
        check_path(path)
        doing = f"writing {shown(path)}"
        upload = await _run(doing, self._begin_upload)
        try:
            async for chunk in stream:
                await _run(doing, partial(fsio.write_all, upload.fd, chunk))
            return await _run(doing, partial(self._finish_upload, upload, path))
        finally:
            await _run(doing, partial(self._close_upload, upload))

    def _begin_upload(self) -> "_Upload":
        with self._root() as root, self._mount() as mount:
            uploads = f"{self._place.staging}/{_UPLOADS}"
            fsio.make_folders(mount, uploads, fsio.PRIVATE)
            with fsio.opened(mount, uploads) as folder:
                for name, found in fsio.names(folder):
                    if time.time() - found.st_mtime > _ABANDONED:
                        fsio.remove_tree(folder, name)
            path = f"{uploads}/{uuid.uuid4().hex}"
            return _Upload(path, fsio.create(mount, path, self._modes(root)))

    def _finish_upload(self, upload: "_Upload", path: str) -> Digests:
        fsio.fdatasync(upload.fd)
        digests = fsio.digest(upload.fd)
        if digests is None:
            raise StorageFailure(f"{shown(path)} was changed while it was written")
        with self._root() as root, self._mount() as mount:
            self._make_folders(root, path.rpartition("/")[0])
            if fsio.is_folder(root, path):
                raise DestinationConflict(f"a folder lies at {shown(path)}")
            fsio.rename(mount, upload.path, root, path)
            fsio.sync_folder(root, path.rpartition("/")[0])
        return digests

    def _close_upload(self, upload: "_Upload") -> None:
        os.close(upload.fd)
        with suppress(FileNotFoundError), self._mount() as mount:
            fsio.unlink(mount, upload.path)

    def _make_folders(self, root: int, path: str) -> None:
        try:
            fsio.make_folders(root, path, self._modes(root))
        except NotADirectoryError as exc:
            raise DestinationConflict(
                f"a file or a link lies where a folder of {shown(path)} must be"
            ) from exc

    def stream_download(self, path: str) -> AsyncIterator[bytes]:
        def open_file() -> int:
            with self._root() as root:
                return self._open(root, path)

        return stream(open_file, check_readable(path))

    def _open(self, root: int, path: str) -> int:
        try:
            return fsio.open_regular(root, path)
        except FileNotFoundError as exc:
            raise _no_file(path) from exc

    def open_local(self, path: str) -> int | None:
        check_readable(path)
        with fsio.translated(f"reading {shown(path)}"), suppress(FileNotFoundError), self._root() as root:
            return fsio.open_regular(root, path)
        return None

    async def delete_file(self, path: str) -> None:
        check_readable(path)

        def work() -> None:
            with self._root() as root:
                os.close(self._open(root, path))
                fsio.unlink(root, path)
                fsio.sync_folder(root, path.rpartition("/")[0])

        await _run(f"removing {shown(path)}", work)

    async def get_file_info(self, path: str) -> FileInfo:
        check_readable(path)

        def work() -> FileInfo:
            with self._root() as root:
                fd = self._open(root, path)
                try:
                    found = os.fstat(fd)
                finally:
                    os.close(fd)
                return FileInfo(path, found.st_size, fsio.modified_at(found))

        return await _run(f"looking at {shown(path)}", work)

    async def mkdir(self, path: str) -> None:
        """As `AbstractVolume.mkdir`."""
        check_path(path)

        def work() -> None:
            with self._root() as root:
                self._make_folders(root, path)

        await _run(f"making {shown(path)}", work)

    async def list_files(self, path: str) -> list[VFolderFile]:
        """As `AbstractVolume.list_files`."""
        if path and path != ROOT:
            check_readable(path)
        folder = path.removeprefix(ROOT)

        def work() -> list[VFolderFile]:
            with self._root() as root:
                if folder and fsio.identity(root, folder) is None:
                    raise NotFound(f"there is no {shown(folder)}", field="path")
                try:
                    with fsio.opened(root, folder) as fd:
                        _insist_on_a_list(folder, fsio.count(fd))
                        entries = sorted(fsio.names(fd))
                except NotADirectoryError as exc:
                    raise BadRequest(f"{shown(folder)} is not a folder; name one", field="path") from exc
            return [
                VFolderFile(
                    path=join(folder, os.fsencode(name).decode(errors="replace")),
                    size=0 if stat.S_ISDIR(found.st_mode) else found.st_size,
                    is_directory=stat.S_ISDIR(found.st_mode),
                    modified_at=fsio.modified_at(found),
                )
                for name, found in entries
                if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
            ]

        return await _run(f"listing {shown(path)}", work)

    async def list_models(self) -> list[VFolderModel]:
        """As `AbstractVolume.list_models`."""

        def work() -> list[VFolderModel]:
            with self._root() as root:
                return find_models(root)

        with fsio.translated("looking for models"):
            return await walk_in_thread(work)

    async def usage(self) -> Usage:
        """Count bytes and files of everything in the folder."""

        def work() -> Usage:
            with self._root() as root:
                return measure(root)

        with fsio.translated("counting what is used"):
            return await walk_in_thread(work)

    # The hidden side.

    async def open_staging(self, task_id: UUID, *, destination: str | None = None) -> StagingArea:  # noqa: ARG002 -- a rename is quick enough
        def work() -> Area:
            try:
                with self._root() as root:
                    area = self._area(root, task_id)
            except NotFound:
                # What was staged for a folder that is gone can still be discarded.
                area = Area(self._place.mount, f"{self._place.staging}/{task_id}", self._place.modes)
                if not area.exists():
                    raise
            area.make()
            area.claim()
            return area

        area = await _run("opening the staging area", work)

        def give_back() -> None:
            # Without the folder there is nothing to give back to.
            with suppress(NotFound), self._root() as root:
                if area.exists():
                    with area.open() as staging:
                        self._publication(root, area, staging).give_back()

        return DirectoryStaging(area, give_back)

    async def staged_plan(self, task_id: UUID) -> ImportPlan | None:
        def work() -> ImportPlan | None:
            with self._root() as root:
                area = self._area(root, task_id)
                return area.load_plan() if area.exists() else None

        return await _run("looking at another import's plan", work)

    def open_staged(self, task_id: UUID, file: PlannedFile) -> int | None:
        doing = f"looking for {shown(file.path)} in another import"
        with fsio.translated(doing), suppress(NotFound, FileNotFoundError), self._root() as root:
            with self._area(root, task_id).open() as area:
                fd = fsio.open_regular(area, f"{TREE}/{file.path}")
            if os.fstat(fd).st_size == file.size:
                return fd
            os.close(fd)
        return None

    async def reserve(self, needed: int, *, task_id: UUID | None = None, limit: int | None = None) -> None:
        def look() -> None:
            with self._root() as root:
                insist_on_space(root, needed)

        def keep() -> None:
            with self._root() as root:
                reserve(root, task_id, needed, limit, self._limit_of)

        await _run("looking for room", look)
        if limit is not None:
            with fsio.translated("looking for room"):
                await walk_in_thread(keep)

    async def insist_on_limit(self, task_id: UUID, *, limit: int | None = None) -> None:
        def work() -> None:
            with self._root() as root:
                insist_on_limit(root, task_id, limit, self._limit_of)

        if limit is not None:
            with fsio.translated("looking at the limit"):
                await walk_in_thread(work)

    @property
    def _limit_of(self) -> str:
        return f"the limit of {self._place.what}"

    async def present_files(self, plan: ImportPlan) -> Sequence[ManifestFile]:
        check_plan(plan)

        def work() -> list[ManifestFile]:
            with self._root() as root, self._known(root, plan) as (area, staging):
                destination = find_destination(root, plan.path)
                if destination is None:
                    return []
                try:
                    return list(_present(destination, plan, area, staging))
                finally:
                    os.close(destination)

        return await _run("looking for files that are there already", work)

    @contextmanager
    def _known(self, root: int, plan: ImportPlan) -> Iterator[tuple[Area, int | None]]:
        """Open the import's staging area if it has one: its journal remembers what files hash to."""
        area = self._area(root, plan.task_id)
        if not area.exists():
            yield area, None
            return
        with area.open() as staging:
            area.journal.refresh(staging)
            yield area, staging

    async def check_conflicts(self, plan: ImportPlan, on_conflict: OnConflict) -> None:
        check_plan(plan)

        def work() -> None:
            with self._root() as root, self._known(root, plan) as (area, staging):
                destination = find_destination(root, plan.path)
                if destination is None:
                    return
                try:
                    surveyor = Surveyor(destination, plan, on_conflict, area.journal, staging)
                    surveyor.survey(None).insist_on_no_conflict(plan.path)
                finally:
                    os.close(destination)

        await _run("looking for conflicts", work)

    async def preview(self, plan: ImportPlan) -> ImportPreview:
        """As `AbstractVolume.preview`."""
        check_plan(plan)

        def work() -> ImportPreview:
            with self._root() as root:
                return preview(root, plan)

        with fsio.translated("looking what is in the way"):
            return await walk_in_thread(work)

    async def publish(
        self, plan: ImportPlan, staged: Sequence[ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        """As `AbstractStorage.publish`. A caller that is cancelled meanwhile gets its cancellation when it is done.

        `publishing` tells then whether it is published.
        """
        check_plan(plan)
        check_staged(plan, staged)

        def work() -> Manifest:
            with self._root() as root:
                area = self._area(root, plan.task_id)
                if not area.exists() and (manifest := published(root, plan)) is not None:
                    return manifest
                area.make()
                area.claim()
                with area.open() as staging:
                    return self._publication(root, area, staging).run(plan, staged, on_conflict)

        return await _run("publishing", work)

    def _publication(self, root: int, area: Area, staging: int) -> Publication:
        return Publication(root, area, staging, lambda: self._same_root(root))

    async def publishing(self, task_id: UUID) -> bool:
        def work() -> bool:
            with self._root() as root:
                area = self._area(root, task_id)
                if not area.exists():
                    return False
                with area.open() as staging:
                    return began(staging)

        return await _run("looking for a publish that began", work)


@dataclass(frozen=True, slots=True)
class _Upload:
    """A file on its way through the staging folder; `path` is below the mount."""

    path: str
    fd: int


async def _run(doing: str, work: Callable[[], T]) -> T:
    with fsio.translated(doing):
        return await in_thread(work)


def _no_file(path: str) -> NotFound:
    return NotFound(f"there is no file {shown(path)}", field="path")


def _insist_on_a_list(folder: str, count: int) -> None:
    if count > MOST_LISTED:
        raise BadRequest(
            f"{shown(folder or ROOT)} holds {count} entries, and at most {MOST_LISTED} are listed; "
            "name a folder in it, or look on the volume itself",
            field="path",
        )


def _present(destination: int, plan: ImportPlan, area: Area, staging: int | None) -> Iterator[ManifestFile]:
    for file in plan.files:
        found = fsio.identity(destination, file.path)
        if found is None or found.size != file.size:
            continue
        digests = read_digests(destination, file.path, area.journal, staging, blob_id=file.wants_blob_id)
        if digests is not None and file.matches(digests):
            yield ManifestFile(path=file.path, size=file.size, sha256=digests.sha256)


def check_plan(plan: ImportPlan) -> None:
    """Hold every name against the path policy. Raises `PathRefused`."""
    check_destination(plan.path)
    check_tree(file.path for file in plan.files)
    for file in plan.files:
        check_path(join(plan.path, file.path))


def check_staged(plan: ImportPlan, staged: Sequence[ManifestFile]) -> None:
    """Hold what is said to be staged against the plan. Raises `StorageFailure`."""
    stated = {file.path: file for file in plan.files}
    for file in staged:
        planned = stated.get(file.path)
        if planned is None or planned.size != file.size or planned.sha256 not in {None, file.sha256}:
            raise StorageFailure(f"the staged file {shown(file.path)} is not what was planned")
