"""What can be followed."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import strawberry
from sqlalchemy import select

from manager import models
from manager.graphql.catalog import ArtifactRevision
from manager.graphql.context import Context, Info
from manager.graphql.enums import ArtifactStatus, BgtaskEventType, ImportTaskStatus
from manager.graphql.fields import subscription
from manager.graphql.ids import global_id, parse_id, parse_ids
from manager.graphql.tasks import ImportTask
from proxy_client.errors import BadRequest, NotFound

# Seconds for which a look at the token and at the permission holds good, while changes come in.
PERMISSION_SECONDS = 10.0
MOST_REVISIONS = 100

_EVENTS = {
    ImportTaskStatus.SUCCEEDED: BgtaskEventType.DONE,
    ImportTaskStatus.CANCELLED: BgtaskEventType.CANCELLED,
    ImportTaskStatus.FAILED: BgtaskEventType.FAILED,
}


@strawberry.input(description="Which revisions.")
class ArtifactStatusChangedInput:
    """Which revisions."""

    artifact_revision_ids: list[strawberry.ID] = strawberry.field(description="The revisions' ids, 1 to 100.")


@strawberry.type(description="A revision whose status is a new one.")
class ArtifactStatusChangedPayload:
    """A revision whose status is a new one."""

    artifact_revision: ArtifactRevision = strawberry.field(description="The revision as it is now.")


@strawberry.type(description="How far the import of a revision into the artifact storage is.")
class ArtifactImportProgressUpdatedPayload:
    """How far the import of a revision is."""

    artifact_id: strawberry.ID = strawberry.field(description="The id of the revision's artifact.")
    progress: float = strawberry.field(description="The part of the bytes that has arrived, from 0 to 1.")
    status: ArtifactStatus = strawberry.field(description="The revision's status.")


@strawberry.type(description="What happened to a background task.")
class BackgroundTaskEventPayload:
    """What happened to a background task."""

    task_id: strawberry.ID = strawberry.field(description="The task's plain UUID.")
    event_type: BgtaskEventType = strawberry.field(
        description="What happened; DONE, CANCELLED and FAILED end it."
    )
    message: str = strawberry.field(description="What happened, for people.")
    current_progress: float | None = strawberry.field(description="The bytes that have arrived.")
    total_progress: float | None = strawberry.field(
        description="The bytes in all; null until they are listed."
    )


TaskId = Annotated[strawberry.ID, strawberry.argument(description="The task's id.")]


@strawberry.type(description="What can be followed. Each begins with how things stand now.")
class Subscription:
    """What can be followed."""

    @subscription(
        "An import task: how it stands now, then each change, ending with its terminal state. "
        "Changes that come faster than they are taken are told by the last of them."
    )
    async def import_task_updated(self, info: Info, task_id: TaskId) -> AsyncGenerator[ImportTask, None]:
        """Follow one task."""
        key = parse_id(task_id, "ImportTask", field="taskId")
        await _require_visible(info.context, key)
        return _tasks(info.context, key)

    @subscription(
        "An import task as a background task: how it stands now, then each change, ending with DONE, CANCELLED or "
        "FAILED."
    )
    async def background_task_events(
        self, info: Info, task_id: TaskId
    ) -> AsyncGenerator[BackgroundTaskEventPayload, None]:
        """Follow one task."""
        key = parse_id(task_id, "ImportTask", field="taskId")
        await _require_visible(info.context, key)
        return _events(info.context, key)

    @subscription(
        "Revisions in the artifact storage: the status of each now, then each change of one. Goes on until the client "
        "ends it."
    )
    async def artifact_status_changed(
        self,
        info: Info,
        asked: Annotated[
            ArtifactStatusChangedInput, strawberry.argument(name="input", description="Which revisions.")
        ],
    ) -> AsyncGenerator[ArtifactStatusChangedPayload, None]:
        """Follow revisions."""
        field = "input.artifactRevisionIds"
        keys = parse_ids(asked.artifact_revision_ids, "ArtifactRevision", field=field)
        if not 1 <= len(keys) <= MOST_REVISIONS:
            raise BadRequest(f"these are {len(keys)} revisions; name 1 to {MOST_REVISIONS}", field=field)
        await _require_revisions(info.context, keys, field)
        return _statuses(info.context, keys)

    @subscription(
        "The import of a revision into the artifact storage: how far it is now, then each change. Ends with the import; "
        "at once where none runs."
    )
    async def artifact_import_progress_updated(
        self,
        info: Info,
        artifact_revision_id: Annotated[strawberry.ID, strawberry.argument(description="The revision's id.")],
    ) -> AsyncGenerator[ArtifactImportProgressUpdatedPayload, None]:
        """Follow one revision's import."""
        field = "artifactRevisionId"
        key = parse_id(artifact_revision_id, "ArtifactRevision", field=field)
        await _require_revisions(info.context, [key], field)
        return _progress(info.context, key)


