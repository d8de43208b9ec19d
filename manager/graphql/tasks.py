"""Import tasks."""

from datetime import datetime
from typing import Annotated

import strawberry

from manager import models
from manager.access import visible_tasks
from manager.graphql.catalog import ArtifactRevision
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.enums import ImportStep, ImportTaskStatus
from manager.graphql.fields import Node, column, field, mutation
from manager.graphql.ids import parse_id
from manager.graphql.loaders import kept
from manager.graphql.scalars import ByteSize
from manager.graphql.users import User
from manager.graphql.verification import ArtifactVerificationResult, verification_result
from manager.graphql.vfolders import VFolder
from manager.models import ApprovalDecision
from manager.paging import Order, PageRequest, SortKey


@strawberry.type(name="VFolderDestination", description="An import into a folder.")
class VFolderDestination:
    """An import into a folder."""

    vfolder: VFolder = strawberry.field(description="The folder, readable also after the caller lost it.")


@strawberry.type(description="An import into the shared artifact storage.")
class ArtifactStorageDestination:
    """An import into the shared artifact storage."""

    storage_name: str = strawberry.field(description="The artifact storage that keeps the files.")


ImportDestination = Annotated[
    VFolderDestination | ArtifactStorageDestination,
    strawberry.union(name="ImportDestination", description="Where an import puts the files."),
]


@strawberry.type(description="Why an import failed.")
class ImportError:  # noqa: A001 -- the schema's name
    """Why an import failed."""

    code: str = strawberry.field(description="One of the codes that errors carry.")
    message: str = strawberry.field(description="What happened and what helps, for people.")
    step: ImportStep | None = strawberry.field(description="The step in which it happened.")


@strawberry.type(description="One durable import of one revision to one destination.")
class ImportTask(Node):
    """One durable import of one revision to one destination; holds its row."""

    row: strawberry.Private[models.ImportTask]

    status: ImportTaskStatus = column(
        "status", "Where it stands; SUCCEEDED, FAILED and CANCELLED never change again."
    )
    step: ImportStep | None = column("step", "The step that runs, or ran last.")
    path: str = column("path", "The directory that it fills, from the destination's root.")
    commit: str | None = column("commit", "The commit that is imported, pinned before the first byte.")
    files_done: int = column("files_done", "The number of files that have arrived.")
    files_total: int | None = column("files_total", "The number of files; null until they are listed.")
    bytes_done: ByteSize = column("bytes_done", "The bytes that have arrived.")
    bytes_total: ByteSize | None = column("bytes_total", "The size of all files; null until they are listed.")
    bytes_per_second: float | None = column("bytes_per_second", "The present rate.")
    request_id: str = column("request_id", "Ties the task to the request that ordered it, and to log lines.")
    created_at: datetime = column("created_at", "When it was accepted.")
    started_at: datetime | None = column("started_at", "When its storage proxy began.")
    approval_expires_at: datetime | None = column(
        "approval_until", "When an import that NEEDS_APPROVAL is given up; null otherwise."
    )
    finished_at: datetime | None = column("finished_at", "When it came to its end.")

    @field("What is imported.")
    async def artifact_revision(self, info: Info) -> ArtifactRevision:
        """Load the revision; a task keeps its revision from being deleted."""
        row = await info.context.loaders.revisions.load(self.row.artifact_revision_id)
        return ArtifactRevision(row=kept(row))

    @field("Where the files go.")
    async def destination(self, info: Info) -> ImportDestination:
        """Load the folder, or name the artifact storage."""
        if self.row.vfolder_id is None:
            return ArtifactStorageDestination(storage_name=self.row.storage_name or "")
        seen = await info.context.loaders.task_vfolders.load(self.row.vfolder_id)
        return VFolderDestination(vfolder=VFolder.of(seen))

    @field("Why it failed; null otherwise.")
    def error(self) -> ImportError | None:
        """Present the stored fault."""
        fault = self.row.error
        if fault is None:
            return None
        step = fault.get("step")
        return ImportError(
            code=fault["code"], message=fault["message"], step=ImportStep(step.upper()) if step else None
        )

    @field("What the verifiers said; null before they ran.")
    def verification_result(self) -> ArtifactVerificationResult | None:
        """Present the stored report."""
        return verification_result(self.row.verification)

    @field("Who asked for it.")
    async def requested_by(self, info: Info) -> User:
        """Load the user."""
        return User(row=kept(await info.context.loaders.users.load(self.row.requested_by_id)))


@strawberry.input(description="Which import.")
class CancelImportTaskInput:
    """Which import."""

    task_id: strawberry.ID = strawberry.field(description="The task's id.")


@strawberry.type(description="The import that was asked to stop.")
class CancelImportTaskPayload:
    """The import that was asked to stop."""

    task: ImportTask = strawberry.field(
        description="The task; it is CANCELLED once its proxy has stopped, or stays as it ended."
    )


@strawberry.input(description="Which import.")
class ApproveImportTaskInput:
    """Which import."""

    task_id: strawberry.ID = strawberry.field(description="The task's id; it NEEDS_APPROVAL.")


@strawberry.type(description="The import that may be published.")
class ApproveImportTaskPayload:
    """The import that may be published."""

    task: ImportTask = strawberry.field(description="The task; follow it to see it succeed.")


