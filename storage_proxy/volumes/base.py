"""What every volume backend offers."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

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
    Digests,
    FileInfo,
    ImportPlan,
    Manifest,
    ManifestFile,
    PlannedFile,
    StagingArea,
)


class AbstractVolume(ABC):
    """A mounted file system that holds vfolders.

    Paths are relative to a vfolder's root. A vfolder that is not there raises `NotFound`. Errors and promises
    of the methods that `AbstractStorage` has too are those of `AbstractStorage`.
    """

    name: str

    @abstractmethod
    async def info(self) -> VolumeInfo:
        """Return backend, capabilities, capacity and use in bytes."""

    # Quota scopes and vfolders.

    @abstractmethod
    async def get_quota_scope(self, scope: QuotaScopeID) -> QuotaScope:
        """Return use and limit in bytes; a scope that was never written is empty and unlimited."""

    @abstractmethod
    async def set_quota_scope(self, scope: QuotaScopeID, limit_bytes: int | None) -> QuotaScope:
        """Set or lift the limit. What lies there already is not touched, even if it is over the new limit."""

    @abstractmethod
    async def create_vfolder(self, vfid: VFolderID) -> None:
        """Make the folder; may be repeated."""

    @abstractmethod
    async def delete_vfolder(self, vfid: VFolderID) -> None:
        """Remove the folder with everything in it; may be repeated."""

    @abstractmethod
    async def vfolder_usage(self, vfid: VFolderID) -> VFolderUsage:
        """Count bytes and files of the folder."""

    @abstractmethod
    async def list_files(self, vfid: VFolderID, path: str = "") -> list[VFolderFile]:
        """Return the entries directly in a directory, sorted by path; links are left out.

        Raises `NotFound`, or `BadRequest` at field `path` for what is not a directory.
        """

    @abstractmethod
    async def list_models(self, vfid: VFolderID) -> list[VFolderModel]:
        """Return what the manifests in the folder tell, sorted by path and artifact; of a large folder, those near its root."""

    # Files.

    @abstractmethod
    def sanitize_vfpath(self, vfid: VFolderID, path: str) -> str:
        """Return the path if the policy allows it; raises `PathRefused`. Repairs nothing."""

    @abstractmethod
    async def mkdir(self, vfid: VFolderID, path: str) -> None:
        """Make a directory and its parents; may be repeated."""

    @abstractmethod
    async def add_file(self, vfid: VFolderID, path: str, stream: AsyncIterator[bytes]) -> Digests:
        """Write one file, atomically, with its parents."""

    @abstractmethod
    def read_file(self, vfid: VFolderID, path: str) -> AsyncIterator[bytes]:
        """Stream one file in chunks of at most 1 MiB."""

    @abstractmethod
    def open_local(self, vfid: VFolderID, path: str) -> int | None:
        """As `AbstractStorage.open_local`."""

    @abstractmethod
    async def get_file_info(self, vfid: VFolderID, path: str) -> FileInfo:
        """Describe one file."""

    @abstractmethod
    async def delete_files(self, vfid: VFolderID, paths: Sequence[str]) -> None:
        """Remove files; those that are not there are passed over."""

    # What the import pipeline adds.

    @abstractmethod
    async def stage(self, vfid: VFolderID, task_id: UUID) -> StagingArea:
        """Open the import's staging area in the vfolder's quota scope and file system."""

    @abstractmethod
    async def staged_plan(self, vfid: VFolderID, task_id: UUID) -> ImportPlan | None:
        """As `AbstractStorage.staged_plan`."""

    @abstractmethod
    def open_staged(self, vfid: VFolderID, task_id: UUID, file: PlannedFile) -> int | None:
        """As `AbstractStorage.open_staged`."""

    @abstractmethod
    async def reserve(self, vfid: VFolderID, needed: int, *, task_id: UUID | None = None) -> None:
        """As `AbstractStorage.reserve`, for the vfolder's quota scope with its limit, and its file system."""

    @abstractmethod
    async def insist_on_limit(self, vfid: VFolderID, task_id: UUID) -> None:
        """As `AbstractStorage.insist_on_limit`, for the limit of the vfolder's quota scope."""

    @abstractmethod
    async def present_files(self, vfid: VFolderID, plan: ImportPlan) -> Sequence[ManifestFile]:
        """As `AbstractStorage.present_files`."""

    @abstractmethod
    async def check_conflicts(self, vfid: VFolderID, plan: ImportPlan, on_conflict: OnConflict) -> None:
        """As `AbstractStorage.check_conflicts`."""

    @abstractmethod
    async def preview(self, vfid: VFolderID, plan: ImportPlan) -> ImportPreview:
        """Return within seconds what publishing the plan would bring and meet. Changes nothing, and is no promise."""

    @abstractmethod
    async def publish(
        self, vfid: VFolderID, plan: ImportPlan, staged: Sequence[ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        """As `AbstractStorage.publish`."""

    @abstractmethod
    async def publishing(self, vfid: VFolderID, task_id: UUID) -> bool:
        """As `AbstractStorage.publishing`."""
