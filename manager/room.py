"""Whether an import fits: what a quota limits, what is used, and what imports that run are to bring.

An import is held against a limit before it is ordered: what the proxy last reported as used, without what imports had
staged by then, and all that open imports and those that succeeded since are to bring. The proxy has the last word.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from manager.models import ArtifactRevision, ImportTask, ImportTaskStatus, Quota, VFolder
from proxy_client import wire
from proxy_client.errors import QuotaExceeded

# What names a quota in `id`, whether or not there is a row of it.
_NAMES = uuid.UUID("5f9a7d0e-6a55-4b55-9a1c-2b8f3a1f7c60")
# How far the clocks of manager and proxies may be apart.
_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class QuotaPlace:
    """What a quota limits: a user's or a project's folders on a volume, or an artifact storage of a proxy."""

    proxy: str
    volume: str | None = None
    user_id: uuid.UUID | None = None
    project_id: uuid.UUID | None = None
    storage_name: str | None = None

    @classmethod
    def of_vfolder(cls, vfolder: VFolder) -> "QuotaPlace":
        """Return what a folder counts against."""
        proxy, _, volume = vfolder.host.partition(":")
        return cls(proxy, volume, user_id=vfolder.user_id, project_id=vfolder.project_id)

    @classmethod
    def of_row(cls, row: Quota) -> "QuotaPlace":
        """Return what a row limits."""
        return cls(row.proxy, row.volume, row.user_id, row.project_id, row.storage_name)

    @property
    def scope(self) -> wire.QuotaScopeID | None:
        """The quota scope on the volume; None for an artifact storage."""
        if self.user_id is not None:
            return wire.QuotaScopeID("user", self.user_id)
        return None if self.project_id is None else wire.QuotaScopeID("project", self.project_id)

    @property
    def id(self) -> uuid.UUID:
        """What names it, the same at every time."""
        return uuid.uuid5(_NAMES, self.text)

    @property
    def text(self) -> str:
        """For people and the audit log."""
        if self.scope is None:
            return f"the artifact storage {self.storage_name} on {self.proxy}"
        return f"{self.scope} on {self.proxy}:{self.volume}"


@dataclass(frozen=True)
class QuotaState:
    """A quota, with what running imports are to bring; sizes in bytes. `row` is not kept where there is no limit."""

    row: Quota
    used: int | None
    reserved: int

    @property
    def available(self) -> int | None:
        """What is left for further imports; None without a limit."""
        if self.row.limit_bytes is None:
            return None
        return max(0, self.row.limit_bytes - (self.used or 0) - self.reserved)


async def insist_on_quota(
    session: AsyncSession, place: QuotaPlace, new: Sequence[ImportTask], *, field: str
) -> None:
    """Raise `QuotaExceeded` if the new tasks, which were inserted in this transaction, have no room beside the others.

    At most two statements. The quota's row stays locked until the transaction ends, so that of two requests that fit
    alone but not together, one is refused. Nothing is refused where there is no limit; what is not known of sizes or
    usage counts nothing, and the proxy decides.
    """
    locked = select(Quota.id).where(Quota.id == place.id, Quota.limit_bytes.is_not(None)).with_for_update()
    if await session.scalar(locked) is None:
        return
    # In a statement of its own, after the lock was granted: it sees the tasks of whoever held it.
    state = (await load_states(session, Quota.id == place.id))[0]
    limit, used = state.row.limit_bytes or 0, state.used or 0
    if used + state.reserved <= limit:
        return
    wanted = sum(task.expected_size or 0 for task in new)
    others = max(0, state.reserved - wanted)
    raise QuotaExceeded(
        f"this import needs {wanted} bytes, and the quota of {place.text} has {max(0, limit - used - others)} left: "
        f"{limit} bytes are allowed, {used} are used and {others} are reserved by imports that run. Delete what is not "
        "needed, wait for imports that run or cancel them, or ask an administrator for a larger quota",
        field=field,
    )


async def load_states(session: AsyncSession, *which: ColumnElement[bool]) -> list[QuotaState]:
    """Load quotas with what they hold and what is reserved, all in one statement."""
    found = await session.execute(
        with_room(select(Quota)).where(*which).execution_options(populate_existing=True)
    )
    return [state_of(row) for row in found]


def with_room(quotas: Any) -> Any:
    """Add to a select of quotas the columns that `state_of` reads."""
    return quotas.add_columns(_reserved().label("reserved"), _stored().label("stored"))


def state_of(found: Any) -> QuotaState:
    """Read a row of a statement that `with_room` made."""
    row: Quota = found.Quota
    used = row.used_bytes
    used = found.stored if used is None else max(0, used - row.staged_bytes)
    return QuotaState(row, used, int(found.reserved))


def _reserved() -> ColumnElement[int]:
    """Sum up what open imports are to bring, and those that succeeded since the report and are not in it."""
    task = aliased(ImportTask)
    reported = and_(
        task.status == ImportTaskStatus.SUCCEEDED,
        # What fills an artifact storage whose usage nobody reports is counted by its revisions.
        or_(Quota.storage_name.is_(None), Quota.used_bytes.is_not(None)),
        ended_since(task, func.coalesce(Quota.reported_at, Quota.created_at)),
    )
    return (
        select(func.coalesce(func.sum(_bytes_of(task)), 0))
        .where(counts_against_quota(task), or_(task.finished_at.is_(None), reported))
        .correlate(Quota)
        .scalar_subquery()
    )


def staged_bytes() -> ColumnElement[int]:
    """Sum up what open imports have staged: it is in what the proxy reports as used, and in what is reserved."""
    task = aliased(ImportTask)
    return (
        select(func.coalesce(func.sum(func.least(task.bytes_done, _bytes_of(task))), 0))
        .where(counts_against_quota(task), task.finished_at.is_(None))
        .correlate(Quota)
        .scalar_subquery()
    )


def ended_since(task: Any, moment: Any) -> ColumnElement[bool]:
    """Express whether the manager learned after a moment of its own clock that a task ended.

    `finished_at` is of the proxy's clock: it has an index, and narrows what is looked at.
    """
    return and_(task.finished_at > moment - _SKEW, task.updated_at > moment)


def counts_against_quota(task: Any) -> ColumnElement[bool]:
    """Express whether a task goes where the quota of the enclosing statement limits."""
    folder = aliased(VFolder)
    in_scope = (
        select(folder.id)
        .where(
            folder.id == task.vfolder_id,
            folder.host == Quota.proxy + ":" + Quota.volume,
            or_(folder.user_id == Quota.user_id, folder.project_id == Quota.project_id),
        )
        .correlate(task, Quota)
        .exists()
    )
    return and_(task.proxy == Quota.proxy, or_(task.storage_name == Quota.storage_name, in_scope))


def _bytes_of(task: Any) -> ColumnElement[int]:
    """What an import is to bring: nothing where its folder got the same commit before, since only what lacks is fetched."""
    before = aliased(ImportTask)
    there = (
        select(before.id)
        .where(
            before.artifact_revision_id == task.artifact_revision_id,
            before.destination == task.destination,
            before.status == ImportTaskStatus.SUCCEEDED,
            before.created_at < task.created_at,
            before.commit == task.order["model"]["commit"].as_string(),
        )
        .correlate(task)
        .exists()
    )
    again = and_(task.vfolder_id.is_not(None), task.force.is_(False), there)
    return case((again, 0), else_=func.coalesce(task.expected_size, 0))


def _stored() -> ColumnElement[int | None]:
    """Sum up the revisions that an artifact storage holds, as far as the manager knows; null for anything else."""
    place = ArtifactRevision.stored_in
    total = (
        select(func.coalesce(func.sum(ArtifactRevision.size), 0))
        .where(
            ArtifactRevision.stored_commit.is_not(None),
            place["proxy"].as_string() == Quota.proxy,
            place["storage_name"].as_string() == Quota.storage_name,
        )
        .correlate(Quota)
        .scalar_subquery()
    )
    return case((Quota.storage_name.is_not(None), total), else_=None)


def reserved_at(place: QuotaPlace) -> Select[int]:
    """Select what open imports are to bring to a place of which no row speaks."""
    task, folder = aliased(ImportTask), aliased(VFolder)
    total = select(func.coalesce(func.sum(_bytes_of(task)), 0)).where(
        task.proxy == place.proxy, task.finished_at.is_(None)
    )
    if place.scope is None:
        return total.where(task.storage_name == place.storage_name)
    owner = folder.user_id == place.user_id if place.user_id else folder.project_id == place.project_id
    return total.join(folder, folder.id == task.vfolder_id).where(
        folder.host == f"{place.proxy}:{place.volume}", owner
    )
