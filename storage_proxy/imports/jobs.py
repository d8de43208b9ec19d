"""Durable imports: our own table beside the queue of PgQueuer. All of the proxy's SQL is here.

The table `imports` is the truth about an import; the queue only says which worker has it now. Three rules keep
them honest whatever dies:

- Every attempt gets a higher `fence`; a write that shows an older one changes nothing and raises `LeaseLost`.
- A state that is terminal (`finished_at` is set) is never written again.
- `adopt_orphans` queues every open import that has no job, and frees the jobs of workers whose connection is gone.

Every change takes the next number of one sequence under one lock, so numbers become visible in their order and
"everything after N" (`changes_after`) misses nothing.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

import asyncpg
import orjson
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import JobId

from proxy_client.errors import Conflict, NotFound, Unavailable
from proxy_client.opening import opened
from proxy_client.wire import (
    ArtifactStorageImportStep,
    ImportFault,
    ImportOrder,
    ImportReport,
    ImportState,
    VerificationReport,
)
from storage_proxy.concurrency import to_the_end

ENTRYPOINT = "import"
# PostgreSQL going down (57P0x) is an operator intervention, a cut connection one of the others.
DATABASE_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
# A process that stands still in a transaction keeps the lock that every change of any import needs.
IDLE_SECONDS = 5.0
ACQUIRE_SECONDS = 5.0
PAGE = 500


# Whether there is something to do for an import: one that waits for an approval is left alone.
_TO_DO = """finished_at IS NULL AND (state <> 'needs_approval' OR cancel_requested
    OR approved IS NOT NULL OR refusal IS NOT NULL)"""
# Whether the queue manager in the named column still holds its lock, which is in pg_locks as two numbers.
_ALIVE = """EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = (hashtext($1)::bigint & 4294967295)::oid
    AND objid = (hashtext({0}::text)::bigint & 4294967295)::oid)"""


class LeaseLost(Exception):
    """Another worker has this import now; whatever this one still does must leave no trace."""


class CancelRequested(Exception):
    """Somebody asked to cancel this import."""


def engine_settings(schema: str) -> DBSettings:
    """Name PgQueuer's objects: in the proxy's own schema, and with its own prefix.

    The prefix also names the notification channel, which is database-wide: without it two proxies that share a
    database would cancel each other's jobs by number.
    """
    return DBSettings(prefix=f"{schema}_", db_schema=schema)


def engine_queries(connection: asyncpg.Connection, schema: str) -> Queries:
    """Return PgQueuer's operations on one connection."""
    names = engine_settings(schema)
    return Queries(
        AsyncpgDriver(connection),
        qbe=QueryBuilderEnvironment(names),
        qbq=QueryQueueBuilder(names),
        qbs=QuerySchedulerBuilder(names),
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One worker's hold on an import.

    approved: the report that an administrator approved. refusal: why the import ends REJECTED.
    """

    order: ImportOrder
    fence: int
    number: int
    commit: str | None
    publishing: bool
    published: bool
    cancel_requested: bool
    approved: VerificationReport | None
    refusal: str | None


class ImportJobs:
    """The imports of one proxy. Use `open`; every method may be called from several processes at once."""

    def __init__(
        self, pool: asyncpg.Pool, connect: Callable[[], Awaitable[asyncpg.Connection]], schema: str
    ) -> None:
        self._pool = pool
        self._connect = connect
        self._listening = asyncio.Lock()
        self._listener: asyncpg.Connection | None = None
        self._signals: set[ChangeSignal] = set()
        self._schema = schema
        self._queue = engine_settings(schema).queue_table
        self.channel = f"{schema}_imports"

    @classmethod
    @asynccontextmanager
    async def open(cls, database_url: str, schema: str, *, connections: int = 5) -> AsyncIterator[Self]:
        """Connect, lazily: a database that is down raises at the first use, not here."""
        details: dict[str, Any] = {
            "command_timeout": 30.0,
            "timeout": 5.0,
            "server_settings": {
                "search_path": schema,
                "application_name": "stowage-proxy",
                "idle_in_transaction_session_timeout": str(round(IDLE_SECONDS * 1000)),
            },
        }
        pool = asyncpg.create_pool(
            database_url,
            min_size=0,
            max_size=connections,
            max_inactive_connection_lifetime=60.0,
            connect=_connect,
            **details,
        )
        jobs = cls(await pool, lambda: _connect(database_url, **details), schema)
        try:
            yield jobs
        finally:
            if jobs._listener is not None:
                jobs._listener.terminate()
            pool.terminate()

    # What the API does.

    async def accept(self, order: ImportOrder) -> None:
        """Record an import and queue it, in one transaction; the same order again is accepted without effect.

        Raises `Conflict` if the task id stands for another order.
        """
        body = order.model_dump_json()
        async with self.changing() as connection:
            added = await connection.fetchval(
                """INSERT INTO imports (task_id, request_id, "order", sequence)
                   VALUES ($1, $2, $3::jsonb, nextval('imports_sequence'))
                   ON CONFLICT (task_id) DO NOTHING RETURNING task_id""",
                order.task_id,
                order.request_id,
                body,
            )
            if added:
                await self.enqueue(connection, order.task_id)
                return
            known = await connection.fetchval('SELECT "order" FROM imports WHERE task_id = $1', order.task_id)
        if ImportOrder.model_validate_json(known) != order:
            raise Conflict(
                f"task {order.task_id} was ordered with another body; use a new task id", field="task_id"
            )

    async def report(self, task_id: UUID) -> ImportReport:
        """Return the state of one import. Raises `NotFound`."""
        with _translated():
            row = await self._ask("fetchrow", "SELECT * FROM imports WHERE task_id = $1", task_id)
        if row is None:
            raise NotFound(f"there is no import {task_id}", field="task_id")
        return _report(row)

    async def request_cancel(self, task_id: UUID) -> None:
        """Ask for a cancel. One that never started ends at once; one that publishes already goes on to its end.

        Raises `NotFound`.
        """
        async with self.changing() as connection:
            row = await connection.fetchrow("SELECT * FROM imports WHERE task_id = $1 FOR UPDATE", task_id)
            if row is None:
                raise NotFound(f"there is no import {task_id}", field="task_id")
            if row["finished_at"] is not None or row["publishing"]:
                return
            if row["state"] == ImportState.PENDING:
                await connection.execute(
                    """UPDATE imports SET cancel_requested = true, state = 'cancelled', finished_at = now(),
                              sequence = nextval('imports_sequence') WHERE task_id = $1""",
                    task_id,
                )
                return
            await connection.execute("UPDATE imports SET cancel_requested = true WHERE task_id = $1", task_id)
            if row["state"] == ImportState.NEEDS_APPROVAL:
                await self.enqueue(connection, task_id)
                return
            await engine_queries(connection, self._schema).notify_job_cancellation([JobId(row["job_id"])])

    async def changes_after(self, sequence: int) -> list[ImportReport]:
        """Return the present state of every import that changed after `sequence`, in the order of their changes.

        At most `PAGE` of them: ask again after the last one.
        """
        changed = "SELECT * FROM imports WHERE sequence > $1 ORDER BY sequence LIMIT $2"
        with _translated():
            rows = await self._ask("fetch", changed, sequence, PAGE)
        return [_report(row) for row in rows]

    async def newest(self) -> int:
        """Return the number of the newest change, 0 if there was none."""
        with _translated():
            return int(await self._ask("fetchval", "SELECT coalesce(max(sequence), 0) FROM imports"))

    async def live_workers(self, within: float) -> int:
        """Count the workers that were seen in the last `within` seconds."""
        seen = "SELECT count(*) FROM workers WHERE seen_at > now() - make_interval(secs => $1)"
        with _translated():
            return int(await self._ask("fetchval", seen, within))

    async def open_tasks(self) -> set[UUID]:
        """Return the imports that have not come to an end."""
        with _translated():
            rows = await self._ask("fetch", "SELECT task_id FROM imports WHERE finished_at IS NULL")
        return {row["task_id"] for row in rows}

    async def listen(self) -> "ChangeSignal":
        """Hear of every change from now on. All listeners share one connection; each is closed by its caller."""
        async with self._listening:
            if self._listener is None:
                # A caller that is cancelled would leave a connection that nobody closes.
                with _translated():
                    await to_the_end(self._open_listener())
            signal = ChangeSignal(self._signals.discard)
            self._signals.add(signal)
        return signal

    async def _open_listener(self) -> None:
        listener = await self._connect()
        listener.add_termination_listener(self._listener_lost)
        try:
            await listener.add_listener(self.channel, self._heard)
        except BaseException:
            listener.terminate()
            raise
        self._listener = listener

    def _heard(self, *_: object) -> None:
        for signal in self._signals:
            signal.wake()

    def _listener_lost(self, *_: object) -> None:
        self._listener = None
        for signal in self._signals:
            signal.lose()

    # What a worker does.

    async def start(self, task_id: UUID, holder: UUID) -> Attempt | None:
        """Begin an attempt, which takes the import from any earlier one; None if there is nothing left to do.

        `holder` is the queue manager's id: while its connection lives, nobody adopts the import.
        """
        async with self.changing() as connection:
            row = await connection.fetchrow(
                f"""UPDATE imports SET fence = fence + 1, attempts = attempts + 1, state = 'running', held_by = $2,
                          approval_until = NULL, started_at = coalesce(started_at, now()),
                          sequence = nextval('imports_sequence')
                   WHERE task_id = $1 AND {_TO_DO} RETURNING *""",  # noqa: S608 -- a constant
                task_id,
                holder,
            )
        if row is None:
            return None
        return Attempt(
            order=ImportOrder.model_validate_json(row["order"]),
            fence=row["fence"],
            number=row["attempts"],
            commit=row["commit"],
            publishing=row["publishing"],
            published=row["published"],
            cancel_requested=row["cancel_requested"],
            approved=VerificationReport.model_validate_json(row["approved"]) if row["approved"] else None,
            refusal=row["refusal"],
        )

    async def record(self, task_id: UUID, fence: int, changes: dict[str, Any]) -> None:
        """Write columns of the import. Raises `LeaseLost` or `CancelRequested`, the latter after writing.

        More bytes than ever before forgive the earlier attempts: they were no reason to give up.
        """
        columns = list(changes)
        sets = [f'"{column}" = ${number}' for number, column in enumerate(columns, start=3)]
        if "bytes_done" in changes:
            now = f"${columns.index('bytes_done') + 3}"
            sets.append(f"attempts = CASE WHEN {now} > most_bytes THEN 1 ELSE attempts END")
            sets.append(f"most_bytes = greatest(most_bytes, {now})")
        # Column names come from this package's own code, never from outside.
        statement = f"""UPDATE imports SET {", ".join(sets)}, sequence = nextval('imports_sequence')
            WHERE task_id = $1 AND fence = $2 AND finished_at IS NULL RETURNING cancel_requested, publishing"""  # noqa: S608
        async with self.changing() as connection:
            row = await connection.fetchrow(statement, task_id, fence, *map(_plain, changes.values()))
        check_held(row)

    async def check(self, task_id: UUID, fence: int) -> None:
        """Raise `LeaseLost` or `CancelRequested` if the attempt should end."""
        held = """SELECT cancel_requested, publishing FROM imports
            WHERE task_id = $1 AND fence = $2 AND finished_at IS NULL"""
        with _translated():
            row = await self._ask("fetchrow", held, task_id, fence)
        check_held(row)

    async def begin_publishing(self, task_id: UUID, fence: int) -> None:
        """Pass the point after which a cancel is too late. Raises `LeaseLost` or `CancelRequested`."""
        async with self.changing() as connection:
            row = await connection.fetchrow(
                """UPDATE imports SET publishing = publishing OR NOT cancel_requested,
                          sequence = nextval('imports_sequence')
                   WHERE task_id = $1 AND fence = $2 AND finished_at IS NULL RETURNING cancel_requested, publishing""",
                task_id,
                fence,
            )
        check_held(row)

    async def finish(self, task_id: UUID, fence: int, state: ImportState, changes: dict[str, Any]) -> None:
        """Settle the import in a terminal state. Raises `LeaseLost`."""
        columns = {**changes, "state": state, "bytes_per_second": None}
        sets = ", ".join(f'"{column}" = ${number}' for number, column in enumerate(columns, start=3))
        statement = f"""UPDATE imports SET {sets}, finished_at = now(), sequence = nextval('imports_sequence')
            WHERE task_id = $1 AND fence = $2 AND finished_at IS NULL RETURNING task_id"""  # noqa: S608 -- as in record
        async with self.changing() as connection:
            if await connection.fetchrow(statement, task_id, fence, *map(_plain, columns.values())) is None:
                raise LeaseLost

    async def let_go(self, task_id: UUID, fence: int, *, forgiven: bool = False) -> None:
        """Tell that the attempt is over, finished or not, so that an open import can be adopted.

        `forgiven`: the attempt does not count, its worker was asked to stop.
        """
        released = """UPDATE imports SET held_by = NULL, attempts = greatest(attempts - $3, 0)
            WHERE task_id = $1 AND fence = $2"""
        with _translated():
            await self._ask("execute", released, task_id, fence, int(forgiven))

    async def adopt_orphans(self, worker_id: UUID) -> None:
        """Tell that this worker lives, free the jobs of dead ones, and queue open imports that have no job."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection, connection.transaction():
            await connection.execute(
                """INSERT INTO workers (id, host, pid) VALUES ($1, $2, $3)
                   ON CONFLICT (id) DO UPDATE SET seen_at = now()""",
                worker_id,
                socket.gethostname(),
                os.getpid(),
            )
            await connection.execute("DELETE FROM workers WHERE seen_at < now() - interval '1 hour'")
            # A worker holds an advisory lock as long as its connection lives; PostgreSQL drops it with the
            # connection, so a killed worker is known at once and its lease need not run out.
            await connection.execute(
                f"""UPDATE {self._queue} SET heartbeat = 'epoch'
                    WHERE status = 'picked' AND heartbeat > 'epoch' AND NOT {_ALIVE.format("queue_manager_id")}""",  # noqa: S608 -- the table's name is validated by PgQueuer
                self._schema,
            )
            orphans = await connection.fetch(
                f"""SELECT task_id FROM imports WHERE {_TO_DO}
                    AND NOT EXISTS (SELECT FROM {self._queue} AS job WHERE job.id = imports.job_id)
                    AND (held_by IS NULL OR NOT {_ALIVE.format("held_by")})
                    FOR UPDATE SKIP LOCKED""",  # noqa: S608 -- as above
                self._schema,
            )
            for orphan in orphans:
                await self.enqueue(connection, orphan["task_id"])

    @asynccontextmanager
    async def queue_manager(self) -> AsyncIterator[tuple[QueueManager, asyncio.Event]]:
        """Yield PgQueuer's loop on a connection of its own, and an event that is set when that connection is lost."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _connection: lost.set())
            queries = engine_queries(connection, self._schema)
            manager = QueueManager(queries, engine_settings(self._schema).channel)
            await connection.execute(
                "SELECT pg_advisory_lock(hashtext($1), hashtext($2))",
                self._schema,
                str(manager.queue_manager_id),
            )
            try:
                yield manager, lost
            finally:
                # Closed, not returned: the lock and the listeners go with it.
                connection.terminate()

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Run one statement; `method` is what asyncpg calls the kind of its answer. Raises `Unavailable`."""
        with _translated():
            return await self._ask(method, *arguments)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """Run one statement on a free connection; asyncpg itself would wait for one without end."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return await getattr(connection, method)(*arguments)

    async def enqueue(self, connection: asyncpg.Connection, task_id: UUID) -> None:
        """Queue an import, in the caller's transaction."""
        queries = engine_queries(connection, self._schema)
        (job,) = await queries.enqueue(
            ENTRYPOINT, str(task_id).encode(), dedupe_key=str(task_id), on_conflict="update_priority"
        )
        await connection.execute("UPDATE imports SET job_id = $2 WHERE task_id = $1", task_id, job)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[asyncpg.Connection]:
        """Give a transaction that alone changes imports; whoever listens hears of it at its end. Raises `Unavailable`."""
        with _translated():
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1), 0)", self.channel)
                yield connection
                await connection.execute("SELECT pg_notify($1, '')", self.channel)


