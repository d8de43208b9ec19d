"""What an import step reads and writes.

An `AbstractStorage` has two sides. The visible one is a tree of files by relative path (`stream_upload`,
`stream_download`, `delete_file`, `get_file_info`). The hidden one is a `StagingArea` for each import, where
bytes gather that nobody can see until `publish` lets them appear.

Paths are relative, `/`-separated and have passed `storage_proxy.volumes.paths`; a storage refuses any other
with `PathRefused`. Errors are those of `proxy_client.errors`: `StorageError` and below.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from proxy_client import paths
from proxy_client.errors import BadRequest
from proxy_client.wire import OnConflict

MANIFEST_FOLDER = paths.MANIFEST_FOLDER
STAGING_FOLDER = paths.STAGING_FOLDER

PIECE = 8 << 20
"""Bytes; the unit in which an interrupted file is resumed."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A visible file; `size` in bytes."""

    path: str
    size: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Digests:
    r"""What the bytes of a whole file hash to, lower-case hex.

    `blob_id` is the SHA-1 that Git gives the same content (over `blob <size>\0` and the bytes); None where nobody
    asked for it, since it costs as much as the SHA-256.
    """

    size: int
    sha256: str
    blob_id: str | None = None


class PlannedFile(BaseModel):
    """A file of the pinned commit, as the registry states it. At least one digest is there.

    `sha256` is stated for LFS files, `blob_id` (Git's SHA-1) for all others. `security` is the registry's own word on
    the file's safety, where it was asked for.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    size: int
    sha256: str | None = None
    blob_id: str | None = None
    security: str | None = None

    def matches(self, digests: Digests) -> bool:
        """Whether `digests` are those that the registry states."""
        if digests.size != self.size:
            return False
        return digests.sha256 == self.sha256 if self.sha256 else digests.blob_id == self.blob_id

    @property
    def wants_blob_id(self) -> bool:
        """Whether the SHA-256 alone cannot tell if the bytes are right."""
        return self.sha256 is None


class ImportPlan(BaseModel):
    """Everything that an import's steps agree on, fixed before the first byte and kept beside the staged bytes.

    `path` is where the files go in the storage: relative, or "/" for the root of a vfolder.
    """

    model_config = ConfigDict(frozen=True)

    task_id: UUID
    requested_by: UUID
    registry: str
    model_id: str
    revision: str
    commit: str
    path: str
    files: tuple[PlannedFile, ...]

    @property
    def total_bytes(self) -> int:
        """The sum of all files' sizes."""
        return sum(file.size for file in self.files)


class ManifestFile(BaseModel):
    """A published file. `preexisting` marks one that lay there before with the same bytes: it stays the user's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    size: int
    sha256: str
    preexisting: bool = False


class Manifest(BaseModel):
    """What `.stowage/<artifact>@<version>.json` holds: which files an import put into its folder, and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = 1
    artifact: str
    version: str
    registry: str
    commit: str
    task_id: UUID
    requested_by: UUID
    imported_at: datetime
    files: tuple[ManifestFile, ...]


def _nothing() -> None:
    pass


