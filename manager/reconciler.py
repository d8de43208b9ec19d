"""Keeps open imports, deletions of vfolders and their proxies in step, whatever was lost on the way.

For each proxy one manager process leads, by an advisory lock on a connection of its own; the others stand by. The
leader follows the proxy's event stream, orders what was never answered, repeats cancels and decisions, and asks for
the state of imports that fell silent; it finishes deletions and clean-ups, and hands over what was entered. All of it may happen twice: orders and cancels are named by
the task's id, and an older report never overwrites a newer one.

A proxy that lost its database begins its sequence anew. It shows in reports below the one last followed, and in
open imports that the proxy does not know any more: those are ordered again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, and_, func, not_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from manager.approvals import tell_decision
from manager.cleanup import pending_cleanups, remove_at_proxy
from manager.db import Database, any_of, translated
from manager.handover import Handover
from manager.models import (
    ArtifactRevision,
    ImportTask,
    ImportTaskStatus,
    StorageProxy,
    VFolder,
    VFolderStatus,
    utc_now,
)
from manager.orders import cancel_at_proxy, place_orders
from manager.settings import Settings
from manager.tasks import lock_tasks
from manager.vault import Vault
from manager.vfolders import delete_at_proxy
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import NotFound, StowageError, Unauthenticated, Unavailable

log = structlog.get_logger()

# Any number for the advisory locks of this kind: "lead" in ASCII.
_LEADER = 0x6C656164
_MOST_REPORTS = 200
_MOST_TASKS = 100
_CALLS_AT_ONCE = 8
# A request places its own orders and cancels first.
_GRACE = timedelta(seconds=1)
# Seconds that a task is left alone after the proxy failed over it.
_SHORTEST_REST = 1.0
_LONGEST_REST = 60.0
# Seconds after which a deletion has no request any more that waits for it.
_ABANDONED = 10.0
# Order intervals between looks at what a proxy was told of registries and storages.
_HANDOVER_INTERVALS = 5


class Reconciler:
    """Follows the open imports of all proxies, and the deletions."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        proxies: Mapping[str, StorageProxyClient],
        handover: Handover | None = None,
    ) -> None:
        self._database = database
        self._settings = settings.reconciler
        self._proxies = proxies
        self._handover = handover or Handover(database, Vault(settings), proxies)
        self._lost: set[str] = set()
        self._stopping = False

    async def run(self) -> None:
        """Run until cancelled. Lost connections to PostgreSQL and to proxies are waited out."""
        async with asyncio.TaskGroup() as group:
            for client in self._proxies.values():
                group.create_task(self._serve(client))
            try:
                await asyncio.Event().wait()
            finally:
                # Whose group ends with a fault gets that in place of the cancel.
                self._stopping = True

    async def _serve(self, client: StorageProxyClient) -> None:
        while not self._stopping:
            try:
                await self._lead(client)
            except* Unavailable:
                self._note_lost("database", "it does not answer")
            except* Exception:  # one look at the proxy ends here; the next one may go better
                log.exception("reconciler stumbled", proxy=client.name)
            await asyncio.sleep(self._settings.reconnect_delay)

    async def _lead(self, client: StorageProxyClient) -> None:
        async with self._database.connection() as connection:
            claim = select(func.pg_try_advisory_lock(_LEADER, func.hashtext(client.name)))
            while not await connection.scalar(claim):
                self._note_found("database")
                await asyncio.sleep(self._settings.reconnect_delay)
            self._note_found("database")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(client))
                group.create_task(self._look_after(client, connection))
                group.create_task(self._finish_deletions(client))
                group.create_task(self._finish_cleanups(client))
                group.create_task(self._hand_over(client))

    # What the proxy reports.

    async def _follow(self, client: StorageProxyClient) -> None:
        while True:
            async with self._database.read() as session:
                row = await session.get(StorageProxy, client.name)
            last = row.last_event_id if row else 0
            reports: asyncio.Queue[wire.ImportReport | None] = asyncio.Queue(_MOST_REPORTS)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(client, last, reports))
                while batch := await _ready(reports):
                    last = await self._take(client, batch, last)
            await asyncio.sleep(self._settings.reconnect_delay)

    async def _listen(
        self, client: StorageProxyClient, last: int, reports: "asyncio.Queue[wire.ImportReport | None]"
    ) -> None:
        try:
            async with aclosing(client.import_events(last)) as events:
                async for report in events:
                    self._note_found(client.name)
                    await reports.put(report)
        except StowageError as exc:
            self._note_lost(client.name, exc.message)
        await reports.put(None)

    async def _take(self, client: StorageProxyClient, batch: Sequence[wire.ImportReport], last: int) -> int:
        """Take reports over, in one transaction with how far the stream was followed; returns that."""
        latest = {report.task_id: report for report in batch}
        followed = {"last_event_id": batch[-1].sequence, "last_seen_at": utc_now()}
        async with self._database.begin() as session:
            if batch[0].sequence <= last:
                log.warning("proxy began its sequence anew", proxy=client.name)
                await session.execute(update(ImportTask).where(_open_at(client)).values(sequence=0))
            locked = await lock_tasks(session, latest, proxy=client.name)
            astray = await locked.take(latest.values())
            await session.execute(
                insert(StorageProxy)
                .values(name=client.name, **followed)
                .on_conflict_do_update(index_elements=[StorageProxy.name], set_=followed)
            )
        for task_id in astray:
            with suppress(StowageError):
                await cancel_at_proxy(client, task_id)
        return batch[-1].sequence

    # What the proxy must be told or asked.

    async def _look_after(self, client: StorageProxyClient, connection: AsyncConnection) -> None:
        grace = timedelta(0)
        orders, cancels, questions, decisions = _Rest(), _Rest(), _Rest(), _Rest()
        while True:
            with translated():
                # The lock lives and dies with this connection.
                any_open = await connection.scalar(
                    select(select(ImportTask.id).where(_open_at(client)).exists())
                )
            try:
                if any_open:
                    await self._order(client, grace, orders)
                    await self._repeat_cancels(client, cancels)
                    await self._repeat_decisions(client, decisions)
                    await self._ask_silent(client, questions)
            except _ProxyDown as down:
                self._note_lost(client.name, str(down))
            # Whoever leads first also places what the process before it had no time for.
            grace = _GRACE
            await asyncio.sleep(self._settings.order_interval)

    async def _order(self, client: StorageProxyClient, grace: timedelta, rest: "_Rest") -> None:
        async with self._database.read() as session:
            orders = await session.scalars(
                select(ImportTask.order)
                .where(
                    _open_at(client),
                    ImportTask.ordered_at.is_(None),
                    ImportTask.cancel_requested_at.is_(None),
                    ImportTask.created_at <= utc_now() - grace,
                    rest.over(),
                )
                .order_by(ImportTask.created_at)
                .limit(_MOST_TASKS)
            )
            wanted = [wire.ImportOrder.model_validate(order) for order in orders]
        if wanted and (silence := await place_orders(self._database, client, wanted, self._handover)):
            for task_id, fault in silence.faults.items():
                log.warning("proxy failed over an order", task_id=str(task_id), reason=fault.message)
                rest.begin(task_id)
            if silence.down is not None:
                raise _ProxyDown(silence.down.message)

    async def _repeat_cancels(self, client: StorageProxyClient, rest: "_Rest") -> None:
        async with self._database.read() as session:
            waiting = await session.scalars(
                select(ImportTask.id)
                .where(_open_at(client), ImportTask.cancel_requested_at <= utc_now() - _GRACE, rest.over())
                .order_by(ImportTask.cancel_requested_at)
                .limit(_MOST_TASKS)
            )
            task_ids = waiting.all()
        unknown: list[UUID] = []

        async def cancel(task_id: UUID) -> None:
            try:
                await cancel_at_proxy(client, task_id)
            except NotFound:
                unknown.append(task_id)

        await _each(task_ids, cancel, rest)
        if unknown:
            async with self._database.begin() as session:
                locked = await lock_tasks(session, unknown)
                for task_id in unknown:
                    await locked.finish(task_id, ImportTaskStatus.CANCELLED)

    async def _repeat_decisions(self, client: StorageProxyClient, rest: "_Rest") -> None:
        async with self._database.read() as session:
            waiting = await session.scalars(
                select(ImportTask)
                .where(
                    _open_at(client),
                    ImportTask.status == ImportTaskStatus.NEEDS_APPROVAL,
                    ImportTask.decided_at <= utc_now() - _GRACE,
                    ImportTask.decision.is_not(None),
                    rest.over(),
                )
                .order_by(ImportTask.decided_at)
                .limit(_MOST_TASKS)
            )
            tasks = {task.id: task for task in waiting}

        async def tell(task_id: UUID) -> None:
            await tell_decision(client, tasks[task_id])

        await _each(tasks, tell, rest)

    async def _ask_silent(self, client: StorageProxyClient, rest: "_Rest") -> None:
        limit = utc_now() - timedelta(seconds=self._settings.silence_limit)
        async with self._database.read() as session:
            silent = await session.execute(
                select(ImportTask.id, ImportTask.sequence)
                .where(
                    _open_at(client),
                    ImportTask.ordered_at.is_not(None),
                    ImportTask.updated_at < limit,
                    rest.over(),
                )
                .order_by(ImportTask.updated_at)
                .limit(_MOST_TASKS)
            )
            known = dict(silent.all())
        answers: dict[UUID, wire.ImportReport | None] = {}

        async def ask(task_id: UUID) -> None:
            try:
                answers[task_id] = await client.get_import(task_id)
            except NotFound:
                answers[task_id] = None

        try:
            await _each(known, ask, rest)
        finally:
            if answers:
                await self._take_answers(known, answers)

    async def _take_answers(
        self, known: Mapping[UUID, int], answers: Mapping[UUID, wire.ImportReport | None]
    ) -> None:
        """Take over what silent imports answered; `known` are their sequences before they were asked."""
        async with self._database.begin() as session:
            locked = await lock_tasks(session, answers)
            for task_id, report in answers.items():
                task = locked[task_id]
                if task.finished_at is not None:
                    continue
                if report is None or report.sequence < known[task_id]:
                    task.sequence = 0
                if report is None:
                    log.warning("proxy does not know the import; ordered again", task_id=str(task_id))
                    task.ordered_at = None
                task.updated_at = utc_now()
            await locked.take(report for report in answers.values() if report is not None)

    # What must be deleted.

    async def _finish_deletions(self, client: StorageProxyClient) -> None:
        """Delete the vfolders whose proxy gave no answer, or whose request ended before it did."""
        clock = asyncio.get_running_loop().time
        ongoing: dict[UUID, float] = {}
        while True:
            folders = await self._begun_deletions(client)
            ongoing = {
                folder.id: ongoing.get(folder.id, clock())
                for folder in folders
                if folder.status is VFolderStatus.DELETE_ONGOING
            }
            due = {
                folder.id: folder
                for folder in folders
                if clock() - ongoing.get(folder.id, float("-inf")) >= _ABANDONED
            }
            try:
                await self._delete(client, due)
            except _ProxyDown as down:
                self._note_lost(client.name, str(down))
            await asyncio.sleep(self._settings.order_interval)

    async def _begun_deletions(self, client: StorageProxyClient) -> Sequence[VFolder]:
        begun = [VFolderStatus.DELETE_PENDING, VFolderStatus.DELETE_ONGOING]
        async with self._database.read() as session:
            found = await session.scalars(
                select(VFolder)
                .where(VFolder.host.startswith(f"{client.name}:", autoescape=True), VFolder.status.in_(begun))
                .order_by(VFolder.id)
                .limit(_MOST_TASKS)
            )
            return found.all()

    async def _delete(self, client: StorageProxyClient, folders: Mapping[UUID, VFolder]) -> None:
        async def delete(vfolder_id: UUID) -> None:
            await delete_at_proxy(self._database, client, folders[vfolder_id])

        await _each(folders, delete, _Rest())  # what is refused rests in DELETE_ERROR

    async def _finish_cleanups(self, client: StorageProxyClient) -> None:
        """Remove from artifact storages what their proxy gave no answer about."""
        pause = self._settings.order_interval
        while True:
            await asyncio.sleep(pause)
            pending = await pending_cleanups(self._database, client.name, _MOST_TASKS)
            rows = {row.id: row for row in pending}

            async def remove(revision_id: UUID, rows: Mapping[UUID, ArtifactRevision] = rows) -> None:
                await remove_at_proxy(self._database, client, rows[revision_id])

            refused = _Rest()
            try:
                await _each(rows, remove, refused)
            except _ProxyDown as down:
                self._note_lost(client.name, str(down))
            # What a storage refuses, it refuses again.
            pause = _LONGEST_REST if refused else self._settings.order_interval

    async def _hand_over(self, client: StorageProxyClient) -> None:
        """Bring the proxy the registries and storages that it lacks, as one that lost its database does."""
        told = ""
        while True:
            try:
                await self._handover.bring(client)
                told = ""
            except StowageError as exc:
                if exc.message != told and not isinstance(exc, Unavailable):
                    log.warning(
                        "configuration not taken", proxy=client.name, code=exc.code, reason=exc.message
                    )
                told = exc.message
            await asyncio.sleep(_HANDOVER_INTERVALS * self._settings.order_interval)

    # An outage is worth one line when it begins and one when it ends.

    def _note_lost(self, what: str, reason: str) -> None:
        if what not in self._lost:
            self._lost.add(what)
            log.warning("connection lost; waiting", to=what, reason=reason)

    def _note_found(self, what: str) -> None:
        if what in self._lost:
            self._lost.remove(what)
            log.info("connection is back", to=what)


