"""The use case: import revisions into a vfolder or into the artifact storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import contains_eager, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from manager.access import (
    WritableVFolder,
    may_import_to_artifact_storage,
    visible_tasks,
    writable_vfolder,
)
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database, any_of
from manager.handover import Handover
from manager.import_options import (
    IDS_FIELD,
    ImportOptions,
    check_request,
    check_source,
    step_storages,
)
from manager.models import (
    Artifact,
    ArtifactRevision,
    ArtifactStatus,
    ImportTask,
    ImportTaskStatus,
    utc_now,
)
from manager.orders import cancel_at_proxy, place_orders
from manager.revision_status import FROM_WHICH_PULLING, announce, insist_on_one_place, status_before
from manager.room import QuotaPlace, insist_on_quota
from manager.settings import Settings
from manager.storages import entered_storages
from manager.tasks import lock_tasks, open_tasks
from manager.vault import Vault
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import (
    Conflict,
    NotFound,
    StowageError,
    Unavailable,
)

__all__ = [
    "ArtifactRevisionService",
    "ImportOptions",
    "ImportedRevision",
    "default_path",
    "load_revisions",
]

log = structlog.get_logger()

_NO_SUCH_TASK = "there is no such import task among yours; check its id"


@dataclass(frozen=True)
class ImportedRevision:
    """A revision of the request and its task, or None where nothing had to be done."""

    revision: ArtifactRevision
    task: ImportTask | None


@dataclass(frozen=True)
class _Destination:
    """Where an import goes: a vfolder that the caller may write to, or a named artifact storage."""

    proxy: str
    place: str
    mappings: wire.StorageStepMappings
    vfolder: WritableVFolder | None = None
    storage_name: str | None = None

    def key(self, path: str) -> str:
        """Return what makes two open imports of one revision the same import."""
        return f"{self.place}/{path}" if self.vfolder else self.place

    @property
    def quota(self) -> QuotaPlace:
        """What limits how much may come here."""
        if self.vfolder is not None:
            return QuotaPlace.of_vfolder(self.vfolder.vfolder)
        return QuotaPlace(self.proxy, storage_name=self.storage_name)

    @property
    def field(self) -> str:
        """The input to change where there is no room here."""
        return IDS_FIELD if self.vfolder is None else "input.vfolderId"


class ArtifactRevisionService:
    """Imports revisions, cancels imports and begins them again."""

    def __init__(
        self, database: Database, settings: Settings, proxies: Mapping[str, StorageProxyClient]
    ) -> None:
        self._database = database
        self._settings = settings
        self._proxies = proxies
        self._handover = Handover(database, Vault(settings), proxies)

    async def import_revisions(
        self, caller: Caller, revision_ids: list[UUID], vfolder_id: UUID | None, options: ImportOptions
    ) -> list[ImportedRevision]:
        """Make an import task for each revision and order it at the destination's proxy.

        One transaction and a constant number of statements for 1 or 500 revisions; a request that is refused
        changes nothing. An open import of the same revision to the same destination is answered instead of a
        new one. The orders follow the commit: one that the proxy refuses is that task's failure, and one
        without an answer within seconds is left PENDING to the reconciler.

        Returns the revisions in the order of the request, with artifact and registry loaded, and each task
        with its revision.

        Raises `BadRequest`, `NotFound`, `Forbidden`, `Conflict`, `QuotaExceeded` or `UnsupportedRegistry`, naming the
        field.
        """
        check_request(revision_ids, vfolder_id, options)
        async with self._database.begin() as session:
            destination = await self._destination(session, caller, vfolder_id, options.storage)
            revisions = await load_revisions(session, revision_ids, lock=vfolder_id is None)
            if destination.storage_name is not None:
                await insist_on_one_place(session, revisions, destination.proxy, destination.storage_name)
            wanted = [
                _new_task(caller, revision, destination, options)
                for revision in revisions
                if options.force or destination.vfolder or not _is_stored(revision)
            ]
            tasks, new = await open_tasks(session, wanted, options.on_conflict)
            if new:
                await insist_on_quota(session, destination.quota, new, field=destination.field)
                if destination.vfolder is None:
                    await session.execute(
                        update(ArtifactRevision)
                        .where(
                            ArtifactRevision.id == any_of(task.artifact_revision_id for task in new),
                            ArtifactRevision.status.in_(FROM_WHICH_PULLING),
                        )
                        .values(status=ArtifactStatus.PULLING, updated_at=utc_now())
                    )
                    await announce(session, [task.artifact_revision_id for task in new])
                audit(session, caller, "artifact.import", destination.place, _summary(new, options))
        for task in new:
            log.info("import accepted", task_id=str(task.id), request_id=caller.request_id, proxy=task.proxy)
        try:
            if new:
                orders = [wire.ImportOrder.model_validate(task.order) for task in new]
                client = self._proxies[destination.proxy]
                silence = await place_orders(self._database, client, orders, self._handover)
                if silence is not None:
                    log.warning(
                        "left to the reconciler", request_id=caller.request_id, reason=silence.message
                    )
            await self._refresh(revisions, tasks)
        except Unavailable as exc:
            # The tasks are durable: their ids are worth more than their newest state.
            log.warning("tasks not refreshed", request_id=caller.request_id, reason=exc.message)
        return [ImportedRevision(revision, tasks.get(revision.id)) for revision in revisions]

    async def retry_task(self, caller: Caller, task_id: UUID) -> ImportTask:
        """Import again what an import that ended without success was to bring, as if newly asked for.

        Access is proven anew, and the revision is imported as the catalogue holds it now. Returns the new task, or
        the one that somebody ordered for the same revision and destination meanwhile.

        Raises `NotFound` for a task that is not there or that the caller may not see, `Conflict` for one that is
        open or succeeded, or whose revision the artifact storage holds by now, and what `import_revisions` raises.
        """
        async with self._database.read() as session:
            task = await session.scalar(
                visible_tasks(caller)
                .where(ImportTask.id == task_id)
                .options(joinedload(ImportTask.artifact_revision).joinedload(ArtifactRevision.artifact))
            )
        if task is None:
            raise NotFound(_NO_SUCH_TASK, field="input.taskId")
        if task.finished_at is None:
            raise Conflict(
                f"this import is {task.status}; cancel it first, or wait for its end", field="input.taskId"
            )
        if task.status is ImportTaskStatus.SUCCEEDED:
            raise Conflict(
                "this import succeeded; to import again, ask for a new import with force",
                field="input.taskId",
            )
        options = ImportOptions(
            force=task.force,
            path=None if task.path == default_path(task.artifact_revision) else task.path,
            on_conflict=task.on_conflict,
            storage=self._chosen_storage(task),
        )
        try:
            (again,) = await self.import_revisions(
                caller, [task.artifact_revision_id], task.vfolder_id, options
            )
        except StowageError as exc:
            raise type(exc)(exc.message, field=exc.field and "input.taskId") from exc
        if again.task is None:
            raise Conflict("the artifact storage holds this revision by now", field="input.taskId")
        log.info("import retried", task_id=str(again.task.id), before=str(task_id))
        return again.task

    async def cancel_task(self, caller: Caller, task_id: UUID) -> ImportTask:
        """Cancel an import; one that is finished is answered as it is.

        A task that its proxy does not know yet is CANCELLED at once. Else the proxy is asked; the outcome comes
        as an event, and the reconciler asks again where there was no answer. Raises `NotFound` for a task that
        is not there or that the caller may not see.
        """
        async with self._database.begin() as session:
            seen = visible_tasks(caller).with_only_columns(ImportTask.id).where(ImportTask.id == task_id)
            if await session.scalar(seen) is None:
                raise NotFound(_NO_SUCH_TASK, field="input.taskId")
            locked = await lock_tasks(session, [task_id])
            task = locked[task_id]
            was_open = task.finished_at is None
            if was_open and task.cancel_requested_at is None:
                task.cancel_requested_at = utc_now()
                audit(session, caller, "import.cancel", str(task_id))
            if was_open and task.ordered_at is None:
                await locked.finish(task_id, ImportTaskStatus.CANCELLED)
        if was_open:
            # Also for a task without an answered order: that order may be on its way.
            await self._tell(task)
        return await self._task(task_id)

    async def cancel_revision_import(self, caller: Caller, revision_id: UUID) -> ArtifactRevision:
        """Cancel the revision's import into the artifact storage; those into vfolders go on.

        Raises `NotFound` for an unknown revision, and `Conflict` where no such import runs, or none that the
        caller may see.
        """
        async with self._database.read() as session:
            await load_revisions(session, [revision_id], field="input.artifactRevisionId")
            task_id = await session.scalar(
                visible_tasks(caller)
                .with_only_columns(ImportTask.id)
                .where(
                    ImportTask.artifact_revision_id == revision_id,
                    ImportTask.storage_name.is_not(None),
                    ImportTask.finished_at.is_(None),
                )
                .order_by(ImportTask.created_at)
            )
        if task_id is None:
            raise Conflict(
                "no import of this revision into the artifact storage is running; "
                "cancel an import into a folder with cancelImportTask",
                field="input.artifactRevisionId",
            )
        return (await self.cancel_task(caller, task_id)).artifact_revision

    async def _tell(self, task: ImportTask) -> None:
        if (client := self._proxies.get(task.proxy)) is None:
            return
        try:
            await cancel_at_proxy(client, task.id)
        except StowageError as exc:
            log.warning("cancel left to the reconciler", task_id=str(task.id), reason=exc.message)

    def _chosen_storage(self, task: ImportTask) -> str | None:
        reservoir = self._settings.reservoir
        configured = reservoir is not None and (reservoir.proxy, reservoir.archive)
        if task.storage_name is None or configured == (task.proxy, task.storage_name):
            return None
        return f"{task.proxy}:{task.storage_name}"

    async def _destination(
        self, session: AsyncSession, caller: Caller, vfolder_id: UUID | None, storage: str | None
    ) -> _Destination:
        if vfolder_id is not None:
            folder = await writable_vfolder(session, caller, vfolder_id, lock=True)
            target = wire.StorageTargetVFolder(
                volume_name=folder.volume, vfolder_id=wire.VFolderID.parse(folder.vfolder.vfid)
            )
            destination = _Destination(
                proxy=folder.proxy,
                place=f"{folder.vfolder.host}/{folder.vfolder.id.hex}",
                mappings=wire.StorageStepMappings(download=target, verify=target, archive=target),
                vfolder=folder,
            )
        else:
            await may_import_to_artifact_storage(session, caller)
            entered = await entered_storages(session, storage.partition(":")[0]) if storage else {}
            storages = step_storages(self._settings, storage, entered)
            destination = _Destination(
                proxy=storages.proxy,
                place=f"{storages.proxy}:{storages.archive}",
                mappings=wire.StorageStepMappings(
                    download=wire.StorageTargetName(storage_name=storages.download),
                    verify=wire.StorageTargetName(storage_name=storages.verify),
                    archive=wire.StorageTargetName(storage_name=storages.archive),
                ),
                storage_name=storages.archive,
            )
        if destination.proxy not in self._proxies:
            raise Conflict(
                f"the storage proxy {destination.proxy} of this destination is not in the manager's configuration; "
                "ask the operator to add it",
                field="input.vfolderId",
            )
        return destination

    async def _refresh(self, revisions: Sequence[ArtifactRevision], tasks: dict[UUID, ImportTask]) -> None:
        """Replace the tasks, by revision id, with their present rows, and show the revisions' present status."""
        if not tasks:
            return
        by_id = {revision.id: revision for revision in revisions}
        async with self._database.read() as session:
            found = await session.execute(
                select(ImportTask, ArtifactRevision.status)
                .join(ArtifactRevision)
                .where(ImportTask.id == any_of(task.id for task in tasks.values()))
            )
            for task, status in found:
                revision = by_id[task.artifact_revision_id]
                set_committed_value(revision, "status", status)
                set_committed_value(task, "artifact_revision", revision)
                tasks[revision.id] = task

    async def _task(self, task_id: UUID) -> ImportTask:
        async with self._database.read() as session:
            found = await session.scalars(
                select(ImportTask)
                .options(
                    joinedload(ImportTask.artifact_revision)
                    .joinedload(ArtifactRevision.artifact)
                    .joinedload(Artifact.origin)
                )
                .where(ImportTask.id == task_id)
            )
            return found.one()


