"""A plain mounted file system as a volume.

<mount>/<quota scope uuid, hex>/<hex[0:2]>/<hex[2:4]>/<hex[4:]>    a vfolder
<mount>/<quota scope uuid, hex>/.staging/<task id>                 what is on its way into one
<mount>/<quota scope uuid, hex>/.quota.json                        the scope's limit
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from proxy_client.errors import NotFound, StorageFailure
from proxy_client.wire import (
    ImportPreview,
    OnConflict,
    QuotaScope,
    QuotaScopeID,
    VFolderFile,
    VFolderID,
    VFolderModel,
    VFolderUsage,
    VolumeInfo,
)
from storage_proxy.storages.base import (
    STAGING_FOLDER,
    Digests,
    FileInfo,
    ImportPlan,
    Manifest,
    ManifestFile,
    PlannedFile,
    StagingArea,
)
from storage_proxy.volumes import fsio
from storage_proxy.volumes.base import AbstractVolume
from storage_proxy.volumes.directory import Directory, Place
from storage_proxy.volumes.paths import check_path
from storage_proxy.volumes.quota import insist_on_limit, read_limit, reserve, used_bytes, write_limit
from storage_proxy.volumes.threads import in_thread, walk_in_thread

T = TypeVar("T")

_THE_QUOTA = "the quota"
_GROUP = fsio.Modes(file=0o664, folder=0o775)


class VFSVolume(AbstractVolume):
    """The vfs backend. Its limits are the proxy's own count; the file system knows nothing of them."""

    backend = "vfs"

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path

    # Opening.

    @contextmanager
    def _mount(self) -> Iterator[int]:
        with ExitStack() as stack:
            try:
                mount = stack.enter_context(fsio.trusted(self._path))
            except (FileNotFoundError, NotADirectoryError) as exc:
                raise StorageFailure(f"volume {self.name} is not there; is it mounted?") from exc
            yield mount

    @contextmanager
    def _scope(self, scope: QuotaScopeID) -> Iterator[int]:
        """Open a quota scope's folder; FileNotFoundError for one that was never written."""
        with fsio.trusted(self._path) as mount, fsio.opened(mount, scope.id.hex) as folder:
            yield folder

    def _folder(self, vfid: VFolderID) -> Directory:
        scope = vfid.quota_scope.id.hex
        place = Place(
            mount=self._path,
            root=folder_path(vfid),
            staging=f"{scope}/{STAGING_FOLDER}",
            what=f"vfolder {vfid} of volume {self.name}",
            modes=_modes(vfid),
        )
        return Directory(self.name, place)

    async def _run(self, doing: str, work: Callable[[], T]) -> T:
        with fsio.translated(doing):
            return await in_thread(work)

    # Quota scopes and vfolders.

    async def info(self) -> VolumeInfo:
        def work() -> VolumeInfo:
            with self._mount() as mount:
                state = os.fstatvfs(mount)
            return VolumeInfo(
                name=self.name,
                backend=self.backend,
                capabilities=["vfolder", "quota"],
                total_bytes=state.f_blocks * state.f_frsize,
                used_bytes=(state.f_blocks - state.f_bfree) * state.f_frsize,
            )

        return await self._run("looking at the volume", work)

    async def get_quota_scope(self, scope: QuotaScopeID) -> QuotaScope:
        def work() -> QuotaScope:
            with self._mount() as mount:
                if not fsio.is_folder(mount, scope.id.hex):
                    return QuotaScope(quota_scope=scope, used_bytes=0)
                with fsio.opened(mount, scope.id.hex) as folder:
                    return QuotaScope(
                        quota_scope=scope,
                        used_bytes=used_bytes(folder),
                        limit_bytes=read_limit(folder),
                    )

        with fsio.translated("counting what a quota scope uses"):
            return await walk_in_thread(work)

    async def set_quota_scope(self, scope: QuotaScopeID, limit_bytes: int | None) -> QuotaScope:
        def work() -> None:
            with self._mount() as mount:
                fsio.make_folders(mount, scope.id.hex, _owned_as(mount, fsio.PUBLIC))
                with fsio.opened(mount, scope.id.hex) as folder:
                    write_limit(folder, limit_bytes)

        await self._run("setting a quota", work)
        return await self.get_quota_scope(scope)

    async def create_vfolder(self, vfid: VFolderID) -> None:
        def work() -> None:
            with self._mount() as mount:
                above, _, name = folder_path(vfid).rpartition("/")
                fsio.make_folders(mount, above, _owned_as(mount, fsio.PUBLIC))
                with fsio.opened(mount, above) as folder:
                    fsio.make_folders(folder, name, _owned_as(mount, _modes(vfid)))

        await self._run(f"making vfolder {vfid}", work)

    async def delete_vfolder(self, vfid: VFolderID) -> None:
        def work() -> None:
            with self._mount() as mount:
                path = folder_path(vfid)
                staging = f"{vfid.quota_scope.id.hex}/{STAGING_FOLDER}"
                gone = f"{staging}/deleted-{vfid.folder.hex}"
                if not fsio.is_folder(mount, vfid.quota_scope.id.hex):
                    return
                fsio.make_folders(mount, staging, fsio.PRIVATE)
                fsio.remove_tree(mount, gone)
                if fsio.is_folder(mount, path):
                    fsio.rename_new(mount, path, mount, gone)
                    fsio.remove_tree(mount, gone)
                for above in (path.rpartition("/")[0], path.rsplit("/", 2)[0]):
                    fsio.remove_folder(mount, above)

        await self._run(f"deleting vfolder {vfid}", work)

    async def vfolder_usage(self, vfid: VFolderID) -> VFolderUsage:
        usage = await self._folder(vfid).usage()
        return VFolderUsage(
            used_bytes=usage.used_bytes,
            file_count=usage.file_count,
            limit_bytes=await self._limit(vfid),
        )

    async def list_files(self, vfid: VFolderID, path: str = "") -> list[VFolderFile]:
        return await self._folder(vfid).list_files(path)

    async def list_models(self, vfid: VFolderID) -> list[VFolderModel]:
        return await self._folder(vfid).list_models()

    # Files.

    def sanitize_vfpath(self, vfid: VFolderID, path: str) -> str:  # noqa: ARG002 -- one policy for all folders
        return check_path(path)

    async def mkdir(self, vfid: VFolderID, path: str) -> None:
        await self._folder(vfid).mkdir(path)

    async def add_file(self, vfid: VFolderID, path: str, stream: AsyncIterator[bytes]) -> Digests:
        return await self._folder(vfid).stream_upload(path, stream)

    def open_local(self, vfid: VFolderID, path: str) -> int | None:
        return self._folder(vfid).open_local(path)

    def read_file(self, vfid: VFolderID, path: str) -> AsyncIterator[bytes]:
        return self._folder(vfid).stream_download(path)

    async def get_file_info(self, vfid: VFolderID, path: str) -> FileInfo:
        return await self._folder(vfid).get_file_info(path)

    async def delete_files(self, vfid: VFolderID, paths: Sequence[str]) -> None:
        folder = self._folder(vfid)
        for path in paths:
            with suppress(NotFound):
                await folder.delete_file(path)

    # What the import pipeline adds.

    async def stage(self, vfid: VFolderID, task_id: UUID) -> StagingArea:
        return await self._folder(vfid).open_staging(task_id)

    async def staged_plan(self, vfid: VFolderID, task_id: UUID) -> ImportPlan | None:
        return await self._folder(vfid).staged_plan(task_id)

    def open_staged(self, vfid: VFolderID, task_id: UUID, file: PlannedFile) -> int | None:
        return self._folder(vfid).open_staged(task_id, file)

    async def reserve(self, vfid: VFolderID, needed: int, *, task_id: UUID | None = None) -> None:
        await self._folder(vfid).reserve(needed)
        limit = await self._limit(vfid)

        def work() -> None:
            with self._scope(vfid.quota_scope) as folder:
                reserve(folder, task_id, needed, limit, _THE_QUOTA)

        if limit is not None:
            with fsio.translated("looking for room in the quota"):
                await walk_in_thread(work)

    async def insist_on_limit(self, vfid: VFolderID, task_id: UUID) -> None:
        limit = await self._limit(vfid)

        def work() -> None:
            with self._scope(vfid.quota_scope) as folder:
                insist_on_limit(folder, task_id, limit, _THE_QUOTA)

        if limit is not None:
            with fsio.translated("looking at the quota"):
                await walk_in_thread(work)

    async def _limit(self, vfid: VFolderID) -> int | None:
        def work() -> int | None:
            with self._scope(vfid.quota_scope) as folder:
                return read_limit(folder)

        return await self._run("reading a quota", work)

    async def present_files(self, vfid: VFolderID, plan: ImportPlan) -> Sequence[ManifestFile]:
        return await self._folder(vfid).present_files(plan)

    async def check_conflicts(self, vfid: VFolderID, plan: ImportPlan, on_conflict: OnConflict) -> None:
        await self._folder(vfid).check_conflicts(plan, on_conflict)

    async def preview(self, vfid: VFolderID, plan: ImportPlan) -> ImportPreview:
        return await self._folder(vfid).preview(plan)

    async def publish(
        self, vfid: VFolderID, plan: ImportPlan, staged: Sequence[ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        return await self._folder(vfid).publish(plan, staged, on_conflict)

    async def publishing(self, vfid: VFolderID, task_id: UUID) -> bool:
        return await self._folder(vfid).publishing(task_id)


def folder_path(vfid: VFolderID) -> str:
    """Return where a vfolder lies below the mount."""
    hexadecimal = vfid.folder.hex
    return f"{vfid.quota_scope.id.hex}/{hexadecimal[:2]}/{hexadecimal[2:4]}/{hexadecimal[4:]}"


def _modes(vfid: VFolderID) -> fsio.Modes:
    return _GROUP if vfid.quota_scope.kind == "project" else fsio.PUBLIC


def _owned_as(mount: int, modes: fsio.Modes) -> fsio.Modes:
    found = os.fstat(mount)
    return fsio.Modes(modes.file, modes.folder, (found.st_uid, found.st_gid)) if os.geteuid() == 0 else modes
