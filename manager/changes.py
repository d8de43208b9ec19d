"""How import tasks stand, told to whoever follows them in this process.

PostgreSQL announces each change (`manager.tasks.CHANNEL`) to one connection a process. What changed is read once
for all followers of a task, by one statement for all tasks that changed meanwhile, and each follower takes the latest
state when it is ready: a slow one misses states in between and makes nobody wait.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, text

from manager.db import Database, any_of
from manager.models import ImportTask
from manager.tasks import CHANNEL
from proxy_client.errors import NotFound, Unavailable

RETRY_DELAY = 0.5
# Seconds: a connection that died without a word (a firewall, a lost host) is noticed by asking it.
PROBE_INTERVAL = 15.0
PROBE_TIMEOUT = 5.0

log = structlog.get_logger()


class _Followed:
    """A task that somebody follows: its latest row (None when it is gone) and the bells of its followers."""

    def __init__(self) -> None:
        self.row: ImportTask | None = None
        self.bells: set[asyncio.Event] = set()


class TaskChanges:
    """The import tasks that this process follows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followed: dict[UUID, _Followed] = {}
        self._stale: set[UUID] = set()
        self._work = asyncio.Event()

    async def follow(self, task_id: UUID) -> AsyncGenerator[ImportTask, None]:
        """Yield how the task stands now, then each change, and end with its terminal state.

        The rows are shared by all followers: read them, and leave them as they are. Of changes that come faster
        than they are taken, the last is yielded. While the database cannot be reached nothing is, and then the
        state of that moment. Raises `NotFound` when the task is not there (any more). Whether the caller may see
        it is not asked here.
        """
        followed = self._followed.setdefault(task_id, _Followed())
        bell = asyncio.Event()
        followed.bells.add(bell)
        self._read_soon(task_id)
        seen: dict[str, Any] | None = None
        try:
            while True:
                await bell.wait()
                bell.clear()
                row = followed.row
                if row is None:
                    raise NotFound("the import task is gone", field="taskId")
                # It rings for a change, and for whoever joins.
                if (state := _state(row)) == seen:
                    continue
                seen = state
                yield row
                if row.finished_at is not None:
                    return
        finally:
            followed.bells.discard(bell)
            if not followed.bells:
                self._followed.pop(task_id, None)

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
                log.warning("listening for changes of import tasks was interrupted", reason=exc.message)
            await asyncio.sleep(RETRY_DELAY)

    async def _listen_once(self) -> None:
        async with self._database.connection() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            lost = asyncio.Event()
            driver.add_termination_listener(lambda _connection: lost.set())
            await connection.execute(text(f"LISTEN {CHANNEL}"))
            await driver.add_listener(CHANNEL, self._changed)
            # What changed while nobody listened was announced to nobody.
            for task_id in self._followed:
                self._read_soon(task_id)
            while not lost.is_set():
                try:
                    await asyncio.wait_for(lost.wait(), PROBE_INTERVAL)
                except TimeoutError:
                    async with asyncio.timeout(PROBE_TIMEOUT):
                        await connection.execute(text("SELECT 1"))
        raise Unavailable("the connection to the database was lost")

    def _changed(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        # Anybody with the database's password can notify: a payload that is no task's id follows no task.
        try:
            task_id = UUID(str(payload))
        except ValueError:
            return
        if task_id in self._followed:
            self._read_soon(task_id)

    def _read_soon(self, task_id: UUID) -> None:
        self._stale.add(task_id)
        self._work.set()

    async def _read(self) -> None:
        # One reader: what it publishes never goes back in time.
        while True:
            await self._work.wait()
            self._work.clear()
            stale, self._stale = self._stale, set()
            try:
                async with self._database.read() as session:
                    found = await session.scalars(select(ImportTask).where(ImportTask.id == any_of(stale)))
                    rows = {row.id: row for row in found}
            except Unavailable:
                self._stale |= stale
                await asyncio.sleep(RETRY_DELAY)
                self._work.set()
                continue
            for task_id in stale:
                if followed := self._followed.get(task_id):
                    followed.row = rows.get(task_id)
                    for bell in followed.bells:
                        bell.set()


def _state(row: ImportTask) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in ImportTask.__table__.columns}
