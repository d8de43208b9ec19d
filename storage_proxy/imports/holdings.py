"""What this proxy has already: files in its artifact storages, and what other imports stage right now.

Never what lies in a user's folder. Everything is SQL on the proxy's own tables; whoever copies by it checks the digest.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from proxy_client.wire import ImportOrder
from storage_proxy.imports.jobs import ImportJobs
from storage_proxy.storages.base import Digests, PlannedFile

# How long an import that is about to publish lets others take what it staged: they look ten times a second.
_COURTESY = 2.0
_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Held:
    """A visible file of an artifact storage."""

    storage: str
    path: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another import that is running. `older` than the one that asks: then that one may wait for it, and never the other way round."""

    order: ImportOrder
    older: bool
    bytes_done: int


class Holdings:
    """The proxy's knowledge of bytes that need not be fetched."""

    def __init__(self, jobs: ImportJobs) -> None:
        self._jobs = jobs

    async def remember(self, storage: str, files: Mapping[str, Digests]) -> None:
        """Record files that were published to an artifact storage, by path."""
        paths, found = list(files), list(files.values())
        await self._jobs.ask(
            "execute",
            """INSERT INTO holdings (storage, path, size, sha256, blob_id)
               SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[])
               ON CONFLICT (storage, path) DO UPDATE
               SET size = excluded.size, sha256 = excluded.sha256, blob_id = excluded.blob_id""",
            storage,
            paths,
            [digests.size for digests in found],
            [digests.sha256 for digests in found],
            [digests.blob_id for digests in found],
        )

    async def forget(self, held: Held) -> None:
        """Drop what turned out not to be there any more."""
        await self._jobs.ask(
            "execute", "DELETE FROM holdings WHERE storage = $1 AND path = $2", held.storage, held.path
        )

    async def forget_all(self, storage: str, paths: Sequence[str]) -> None:
        """Drop files that were removed from an artifact storage."""
        await self._jobs.ask(
            "execute", "DELETE FROM holdings WHERE storage = $1 AND path = ANY ($2)", storage, list(paths)
        )

    async def find(self, files: Sequence[PlannedFile]) -> dict[str, list[Held]]:
        """Return, by path in the plan, where files with the same digest lie; empty files are left out."""
        wanted = [file for file in files if file.size]
        by_sha256 = [file for file in wanted if file.sha256 is not None]
        by_blob_id = [file for file in wanted if file.sha256 is None]
        found: defaultdict[str, list[Held]] = defaultdict(list)
        for column, group in (("sha256", by_sha256), ("blob_id", by_blob_id)):
            if not group:
                continue
            rows = await self._jobs.ask(
                "fetch",
                f"""SELECT wanted.path AS wanted, holdings.storage, holdings.path
                    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS wanted (path, digest, size)
                    JOIN holdings ON holdings.{column} = wanted.digest AND holdings.size = wanted.size""",  # noqa: S608 -- one of two names that stand above
                [file.path for file in group],
                [getattr(file, column) for file in group],
                [file.size for file in group],
            )
            for row in rows:
                found[row["wanted"]].append(Held(row["storage"], row["path"]))
        return found

    async def neighbours(self, task_id: UUID) -> list[Neighbour]:
        """Return the other imports that hold staged bytes and have not begun to publish, the oldest first."""
        rows = await self._jobs.ask(
            "fetch",
            """SELECT other."order", other.bytes_done,
                      (other.created_at, other.task_id) < (mine.created_at, mine.task_id) AS older
               FROM imports AS other, imports AS mine
               WHERE mine.task_id = $1 AND other.task_id <> $1 AND other.finished_at IS NULL
                 AND other.state IN ('running', 'needs_approval') AND NOT other.publishing
                 AND NOT other.cancel_requested
               ORDER BY other.created_at, other.task_id LIMIT 100""",
            task_id,
        )
        return [
            Neighbour(ImportOrder.model_validate_json(row["order"]), row["older"], row["bytes_done"])
            for row in rows
        ]

    async def wait_for(self, task_id: UUID, others: Iterable[UUID]) -> None:
        """Tell whose staged files an import still wants to take."""
        await self._jobs.ask(
            "execute", "UPDATE imports SET waits_for = $2 WHERE task_id = $1", task_id, list(others)
        )

    async def let_others_take(self, task_id: UUID) -> None:
        """Return when nobody wants the staged files of this import any more, or after two seconds."""
        deadline = time.monotonic() + _COURTESY
        while time.monotonic() < deadline:
            wanted = await self._jobs.ask(
                "fetchval",
                """SELECT EXISTS (SELECT FROM imports WHERE $1 = ANY (waits_for) AND finished_at IS NULL
                   AND state = 'running' AND held_by IS NOT NULL)""",
                task_id,
            )
            if not wanted:
                return
            await asyncio.sleep(_LOOK)
