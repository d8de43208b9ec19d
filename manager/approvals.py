"""Imports whose verification found something that an administrator has to decide about."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.models import (
    ApprovalDecision,
    Artifact,
    ArtifactRevision,
    ImportTask,
    ImportTaskStatus,
    utc_now,
)
from manager.tasks import lock_tasks
from proxy_client.client import StorageProxyClient
from proxy_client.errors import BadRequest, Conflict, NotFound, StowageError, Unavailable

log = structlog.get_logger()

LONGEST_REASON = 1000
# Seconds that a request waits for the proxy; the reconciler tells it again.
_DEADLINE = 5.0


class Approvals:
    """Approves and rejects imports that need approval; only administrators may."""

    def __init__(self, database: Database, proxies: Mapping[str, StorageProxyClient]) -> None:
        self._database = database
        self._proxies = proxies

    async def decide(
        self, caller: Caller, task_id: UUID, decision: ApprovalDecision, reason: str | None = None
    ) -> ImportTask:
        """Let an import be published, or end it FAILED with the code REJECTED. May be repeated.

        The decision is durable; the proxy is told now, and by the reconciler until it answers. What follows comes as
        an event. Returns the task with its revision, as it stands then.

        Raises `NotFound`, and `Conflict` for an import that needs no approval or was decided otherwise.
        """
        await require_admin(caller)
        if reason is not None and len(reason) > LONGEST_REASON:
            raise BadRequest(
                f"the reason is longer than {LONGEST_REASON} characters; shorten it", field="input.reason"
            )
        return await self._decide(caller, task_id, decision, reason, field="input.taskId")

    async def decide_revision(
        self, caller: Caller, revision_id: UUID, decision: ApprovalDecision
    ) -> ArtifactRevision:
        """Decide about the revision's import into the artifact storage; those into folders are left alone.

        Raises `NotFound`, and `Conflict` where no such import needs approval.
        """
        await require_admin(caller)
        field = "input.artifactRevisionId"
        async with self._database.read() as session:
            if await session.get(ArtifactRevision, revision_id) is None:
                raise NotFound("there is no such artifact revision; check its id", field=field)
            task_id = await session.scalar(
                select(ImportTask.id).where(
                    ImportTask.artifact_revision_id == revision_id,
                    ImportTask.storage_name.is_not(None),
                    ImportTask.status == ImportTaskStatus.NEEDS_APPROVAL,
                )
            )
        if task_id is None:
            raise Conflict("this revision does not wait for approval", field=field)
        return (await self._decide(caller, task_id, decision, None, field=field)).artifact_revision

    async def _decide(
        self, caller: Caller, task_id: UUID, decision: ApprovalDecision, reason: str | None, *, field: str
    ) -> ImportTask:
        async with self._database.begin() as session:
            if await session.get(ImportTask, task_id) is None:
                raise NotFound("there is no such import task; check its id", field=field)
            locked = await lock_tasks(session, [task_id])
            task = locked[task_id]
            if task.status is not ImportTaskStatus.NEEDS_APPROVAL or task.cancel_requested_at is not None:
                raise Conflict(f"this import is {task.status} and does not wait for approval", field=field)
            if task.decision not in {None, decision}:
                raise Conflict(f"this import was {task.decision} already", field=field)
            if task.decision is None:
                task.decision, task.decision_reason, task.decided_at = decision, reason, utc_now()
                verb = "approve" if decision is ApprovalDecision.APPROVED else "reject"
                audit(session, caller, f"import.{verb}", str(task_id), {"reason": reason} if reason else None)
        try:
            if (client := self._proxies.get(task.proxy)) is None:
                raise Unavailable("its storage proxy is not in the manager's configuration")
            await tell_decision(client, task)
        except StowageError as exc:
            log.warning("decision left to the reconciler", task_id=str(task_id), reason=exc.message)
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


async def tell_decision(client: StorageProxyClient, task: ImportTask) -> None:
    """Tell a proxy what was decided; one that waits for nothing any more has its outcome on the way."""
    try:
        async with asyncio.timeout(_DEADLINE):
            if task.decision is ApprovalDecision.APPROVED:
                await client.approve_import(task.id)
            else:
                await client.reject_import(task.id, task.decision_reason)
    except Conflict:
        pass
    except TimeoutError as exc:
        raise Unavailable(f"storage proxy {client.name} is slow to answer") from exc