class StagedWriter(ABC):
    """One file on its way into a staging area, at most one writer a file. Every method blocks.

    A context manager: leaving it without `finish` keeps every whole piece for the next writer. Ranges are written by
    several threads at once, each from the start of a gap of `missing` on, front to back.
    """

    size: int

    @abstractmethod
    def missing(self) -> list[tuple[int, int]]:
        """Return what is not there yet: ascending ranges (start, stop) in bytes, whose stops are multiples of `PIECE` or `size`."""

    @abstractmethod
    def write(self, offset: int, data: memoryview, release: Callable[[], None] = _nothing) -> None:
        """Write `data`; `release` is called, from any thread, once it may be reused: when the call returns, or later.

        What begins at a page of memory may be written after the call returned, past the page cache where there is one.
        An error of that is the next call's. Raises `DiskFull`, `QuotaExceeded`, `ReadOnlyStorage` or `StorageFailure`; then the writer takes nothing more.
        """

    @abstractmethod
    def copy_from(self, fd: int) -> None:
        """Fill the whole file with the content of an open local file, without its bytes passing through memory where
        the file system can do that (reflink, `copy_file_range`). Never a hard link. Raises as `write`; a source of another size is `StorageFailure`.
        """

    @abstractmethod
    def restart(self) -> None:
        """Drop what is there and begin again. No other thread may be writing."""

    @abstractmethod
    def finish(self) -> Digests:
        """Make the file durable and whole under its path in the staging area, and return what it hashes to.

        Everything must have been written. The digests are recorded with the file, so that `StagingArea.digests` need
        not read it again. If they are not the expected ones, the caller discards the file with `StagingArea.drop`.
        """

    @abstractmethod
    def close(self) -> None:
        """Keep every whole piece for the next writer, and let go of the file. May be repeated, and after `finish`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StagingArea(ABC):
    """Where the bytes of one import gather, invisible to users, surviving the death of any process.

    Asynchronous methods are for the pipeline, blocking ones (`open_writer`, `add`, `open_local`) for the threads that move bytes.
    """

    @abstractmethod
    async def load_plan(self) -> ImportPlan | None:
        """Return the plan that an earlier attempt saved, or None."""

    @abstractmethod
    async def save_plan(self, plan: ImportPlan) -> None:
        """Keep the plan durably and atomically. An earlier one with another commit must have been discarded."""

    @abstractmethod
    def open_writer(self, file: PlannedFile) -> StagedWriter:
        """Open a writer for one file that goes on where an earlier one stopped. Blocks; raises as `StagedWriter.write`."""

    @abstractmethod
    def add(self, file: PlannedFile, content: bytes | bytearray | memoryview) -> Digests:
        """Write one small file at once, and return what it hashes to. Blocks.

        It is whole when the call returns, and durable after the next `settle`: many files share the cost of that.
        """

    @abstractmethod
    async def settle(self) -> None:
        """Make everything durable that `add` wrote."""

    def close(self) -> None:  # noqa: B027 -- most hold nothing
        """Let go of what an attempt holds open, at its end; what `add` wrote and nobody settled is not kept."""

    @abstractmethod
    async def digests(self, file: PlannedFile) -> Digests | None:
        """Return what the finished file hashes to, or None where it is not finished.

        The recorded digests hold while size, inode and modification time are those recorded with them;
        else the file is read again.
        """

    async def all_digests(self, files: Iterable[PlannedFile]) -> dict[str, Digests]:
        """Return, by path, what those of the files hash to that are finished."""
        found = {file.path: await self.digests(file) for file in files}
        return {path: digests for path, digests in found.items() if digests is not None}

    @abstractmethod
    async def drop(self, path: str) -> None:
        """Remove one file, finished or partial; no error if there is none."""

    @abstractmethod
    def read(self, path: str) -> AsyncIterator[bytes]:
        """Stream a finished file in chunks of at most 1 MiB."""

    @abstractmethod
    def open_local(self, path: str) -> int | None:
        """Open a finished file for reading: a file descriptor that the caller closes; None where there is no local file. Blocks."""

    @abstractmethod
    async def discard(self) -> None:
        """Remove the area with everything in it; may be repeated."""


class AbstractStorage(ABC):
    """A place for files: an artifact storage of the pool, or a vfolder through `VolumeStorageAdapter`."""

    name: str
    kind: Literal["vfs", "s3"] = "vfs"
    local: bool = True
    """Whether its files lie in a file system of this machine, where verifiers can read them."""

    async def aclose(self) -> None:  # noqa: B027 -- a directory holds nothing
        """Close what is held open between calls."""

    async def remove_abandoned(self, live: Collection[UUID]) -> int:  # noqa: ARG002 -- a directory's are removed with their imports
        """Remove what was staged long ago and for none of these imports, the open ones; returns how much that was."""
        return 0

    async def check(self) -> None:
        """Raise `StorageError` or `Unavailable` with what stands in the way of using it. Changes nothing."""
        await self.reserve(0)

    # The visible side.

    @abstractmethod
    async def stream_upload(self, path: str, stream: AsyncIterator[bytes]) -> Digests:
        """Write one file; it appears whole or not at all, replacing one that is there. Returns its digests."""

    @abstractmethod
    def stream_download(self, path: str) -> AsyncIterator[bytes]:
        """Stream one file in chunks of at most 1 MiB. Raises `NotFound` at the first chunk if there is none."""

    @abstractmethod
    async def delete_file(self, path: str) -> None:
        """Remove one file. Raises `NotFound` if there is none."""

    @abstractmethod
    async def get_file_info(self, path: str) -> FileInfo:
        """Describe one file. Raises `NotFound` if there is none."""

    @abstractmethod
    def open_local(self, path: str) -> int | None:
        """Open a visible file for reading: a file descriptor that the caller closes; None where this storage has no
        local files, or no such file. Blocks.
        """

    # The hidden side.

    @abstractmethod
    async def open_staging(self, task_id: UUID, *, destination: str | None = None) -> StagingArea:
        """Return the import's staging area, made when it is not there yet.

        destination: where the import will be published, for a caller that writes the staged files and does not read
        them; a storage may then send them to that place early, where nobody sees them before `publish`.
        """

    async def staged_plan(self, task_id: UUID) -> ImportPlan | None:  # noqa: ARG002 -- what a storage without local files says
        """Return the plan of an import that stages its files here in local ones, or None. Takes nothing over from it."""
        return None

    def open_staged(self, task_id: UUID, file: PlannedFile) -> int | None:  # noqa: ARG002 -- as above
        """Open a whole staged file of any import for reading: a descriptor that the caller closes; None if it is not whole.

        Blocks. What it holds is not verified here.
        """
        return None

    @abstractmethod
    async def reserve(self, needed: int, *, task_id: UUID | None = None, limit: int | None = None) -> None:
        """Raise `DiskFull` or `QuotaExceeded` if `needed` more bytes find no room now, before a byte is written.

        limit: what the storage may hold, in bytes, besides a limit of its own. Where the storage can, the room is kept
        for the import `task_id` until its staging area goes; may be repeated.
        """

    @abstractmethod
    async def insist_on_limit(self, task_id: UUID, *, limit: int | None = None) -> None:
        """Raise `QuotaExceeded` if the import does not fit any more: somebody wrote here, or a limit shrank, as in `reserve`.

        Imports that kept their room later do not count.
        """

    @abstractmethod
    async def present_files(self, plan: ImportPlan) -> Sequence[ManifestFile]:
        """Return the files of the plan that lie at its path already with the right bytes (they are read and hashed)."""

    @abstractmethod
    async def check_conflicts(self, plan: ImportPlan, on_conflict: OnConflict) -> None:
        """Raise `DestinationConflict`, naming the first files, if publishing the plan would meet somebody else's file.

        Changes nothing.
        """

    @abstractmethod
    async def publish(
        self, plan: ImportPlan, staged: Sequence[ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        """Let the staged files of the import appear at the plan's path, with their manifest, and return that.

        `staged` are the verified files in the area of `plan.task_id`; the plan's other files must lie at the
        path already, as `present_files` told. All at once where the path does not exist yet. Else file by file
        with the manifest last, and a conflict met on the way undoes what was done. May be repeated after a
        crash at any point: it goes on where it stopped, or answers the manifest if all was done.
        Raises `DestinationConflict` or another `StorageError`; then the visible side is as it was before.
        """

    @abstractmethod
    async def publishing(self, task_id: UUID) -> bool:
        """Whether an earlier `publish` of this import began and must be rolled forward."""

    # What artifact storages alone offer.

    async def unpublish(self, path: str, artifact: str, version: str) -> Manifest | None:  # noqa: ARG002 -- what a folder of a user's says
        """Remove what an import of this version left at `path`: the files of its manifest that nobody changed and no
        other manifest lists, then the manifest. Returns it; None if there is none. May be repeated.

        Raises `BadRequest` for what is no artifact storage.
        """
        raise BadRequest(f"{self.name} is no artifact storage; its files are its owner's to remove")

    async def presign(self, method: str, path: str, key: str, expires: int) -> str:  # noqa: ARG002 -- what a directory says
        """Return a URL that lets whoever has it GET or PUT the file `key` below the folder `path` for `expires` seconds.

        Raises `PathRefused` for a key that leaves the folder or is not one of a visible file, `BadRequest` for a storage
        that has no URLs.
        """
        raise BadRequest(
            f"the storage {self.name} is a directory, whose files have no URLs; use an object storage"
        )
