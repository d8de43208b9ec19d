"""How import tasks and revisions stand, told to whoever follows them in this process.

PostgreSQL announces each change (`manager.tasks.CHANNEL`, `manager.revision_status.CHANNEL`) to one connection a
process. What changed is read once for all followers of a row, by one statement for all rows of a kind that changed
meanwhile, and each follower takes the latest state when it is ready: a slow one misses states in between and makes
nobody wait.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, TypeAlias
from uuid import UUID

import structlog
from sqlalchemy import select, text

from manager.db import Database, any_of
from manager.models import ArtifactRevision, ArtifactStatus, ImportTask
from manager.revision_status import CHANNEL as REVISION_CHANNEL
from manager.tasks import CHANNEL as TASK_CHANNEL
from proxy_client.errors import NotFound, Unavailable

RETRY_DELAY = 0.5
# Seconds: a connection that died without a word (a firewall, a lost host) is noticed by asking it.
PROBE_INTERVAL = 15.0
PROBE_TIMEOUT = 5.0

log = structlog.get_logger()


# A channel, and the id of the row that it speaks of.
Key: TypeAlias = tuple[str, UUID]
FollowedRow: TypeAlias = ImportTask | ArtifactRevision


class _Followed:
    """A row that somebody follows: its latest state (None when it is gone) and the bells of its followers."""

    def __init__(self) -> None:
        self.row: FollowedRow | None = None
        self.known = False
        self.bells: set[asyncio.Event] = set()


class Changes:
    """The rows that this process follows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followed: dict[Key, _Followed] = {}
        self._stale: set[Key] = set()
        self._work = asyncio.Event()

    async def follow_task(self, task_id: UUID) -> AsyncGenerator[ImportTask, None]:
        """Yield how the task stands now, then each change, and end with its terminal state.

        The rows are shared by all followers: read them, and leave them as they are. Of changes that come faster
        than they are taken, the last is yielded. While the database cannot be reached nothing is, and then the
        state of that moment. Raises `NotFound` when the task is not there (any more). Whether the caller may see
        it is not asked here.
        """
        key = (TASK_CHANNEL, task_id)
        async with aclosing(self._follow({key}, gone="the import task is gone", field="taskId")) as rows:
            async for row in rows:
                if isinstance(row, ImportTask):
                    yield row
                    if row.finished_at is not None:
                        return

    async def follow_revisions(self, revision_ids: Iterable[UUID]) -> AsyncGenerator[ArtifactRevision, None]:
        """Yield how each revision stands now, then each whose status changes; without end. Else as `follow_task`."""
        keys = {(REVISION_CHANNEL, revision_id) for revision_id in revision_ids}
        statuses: dict[UUID, ArtifactStatus] = {}
        async with aclosing(self._follow(keys, gone="the artifact revision is gone", field="input")) as rows:
            async for row in rows:
                # Scans change rows too.
                if isinstance(row, ArtifactRevision) and statuses.get(row.id) is not row.status:
                    statuses[row.id] = row.status
                    yield row

    async def _follow(self, keys: set[Key], *, gone: str, field: str) -> AsyncGenerator[FollowedRow, None]:
        bell = asyncio.Event()
        for key in keys:
            self._followed.setdefault(key, _Followed()).bells.add(bell)
            self._read_soon(key)
        seen: dict[Key, dict[str, Any]] = {}
        try:
            while True:
                await bell.wait()
                bell.clear()
                for key in keys:
                    followed = self._followed[key]
                    if followed.row is None:
                        if followed.known:
                            raise NotFound(gone, field=field)
                        continue
                    # It rings for a change, for whoever joins, and for the other rows of this follower.
                    if (state := _state(followed.row)) != seen.get(key):
                        seen[key] = state
                        yield followed.row
        finally:
            for key in keys:
                followed = self._followed[key]
                followed.bells.discard(bell)
                if not followed.bells:
                    self._followed.pop(key, None)

    async def run(self) -> None:
        """Listen and read until cancelled; a lost connection is opened again, and what was missed is read."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._read())

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except Unavailable as exc:
                log.warning("listening for changes was interrupted", reason=exc.message)
            await asyncio.sleep(RETRY_DELAY)

    async def _listen_once(self) -> None:
        async with self._database.connection() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            lost = asyncio.Event()
            driver.add_termination_listener(lambda _connection: lost.set())
            for channel in (TASK_CHANNEL, REVISION_CHANNEL):
                await connection.execute(text(f"LISTEN {channel}"))
                await driver.add_listener(channel, self._changed)
            # What changed while nobody listened was announced to nobody.
            for key in self._followed:
                self._read_soon(key)
            while not lost.is_set():
                try:
                    await asyncio.wait_for(lost.wait(), PROBE_INTERVAL)
                except TimeoutError:
                    async with asyncio.timeout(PROBE_TIMEOUT):
                        await connection.execute(text("SELECT 1"))
        raise Unavailable("the connection to the database was lost")

    def _changed(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        # Anybody with the database's password can notify: a payload that is no id follows nothing.
        try:
            key = (channel, UUID(str(payload)))
        except ValueError:
            return
        if key in self._followed:
            self._read_soon(key)

    def _read_soon(self, key: Key) -> None:
        self._stale.add(key)
        self._work.set()

    async def _read(self) -> None:
        # One reader: what it publishes never goes back in time.
        while True:
            await self._work.wait()
            self._work.clear()
            stale, self._stale = self._stale, set()
            try:
                rows = await self._rows(stale)
            except Unavailable:
                self._stale |= stale
                await asyncio.sleep(RETRY_DELAY)
                self._work.set()
                continue
            for key in stale:
                if followed := self._followed.get(key):
                    followed.row, followed.known = rows.get(key), True
                    for bell in followed.bells:
                        bell.set()

    async def _rows(self, keys: set[Key]) -> dict[Key, FollowedRow]:
        tasks = [key for channel, key in keys if channel == TASK_CHANNEL]
        revisions = [key for channel, key in keys if channel == REVISION_CHANNEL]
        rows: dict[Key, FollowedRow] = {}
        async with self._database.read() as session:
            if tasks:
                for task in await session.scalars(select(ImportTask).where(ImportTask.id == any_of(tasks))):
                    rows[TASK_CHANNEL, task.id] = task
            if revisions:
                wanted = select(ArtifactRevision).where(ArtifactRevision.id == any_of(revisions))
                for revision in await session.scalars(wanted):
                    rows[REVISION_CHANNEL, revision.id] = revision
        return rows


def _state(row: FollowedRow) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in type(row).__table__.columns}