async def load_revisions(
    session: AsyncSession, revision_ids: Sequence[UUID], *, lock: bool = False, field: str | None = None
) -> list[ArtifactRevision]:
    """Return the revisions in the order asked for, with artifact and registry; refuses what cannot be imported."""
    wanted = (
        select(ArtifactRevision)
        .join(ArtifactRevision.artifact)
        .join(Artifact.origin)
        .options(contains_eager(ArtifactRevision.artifact).contains_eager(Artifact.origin))
        .where(ArtifactRevision.id == any_of(revision_ids))
        .order_by(ArtifactRevision.id)
    )
    if lock:
        wanted = wanted.with_for_update(of=ArtifactRevision, key_share=True)
    found = {revision.id: revision for revision in await session.scalars(wanted)}
    revisions = []
    for index, revision_id in enumerate(revision_ids):
        where = field or f"{IDS_FIELD}[{index}]"
        if (revision := found.get(revision_id)) is None:
            raise NotFound(
                "there is no such artifact revision in the catalogue; check its id, or scan its model",
                field=where,
            )
        if field is None:
            check_source(revision.artifact, revision.artifact.origin, where)
        revisions.append(revision)
    return revisions


def _is_stored(revision: ArtifactRevision) -> bool:
    return (
        revision.status is ArtifactStatus.AVAILABLE
        and revision.digest is not None
        and revision.stored_commit == revision.digest
    )