async def _tasks(context: Context, task_id: UUID) -> AsyncGenerator[ImportTask, None]:
    async with aclosing(_followed(context, task_id)) as rows:
        async for row in rows:
            yield ImportTask(row=row)


async def _events(context: Context, task_id: UUID) -> AsyncGenerator[BackgroundTaskEventPayload, None]:
    async with aclosing(_followed(context, task_id)) as rows:
        async for row in rows:
            yield BackgroundTaskEventPayload(
                task_id=strawberry.ID(str(row.id)),
                event_type=_EVENTS.get(row.status, BgtaskEventType.UPDATED),
                message=_message(row),
                current_progress=float(row.bytes_done),
                total_progress=None if row.bytes_total is None else float(row.bytes_total),
            )


async def _followed(context: Context, task_id: UUID) -> AsyncGenerator[models.ImportTask, None]:
    looked = time.monotonic()
    async with aclosing(context.services.changes.follow_task(task_id)) as rows:
        async for row in rows:
            if time.monotonic() - looked > PERMISSION_SECONDS:
                await context.authenticate_again()
                await _require_visible(context, task_id)
                looked = time.monotonic()
            # What hangs below the task may have changed with it.
            context.forget()
            yield row


async def _statuses(
    context: Context, revision_ids: Sequence[UUID]
) -> AsyncGenerator[ArtifactStatusChangedPayload, None]:
    looked = time.monotonic()
    async with aclosing(context.services.changes.follow_revisions(revision_ids)) as rows:
        async for row in rows:
            if time.monotonic() - looked > PERMISSION_SECONDS:
                await context.authenticate_again()
                looked = time.monotonic()
            context.forget()
            yield ArtifactStatusChangedPayload(artifact_revision=ArtifactRevision(row=row))


async def _progress(
    context: Context, revision_id: UUID
) -> AsyncGenerator[ArtifactImportProgressUpdatedPayload, None]:
    async with context.services.database.read() as session:
        # Everybody sees the status of a revision, and so how far its import is; not whose it is.
        task_id = await session.scalar(
            select(models.ImportTask.id)
            .where(
                models.ImportTask.artifact_revision_id == revision_id,
                models.ImportTask.storage_name.is_not(None),
                models.ImportTask.finished_at.is_(None),
            )
            .order_by(models.ImportTask.created_at)
        )
    if task_id is None:
        yield await _progress_of(context, revision_id, None)
        return
    looked = time.monotonic()
    async with aclosing(context.services.changes.follow_task(task_id)) as rows:
        async for row in rows:
            if time.monotonic() - looked > PERMISSION_SECONDS:
                await context.authenticate_again()
                looked = time.monotonic()
            context.forget()
            yield await _progress_of(context, revision_id, row)


async def _progress_of(
    context: Context, revision_id: UUID, task: models.ImportTask | None
) -> ArtifactImportProgressUpdatedPayload:
    revision = await context.loaders.revisions.load(revision_id)
    if revision is None:
        raise NotFound("the artifact revision is gone", field="artifactRevisionId")
    if task is None or task.status is ImportTaskStatus.SUCCEEDED:
        progress = float(revision.status is ArtifactStatus.AVAILABLE)
    else:
        progress = min(1.0, task.bytes_done / task.bytes_total) if task.bytes_total else 0.0
    return ArtifactImportProgressUpdatedPayload(
        artifact_id=global_id("Artifact", revision.artifact_id), progress=progress, status=revision.status
    )


def _message(task: models.ImportTask) -> str:
    match task.status:
        case ImportTaskStatus.SUCCEEDED:
            return f"{task.files_done} files were imported"
        case ImportTaskStatus.CANCELLED:
            return "the import was cancelled"
        case ImportTaskStatus.FAILED:
            fault = task.error or {}
            return f"{fault.get('code', 'INTERNAL')}: {fault.get('message', 'the import failed')}"
        case ImportTaskStatus.NEEDS_APPROVAL:
            return "an administrator has to approve the import"
        case ImportTaskStatus.PENDING:
            return "the import waits for its storage proxy"
        case ImportTaskStatus.RUNNING:
            files = f" of {task.files_total}" if task.files_total is not None else ""
            return f"{task.step or 'RUNNING'}: {task.files_done}{files} files"


async def _require_visible(context: Context, task_id: UUID) -> None:
    if await context.loaders.tasks.load(task_id) is None:
        raise NotFound("there is no such import task that you may see", field="taskId")


async def _require_revisions(context: Context, revision_ids: Sequence[UUID], field: str) -> None:
    for index, row in enumerate(await context.loaders.revisions.load_many(revision_ids)):
        if row is None:
            where = field if len(revision_ids) == 1 and "." not in field else f"{field}[{index}]"
            raise NotFound("there is no such artifact revision; check its id", field=where)