@strawberry.input(description="Which import, and why not.")
class RejectImportTaskInput:
    """Which import, and why not."""

    task_id: strawberry.ID = strawberry.field(description="The task's id; it NEEDS_APPROVAL.")
    reason: str | None = strawberry.field(
        default=None, description="Why, for people; 1000 characters at most."
    )


@strawberry.type(description="The import that is not published.")
class RejectImportTaskPayload:
    """The import that is not published."""

    task: ImportTask = strawberry.field(description="The task; it becomes FAILED with the code REJECTED.")


@strawberry.input(description="Which import.")
class RetryImportTaskInput:
    """Which import."""

    task_id: strawberry.ID = strawberry.field(description="The task's id; it FAILED or was CANCELLED.")


@strawberry.type(description="The import that was begun again.")
class RetryImportTaskPayload:
    """The import that was begun again."""

    task: ImportTask = strawberry.field(
        description="The new task, or the one that somebody ordered for the same meanwhile."
    )


@strawberry.type
class TaskQuery:
    """The queries about import tasks."""

    @field("An import task; null if there is none that the caller may see.")
    async def import_task(
        self,
        info: Info,
        key: Annotated[strawberry.ID, strawberry.argument(name="id", description="The task's id.")],
    ) -> ImportTask | None:
        """Load one task."""
        row = await info.context.loaders.tasks.load(parse_id(key, "ImportTask", field="id"))
        return ImportTask(row=row) if row else None

    @listed("The import tasks that the caller requested or that go into the caller's folders; newest first.")
    async def import_tasks(
        self,
        info: Info,
        request: PageRequest,
        *,
        status: Annotated[
            list[ImportTaskStatus] | None, strawberry.argument(description="Only tasks that stand there.")
        ] = strawberry.UNSET,
        artifact_revision_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only imports of this revision.")
        ] = strawberry.UNSET,
        vfolder_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only imports into this folder.")
        ] = strawberry.UNSET,
    ) -> Connection[ImportTask] | None:
        """Load one page of the tasks."""
        task = models.ImportTask
        statement = visible_tasks(info.context.caller)
        if isinstance(status, list):
            statement = statement.where(task.status.in_(set(status)))
        if isinstance(artifact_revision_id, str):
            revision_id = parse_id(artifact_revision_id, "ArtifactRevision", field="artifactRevisionId")
            statement = statement.where(task.artifact_revision_id == revision_id)
        if isinstance(vfolder_id, str):
            statement = statement.where(task.vfolder_id == parse_id(vfolder_id, "VFolder", field="vfolderId"))
        order = Order.by([SortKey("created_at", task.created_at, descending=True)], task.id)
        return await connect(info, statement, order, request, lambda row: ImportTask(row=row[0]))


@strawberry.type
class TaskMutation:
    """The mutations of import tasks."""

    @mutation("Stop an import and remove what it staged. One that has ended stays as it is.")
    async def cancel_import_task(
        self,
        info: Info,
        asked: Annotated[
            CancelImportTaskInput, strawberry.argument(name="input", description="Which import.")
        ],
    ) -> CancelImportTaskPayload:
        """Cancel one task."""
        context = info.context
        task_id = parse_id(asked.task_id, "ImportTask", field="input.taskId")
        row = await context.services.imports.cancel_task(context.caller, task_id)
        return CancelImportTaskPayload(task=ImportTask(row=row))

    @mutation("Import again what an import that FAILED or was CANCELLED was to bring, as if newly asked for.")
    async def retry_import_task(
        self,
        info: Info,
        asked: Annotated[
            RetryImportTaskInput, strawberry.argument(name="input", description="Which import.")
        ],
    ) -> RetryImportTaskPayload:
        """Retry one task."""
        context = info.context
        task_id = parse_id(asked.task_id, "ImportTask", field="input.taskId")
        row = await context.services.imports.retry_task(context.caller, task_id)
        return RetryImportTaskPayload(task=ImportTask(row=row))

    @mutation("Publish an import that waits for approval. For administrators.")
    async def approve_import_task(
        self,
        info: Info,
        asked: Annotated[
            ApproveImportTaskInput, strawberry.argument(name="input", description="Which import.")
        ],
    ) -> ApproveImportTaskPayload:
        """Approve one task."""
        context = info.context
        task_id = parse_id(asked.task_id, "ImportTask", field="input.taskId")
        row = await context.services.approvals.decide(context.caller, task_id, ApprovalDecision.APPROVED)
        return ApproveImportTaskPayload(task=ImportTask(row=row))

    @mutation("End an import that waits for approval, with nothing published. For administrators.")
    async def reject_import_task(
        self,
        info: Info,
        asked: Annotated[
            RejectImportTaskInput, strawberry.argument(name="input", description="Which import.")
        ],
    ) -> RejectImportTaskPayload:
        """Reject one task."""
        context = info.context
        task_id = parse_id(asked.task_id, "ImportTask", field="input.taskId")
        row = await context.services.approvals.decide(
            context.caller, task_id, ApprovalDecision.REJECTED, asked.reason
        )
        return RejectImportTaskPayload(task=ImportTask(row=row))