def _new_task(
    caller: Caller, revision: ArtifactRevision, destination: _Destination, options: ImportOptions
) -> ImportTask:
    artifact = revision.artifact
    path = options.path or default_path(revision)
    order = wire.ImportOrder(
        task_id=uuid4(),
        request_id=caller.request_id,
        requested_by=caller.user_id,
        registry_name=artifact.origin.name,
        model=wire.ModelRef(model_id=artifact.name, revision=revision.version, commit=revision.digest),
        storage_step_mappings=destination.mappings,
        path=path,
        expected_size=revision.size,
        force=options.force,
        on_conflict=wire.OnConflict[options.on_conflict.name],
    )
    return ImportTask(
        id=order.task_id,
        request_id=order.request_id,
        requested_by_id=caller.user_id,
        artifact_revision_id=revision.id,
        proxy=destination.proxy,
        vfolder_id=destination.vfolder.vfolder.id if destination.vfolder else None,
        storage_name=destination.storage_name,
        path=path,
        destination=destination.key(path),
        force=options.force,
        on_conflict=options.on_conflict,
        order=order.model_dump(mode="json"),
        expected_size=revision.size,
        status_before=None if destination.vfolder else status_before(revision),
        status=ImportTaskStatus.PENDING,
    )


def default_path(revision: ArtifactRevision) -> str:
    """Return where a revision lands unless told otherwise."""
    return f"{revision.artifact.name}/{revision.version.replace('/', '%2F')}"


def _summary(tasks: Sequence[ImportTask], options: ImportOptions) -> dict[str, Any]:
    return {
        "tasks": {str(task.id): str(task.artifact_revision_id) for task in tasks},
        "force": options.force,
        "on_conflict": options.on_conflict,
    }
