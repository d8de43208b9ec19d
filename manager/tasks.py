"""The rows of import tasks: how they are made and how they change.

All changes of state pass through here: a proxy's report, a refused order, a cancel. A terminal task never changes again,
an older report never overwrites a newer one, and every change is announced to listeners in its own transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Text, Uuid, and_, any_, column, func, literal, null, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from manager.db import any_of, storable
from manager.models import (
    ArtifactRevision,
    ImportConflictPolicy,
    ImportStep,
    ImportTask,
    ImportTaskStatus,
    utc_now,
)
from manager.revision_status import announce, settle
from proxy_client import wire
from proxy_client.errors import Conflict

CHANNEL = "stowage_import_task"


async def open_tasks(
    session: AsyncSession, wanted: Sequence[ImportTask], on_conflict: ImportConflictPolicy
) -> tuple[dict[UUID, ImportTask], list[ImportTask]]:
    """Return the open task of each wanted one by revision id, and those of them that are new, in two statements.

    At most one task of a revision is wanted. Raises `Conflict` where an open one has another `on_conflict`.
    """
    tasks: dict[UUID, ImportTask] = {}
    new: list[ImportTask] = []
    # More than once only in a race: another request inserted the same task after the look, or it ended just then.
    while missing := [task for task in wanted if task.artifact_revision_id not in tasks]:
        found = await session.scalars(
            select(ImportTask).where(
                ImportTask.artifact_revision_id == any_of(task.artifact_revision_id for task in missing),
                ImportTask.destination
                == any_(literal([task.destination for task in missing], ARRAY(Text()))),
                ImportTask.finished_at.is_(None),
            )
        )
        destinations = {task.artifact_revision_id: task.destination for task in missing}
        for task in found:
            if task.destination != destinations[task.artifact_revision_id]:
                continue
            if task.on_conflict is not on_conflict:
                raise Conflict(
                    f"an import of the same revision to the same place is running with onConflict "
                    f"{task.on_conflict}; wait for it, cancel it, or repeat it with the same value",
                    field="input.options.onConflict",
                )
            tasks[task.artifact_revision_id] = task
        missing = [task for task in missing if task.artifact_revision_id not in tasks]
        if missing:
            inserted = await _insert_tasks(session, missing)
            for task in missing:
                if task.id in inserted:
                    tasks[task.artifact_revision_id] = task
                    new.append(task)
    return tasks, new


async def _insert_tasks(session: AsyncSession, tasks: Sequence[ImportTask]) -> set[UUID]:
    """Insert the tasks that nobody else inserted meanwhile, whatever their number by the same statement."""
    # In the order of revisions, so that two such requests never wait for each other.
    tasks = sorted(tasks, key=lambda task: task.artifact_revision_id)
    differing: dict[str, Any] = {
        "id": Uuid(),
        "artifact_revision_id": Uuid(),
        "path": Text(),
        "destination": Text(),
        "order": JSONB(),
        "expected_size": BigInteger(),
        "status_before": ImportTask.status_before.type,
    }
    arrays = [
        literal([getattr(task, name) for task in tasks], ARRAY(kind)) for name, kind in differing.items()
    ]
    rows = (
        func.unnest(*arrays)
        .table_valued(*(column(name, kind) for name, kind in differing.items()), name="wanted")
        .render_derived()
    )
    first, now = tasks[0], utc_now()
    alike: dict[str, ColumnElement[Any]] = {
        name: literal(value, getattr(ImportTask, name).type) if value is not None else null()
        for name, value in {
            "request_id": first.request_id,
            "requested_by_id": first.requested_by_id,
            "proxy": first.proxy,
            "vfolder_id": first.vfolder_id,
            "storage_name": first.storage_name,
            "force": first.force,
            "on_conflict": first.on_conflict,
            "status": ImportTaskStatus.PENDING,
            "sequence": 0,
            "files_done": 0,
            "bytes_done": 0,
            "created_at": now,
            "updated_at": now,
        }.items()
    }
    statement = (
        insert(ImportTask)
        .from_select([*differing, *alike], select(rows, *alike.values()), include_defaults=False)
        .on_conflict_do_nothing(
            index_elements=[ImportTask.artifact_revision_id, ImportTask.destination],
            index_where=ImportTask.finished_at.is_(None),
        )
        .returning(ImportTask.id)
    )
    return set(await session.scalars(statement))


class LockedTasks:
    """Tasks that nobody else changes until the transaction ends, by id, finished ones included."""

    def __init__(
        self, session: AsyncSession, tasks: Sequence[ImportTask], revisions: Sequence[ArtifactRevision]
    ) -> None:
        self._session = session
        self._tasks = {task.id: task for task in tasks}
        self._revisions = {revision.id: revision for revision in revisions}

    def __getitem__(self, task_id: UUID) -> ImportTask:
        return self._tasks[task_id]

    async def take(self, reports: Iterable[wire.ImportReport]) -> list[UUID]:
        """Take over what a proxy reports of these tasks.

        Returns the tasks that are finished here while the proxy still works on them: it must be told to stop.
        Reports of tasks that are not among these, and reports older than what is known, are passed over.
        """
        changed, astray = [], []
        for report in reports:
            task = self._tasks.get(report.task_id)
            if task is None:
                continue
            if task.finished_at is not None:
                if not report.state.terminal:
                    astray.append(task.id)
            elif report.sequence > task.sequence:
                _take_over(task, report)
                changed.append(task)
        await self._announce(changed)
        return astray

    async def finish(
        self, task_id: UUID, status: ImportTaskStatus, fault: wire.ImportFault | None = None
    ) -> None:
        """End a task that no proxy works on; one that is finished stays as it is."""
        task = self._tasks[task_id]
        if task.finished_at is not None:
            return
        task.status = status
        if fault is not None:
            task.error = storable(fault.model_dump(mode="json"))
        task.finished_at = utc_now()
        await self._announce([task])

    async def _announce(self, changed: Sequence[ImportTask]) -> None:
        if not changed:
            return
        now = utc_now()
        moved: list[UUID] = []
        for task in changed:
            task.updated_at = now
            # Imports into vfolders are not among these: they leave the shared revision alone.
            revision = self._revisions.get(task.artifact_revision_id)
            if revision is not None and task.storage_name is not None and settle(revision, task):
                moved.append(revision.id)
        await self._session.flush()
        await announce(self._session, moved)
        ids = func.unnest(literal([str(task.id) for task in changed], ARRAY(Text()))).column_valued("id")
        await self._session.execute(select(func.pg_notify(CHANNEL, ids)))


async def lock_tasks(
    session: AsyncSession, task_ids: Iterable[UUID], *, proxy: str | None = None
) -> LockedTasks:
    """Lock tasks (with `proxy`, those of that proxy alone) and, where they fill the artifact storage, their revisions.

    Revisions come before tasks and both in the order of their ids, here and in every import, so that no two
    transactions wait for each other.
    """
    wanted = ImportTask.id == any_of(set(task_ids))
    if proxy is not None:
        wanted = and_(wanted, ImportTask.proxy == proxy)
    shared = select(ImportTask.artifact_revision_id).where(
        wanted, ImportTask.storage_name.is_not(None), ImportTask.finished_at.is_(None)
    )
    revisions = await session.scalars(
        select(ArtifactRevision)
        .where(ArtifactRevision.id.in_(shared))
        .order_by(ArtifactRevision.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    tasks = await session.scalars(
        select(ImportTask)
        .where(wanted)
        .order_by(ImportTask.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return LockedTasks(session, tasks.all(), revisions.all())


def _take_over(task: ImportTask, report: wire.ImportReport) -> None:
    task.sequence = report.sequence
    task.ordered_at = task.ordered_at or utc_now()
    task.status = ImportTaskStatus[report.state.name]
    if not report.state.terminal:
        # What was said holds for what was looked at then: an import that asks again is decided again.
        task.decision = None
    task.step = ImportStep[report.step.name] if report.step else None
    task.files_done, task.files_total = report.files_done, report.files_total
    task.bytes_done, task.bytes_total = report.bytes_done, report.bytes_total
    task.bytes_per_second = report.bytes_per_second
    task.commit = report.commit
    task.approval_until = report.approval_until
    task.started_at = report.started_at
    if report.verification is not None:
        task.verification = storable(report.verification.model_dump(mode="json"))
    if report.error is not None:
        task.error = storable(report.error.model_dump(mode="json"))
    if report.state.terminal:
        task.finished_at = report.finished_at or utc_now()
