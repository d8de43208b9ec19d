"""What every registry type offers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from proxy_client.wire import RegistryModel
from storage_proxy.storages.base import PlannedFile
from storage_proxy.transfer.line import Line


@dataclass(frozen=True, slots=True)
class FileStream:
    """The answer to a request for a range of a file's bytes.

    `offset` and `stop` are the range that really comes: the one that was asked for, or the whole file where the
    registry does not serve ranges. `readinto` reads what is there into a buffer, at least one byte, 0 at the end; it
    raises `SourceUnavailable` where the connection breaks before the announced end, or `Cut`.
    """

    offset: int
    stop: int
    readinto: Callable[[memoryview], int]


class AbstractRegistry(ABC):
    """Where models come from. Every call goes to the registry's own endpoint and raises a `SourceError`."""

    name: str
    protocol: str

    @abstractmethod
    async def search(self, search: str | None, *, limit: int, sort: str | None) -> list[RegistryModel]:
        """Return at most `limit` models, without revisions; `sort` is downloads, likes, last_modified or created_at."""

    @abstractmethod
    async def get_model(self, model_id: str, revision: str | None, *, details: bool = True) -> RegistryModel:
        """Describe a model with one revision, or with all branches and tags where `revision` is None.

        The commit is filled, and with `details` size and readme. Raises `SourceNotFound` for an unknown model or revision.
        """

    @abstractmethod
    async def resolve(self, model_id: str, revision: str) -> str:
        """Return the commit that a branch, tag or commit names now."""

    @abstractmethod
    async def list_files(self, model_id: str, commit: str) -> list[PlannedFile]:
        """Return every file at the commit, with size and digest."""

    @property
    @abstractmethod
    def host(self) -> str:
        """Return the host and port that the bound on connections counts for: each is a service of its own."""

    @abstractmethod
    def open_range(
        self, model_id: str, commit: str, file: PlannedFile, start: int, stop: int, line: Line
    ) -> AbstractContextManager[FileStream]:
        """Ask for the bytes from `start` up to `stop` of a file at the pinned commit. Blocks; ends when `line` is cut, with `Cut`.

        Raises `SourceChanged` where the registry says that it serves other bytes than the pinned ones.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all idle connections."""
