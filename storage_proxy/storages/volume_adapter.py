"""Any vfolder of any volume as a storage, without registering it in the pool."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from proxy_client.wire import OnConflict, VFolderID
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
from storage_proxy.volumes.base import AbstractVolume


class VolumeStorageAdapter(AbstractStorage):
    """An `AbstractStorage` over one vfolder of a volume."""

    def __init__(self, name: str, volume: AbstractVolume, vfid: VFolderID) -> None:
        self.name = name
        self._volume = volume
        self._vfid = vfid

    async def stream_upload(self, path: str, stream: AsyncIterator[bytes]) -> Digests:
        return await self._volume.add_file(self._vfid, path, stream)

    def stream_download(self, path: str) -> AsyncIterator[bytes]:
        return self._volume.read_file(self._vfid, path)

    def open_local(self, path: str) -> int | None:
        return self._volume.open_local(self._vfid, path)

    async def delete_file(self, path: str) -> None:
        await self.get_file_info(path)  # raises NotFound, which `delete_files` passes over
        await self._volume.delete_files(self._vfid, [path])

    async def get_file_info(self, path: str) -> FileInfo:
        return await self._volume.get_file_info(self._vfid, path)

    async def open_staging(self, task_id: UUID, *, destination: str | None = None) -> StagingArea:  # noqa: ARG002 -- as for every directory
        return await self._volume.stage(self._vfid, task_id)

    async def staged_plan(self, task_id: UUID) -> ImportPlan | None:
        return await self._volume.staged_plan(self._vfid, task_id)

    def open_staged(self, task_id: UUID, file: PlannedFile) -> int | None:
        return self._volume.open_staged(self._vfid, task_id, file)

    async def reserve(self, needed: int, *, task_id: UUID | None = None, limit: int | None = None) -> None:  # noqa: ARG002 -- a vfolder's limit is its quota scope's
        await self._volume.reserve(self._vfid, needed, task_id=task_id)

    async def insist_on_limit(self, task_id: UUID, *, limit: int | None = None) -> None:  # noqa: ARG002 -- as above
        await self._volume.insist_on_limit(self._vfid, task_id)

    async def present_files(self, plan: ImportPlan) -> Sequence[ManifestFile]:
        return await self._volume.present_files(self._vfid, plan)

    async def check_conflicts(self, plan: ImportPlan, on_conflict: OnConflict) -> None:
        await self._volume.check_conflicts(self._vfid, plan, on_conflict)

    async def publish(
        self, plan: ImportPlan, staged: Sequence[ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        return await self._volume.publish(self._vfid, plan, staged, on_conflict)

    async def publishing(self, task_id: UUID) -> bool:
        return await self._volume.publishing(self._vfid, task_id)