class _ProxyDown(Exception):
    """The proxy does not answer; nothing else is asked of it in this round."""


class _Rest:
    """The tasks that the proxy failed over, and until when each is left alone: they make no other task wait."""

    def __init__(self) -> None:
        self._pauses: dict[UUID, float] = {}
        self._ends: dict[UUID, float] = {}

    def begin(self, task_id: UUID) -> None:
        """Let the task rest, each time for longer."""
        pause = min(2 * self._pauses.get(task_id, _SHORTEST_REST / 2), _LONGEST_REST)
        self._pauses[task_id] = pause
        self._ends[task_id] = asyncio.get_running_loop().time() + pause

    def __bool__(self) -> bool:
        return bool(self._ends)

    def over(self) -> ColumnElement[bool]:
        """Express whether a task does not rest now."""
        now = asyncio.get_running_loop().time()
        for task_id in [key for key, end in self._ends.items() if end + _LONGEST_REST < now]:
            del self._pauses[task_id], self._ends[task_id]
        return not_(ImportTask.id == any_of(key for key, end in self._ends.items() if end > now))


def _open_at(client: StorageProxyClient) -> ColumnElement[bool]:
    return and_(ImportTask.proxy == client.name, ImportTask.finished_at.is_(None))


async def _ready(reports: "asyncio.Queue[wire.ImportReport | None]") -> list[wire.ImportReport]:
    """Wait for a report and return it with those behind it, in their order; nothing at the stream's end."""
    batch = []
    report = await reports.get()
    while report is not None:
        batch.append(report)
        if reports.empty() or len(batch) == _MOST_REPORTS:
            return batch
        report = reports.get_nowait()
    if batch:
        reports.put_nowait(None)
    return batch


async def _each(ids: Iterable[UUID], ask: Callable[[UUID], Awaitable[None]], rest: "_Rest") -> None:
    """Call a proxy for many tasks or folders side by side; what it refuses begins to rest.

    Raises `_ProxyDown`, after those that were under way, if it is.
    """
    gate = asyncio.Semaphore(_CALLS_AT_ONCE)
    down: list[StowageError] = []

    async def one(key: UUID) -> None:
        async with gate:
            if down:
                return
            try:
                await ask(key)
            except (Unavailable, Unauthenticated) as exc:
                down.append(exc)
            except StowageError as exc:
                rest.begin(key)
                log.warning("proxy call refused", id=str(key), code=exc.code, reason=exc.message)

    async with asyncio.TaskGroup() as group:
        for key in ids:
            group.create_task(one(key))
    if down:
        raise _ProxyDown(down[0].message)
