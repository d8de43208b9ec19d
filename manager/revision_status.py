"""The life of a revision in the artifact storage: which status may follow which, and what an import says about it.

                    .----------- cleaned up ------------.
                    v                                   |
    SCANNED --> PULLING --> PULLED --> VERIFYING --> AVAILABLE --> PULLING (again)
                    |         |            |            ^
                    |         |            v            |
                    |         |      NEEDS_APPROVAL ----'  approved
                    |         |            |
                    v         v            v
             FAILED, or what it was before; REJECTED after an administrator's no

Everything that changes a status asks `move`; what a row goes through in SQL alone is in `FROM_WHICH_PULLING`.
"""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import structlog
from sqlalchemy import Text, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from manager.db import any_of
from manager.import_options import IDS_FIELD
from manager.models import (
    ArtifactRevision,
    ArtifactStatus,
    ImportStep,
    ImportTask,
    ImportTaskStatus,
    utc_now,
)
from proxy_client.errors import Conflict

CHANNEL = "stowage_artifact_revision"

log = structlog.get_logger()

_S = ArtifactStatus
RESTING = frozenset({_S.SCANNED, _S.AVAILABLE, _S.FAILED, _S.REJECTED})
# What is under way may be taken up by another worker, which begins where its bytes are: it may go back, and reports in
# between may be left out. Its end is AVAILABLE, a failure, or what the revision was before.
_UNDER_WAY = frozenset({_S.PULLING, _S.PULLED, _S.VERIFYING, _S.NEEDS_APPROVAL})
MAY_BECOME: Mapping[ArtifactStatus, frozenset[ArtifactStatus]] = {
    _S.SCANNED: frozenset({_S.PULLING}),
    _S.PULLING: (_UNDER_WAY | RESTING) - {_S.PULLING},
    _S.PULLED: (_UNDER_WAY | RESTING) - {_S.PULLED},
    _S.VERIFYING: (_UNDER_WAY | RESTING) - {_S.VERIFYING},
    _S.NEEDS_APPROVAL: (_UNDER_WAY | RESTING) - {_S.NEEDS_APPROVAL},
    _S.AVAILABLE: frozenset({_S.PULLING, _S.SCANNED}),
    _S.FAILED: frozenset({_S.PULLING, _S.SCANNED}),
    _S.REJECTED: frozenset({_S.PULLING, _S.SCANNED}),
}
FROM_WHICH_PULLING = [status for status in ArtifactStatus if _S.PULLING in MAY_BECOME[status]]


def move(revision: ArtifactRevision, status: ArtifactStatus) -> bool:
    """Give a revision its next status; returns whether it changed. One that may not follow is logged and not taken."""
    if status is revision.status:
        return False
    if status not in MAY_BECOME[revision.status]:
        log.error("status refused", revision=str(revision.id), present=revision.status, wanted=status)
        return False
    revision.status = status
    revision.updated_at = utc_now()
    return True


def status_before(revision: ArtifactRevision) -> ArtifactStatus:
    """Return the status to go back to when an import of the revision comes to nothing."""
    if revision.status in RESTING:
        return revision.status
    return ArtifactStatus.AVAILABLE if revision.stored_commit else ArtifactStatus.SCANNED


def revision_status(task: ImportTask) -> ArtifactStatus:
    """Return what a task that fills the artifact storage says about its revision."""
    before = task.status_before or ArtifactStatus.SCANNED
    match task.status:
        case ImportTaskStatus.PENDING:
            return ArtifactStatus.PULLING
        case ImportTaskStatus.RUNNING if task.step in {ImportStep.VERIFY, ImportStep.ARCHIVE}:
            return ArtifactStatus.VERIFYING
        case ImportTaskStatus.RUNNING:
            whole = task.files_total is not None and task.files_done == task.files_total
            return ArtifactStatus.PULLED if whole else ArtifactStatus.PULLING
        case ImportTaskStatus.NEEDS_APPROVAL:
            return ArtifactStatus.NEEDS_APPROVAL
        case ImportTaskStatus.SUCCEEDED:
            return ArtifactStatus.AVAILABLE
        case ImportTaskStatus.CANCELLED:
            return before
        case ImportTaskStatus.FAILED if before is ArtifactStatus.AVAILABLE:
            return before  # the good copy is still there
        case ImportTaskStatus.FAILED if (task.error or {}).get("code") == "REJECTED":
            return ArtifactStatus.REJECTED
        case ImportTaskStatus.FAILED:
            return ArtifactStatus.FAILED


def settle(revision: ArtifactRevision, task: ImportTask) -> bool:
    """Take over what a task says about its revision; returns whether the revision's status changed."""
    changed = move(revision, revision_status(task))
    if task.status is ImportTaskStatus.SUCCEEDED:
        revision.stored_commit = task.commit
        revision.stored_in = {"proxy": task.proxy, "storage_name": task.storage_name, "path": task.path}
        # A scan may have moved the digest meanwhile: then the archive is behind, and must look so.
        revision.digest = revision.digest or task.commit
        revision.verification = task.verification
    elif task.verification is not None and revision.stored_commit is None:
        revision.verification = task.verification
    return changed


async def insist_on_one_place(
    session: AsyncSession, revisions: Sequence[ArtifactRevision], proxy: str, storage_name: str
) -> None:
    """Raise `Conflict` where one of the (locked) revisions lies, or is on its way, in another artifact storage.

    The status speaks of one copy; so does a clean-up, which has to end before the next import.
    """
    place = {"proxy": proxy, "storage_name": storage_name}
    under_way = [revision.id for revision in revisions if revision.status not in RESTING]
    elsewhere: set[UUID] = set()
    if under_way:
        found = await session.scalars(
            select(ImportTask.artifact_revision_id).where(
                ImportTask.artifact_revision_id == any_of(under_way),
                ImportTask.finished_at.is_(None),
                ImportTask.storage_name.is_not(None),
                or_(ImportTask.storage_name != storage_name, ImportTask.proxy != proxy),
            )
        )
        elsewhere = set(found)
    for index, revision in enumerate(revisions):
        fault = None
        if revision.cleanup is not None:
            fault = "what was stored of this revision is still being removed; try again in a moment"
        elif revision.id in elsewhere:
            fault = "this revision is being imported into another artifact storage; wait for it or cancel it"
        elif revision.stored_in is not None and not place.items() <= revision.stored_in.items():
            kept = f"{revision.stored_in['proxy']}:{revision.stored_in['storage_name']}"
            fault = f"this revision is in the artifact storage {kept}; clean it up there first"
        if fault:
            raise Conflict(fault, field=f"{IDS_FIELD}[{index}]")


async def announce(session: AsyncSession, revision_ids: Iterable[UUID]) -> None:
    """Tell listeners, once the transaction is committed, that these revisions changed."""
    if ids := [str(revision_id) for revision_id in revision_ids]:
        changed = func.unnest(literal(ids, ARRAY(Text()))).column_valued("id")
        await session.execute(select(func.pg_notify(CHANNEL, changed)))