class ChangeSignal:
    """Wakes whoever waits for the next change of any import."""

    def __init__(self, forget: Callable[["ChangeSignal"], None]) -> None:
        self._forget = forget
        self._event = asyncio.Event()
        self._lost = False

    def wake(self) -> None:
        """Tell of a change."""
        self._event.set()

    def lose(self) -> None:
        """Tell that changes may be missed from now on."""
        self._lost = True
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Return True at the next change, False after `seconds`. A change since the last call counts.

        Raises `Unavailable` once the connection is lost: changes may have been missed.
        """
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        if self._lost:
            raise Unavailable("the storage proxy's database does not answer; try again later")
        self._event.clear()
        return True

    def close(self) -> None:
        """Stop hearing."""
        self._forget(self)


async def _connect(*where: Any, **details: Any) -> asyncpg.Connection:
    return await opened(asyncpg.connect(*where, **details), asyncpg.Connection.terminate)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the many ways in which a database can be away into one error."""
    try:
        yield
    except DATABASE_AWAY as exc:
        raise Unavailable("the storage proxy's database does not answer; try again later") from exc


def check_held(row: asyncpg.Record | None) -> None:
    """Raise `LeaseLost` for no row, `CancelRequested` for one that says so before its import publishes."""
    if row is None:
        raise LeaseLost
    if row["cancel_requested"] and not row["publishing"]:
        raise CancelRequested


def _plain(value: Any) -> Any:
    if isinstance(value, (VerificationReport, ImportFault)):
        return value.model_dump_json()
    return value


def _report(row: asyncpg.Record) -> ImportReport:
    step = row["step"]
    return ImportReport(
        task_id=row["task_id"],
        request_id=row["request_id"],
        state=ImportState(row["state"]),
        step=ArtifactStorageImportStep(step) if step else None,
        files_done=row["files_done"],
        files_total=row["files_total"],
        bytes_done=row["bytes_done"],
        bytes_total=row["bytes_total"],
        bytes_reused=row["bytes_reused"],
        bytes_per_second=row["bytes_per_second"],
        commit=row["commit"],
        verification=orjson.loads(row["verification"]) if row["verification"] else None,
        error=orjson.loads(row["error"]) if row["error"] else None,
        approval_until=row["approval_until"],
        attempts=row["attempts"],
        sequence=row["sequence"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )
