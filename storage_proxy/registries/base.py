"""What every registry type offers."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from proxy_client.wire import RegistryModel
from storage_proxy.storages.base import PlannedFile


@dataclass(frozen=True, slots=True)
class FileStream:
    """The answer to a request for a file's bytes from some offset on.

    `offset` is where the bytes really begin: the one asked for, or 0 where the registry does not serve ranges.
    `chunks` ends with the file's last byte, or raises `SourceUnavailable` where the connection breaks before.
    """

    offset: int
    chunks: AsyncIterator[bytes]


class AbstractRegistry(ABC):
    """Where models come from. Every call goes to the registry's own endpoint and raises a `SourceError`."""

    name: str
    protocol: str

    @abstractmethod
    async def search(self, search: str | None, *, limit: int, sort: str | None) -> list[RegistryModel]:
        """Return at most `limit` models, without revisions; `sort` is downloads, likes, last_modified or created_at."""

    @abstractmethod
    async def get_model(self, model_id: str, revision: str | None) -> RegistryModel:
        """Describe a model with one revision, or with all branches and tags where `revision` is None.

        Commit, size and readme are filled. Raises `SourceNotFound` for an unknown model or revision.
        """

    @abstractmethod
    async def resolve(self, model_id: str, revision: str) -> str:
        """Return the commit that a branch, tag or commit names now."""

    @abstractmethod
    async def list_files(self, model_id: str, commit: str) -> list[PlannedFile]:
        """Return every file at the commit, with size and digest."""

    @abstractmethod
    def open_file(
        self, model_id: str, commit: str, file: PlannedFile, offset: int
    ) -> AbstractAsyncContextManager[FileStream]:
        """Ask for a file's bytes from `offset` on, at the pinned commit.

        Raises `SourceChanged` where the registry says that it serves other bytes than the pinned ones.
        """
