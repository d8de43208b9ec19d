"""Quotas: the manager keeps the limits and brings them to the storage proxies, which enforce them while writing."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import and_, case, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from manager.access import (
    WritableVFolder,
    may_import_to_artifact_storage,
    require_admin,
    require_project_member,
)
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.hosts import check_host
from manager.models import (
    ArtifactStorage,
    ImportTask,
    Project,
    Quota,
    StorageNamespace,
    User,
    utc_now,
)
from manager.room import (
    QuotaPlace,
    QuotaState,
    counts_against_quota,
    ended_since,
    load_states,
    reserved_at,
    staged_bytes,
)
from manager.settings import Settings
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import BadRequest, Forbidden, NotFound, StowageError, Unavailable

log = structlog.get_logger()

# Seconds that a caller waits for a proxy before the last report is good enough.
ANSWER_DEADLINE = 5.0
_LARGEST_LIMIT = (1 << 63) - 1
# A proxy that did not take a limit, or has ended imports to report of, is asked again after this.
_SOON = timedelta(seconds=5)
_AT_ONCE = 4


class Quotas:
    """Sets limits, brings them to the proxies and asks these for what is used."""

    def __init__(
        self, database: Database, settings: Settings, proxies: Mapping[str, StorageProxyClient]
    ) -> None:
        self._database = database
        self._settings = settings
        self._proxies = proxies

    def place(
        self,
        *,
        host: str | None,
        user_id: uuid.UUID | None,
        project_id: uuid.UUID | None,
        storage_name: str | None,
        within: str = "",
    ) -> QuotaPlace:
        """Read what a caller names; `within` stands before the fields of errors. Without host, the default one.

        Raises `BadRequest` unless exactly one of the others is named.
        """
        if sum(each is not None for each in (user_id, project_id, storage_name)) != 1:
            raise BadRequest(
                "a quota is a user's, a project's or an artifact storage's; name exactly one of userId, projectId and "
                "storageName",
                field=f"{within}userId",
            )
        if storage_name is not None:
            if host is not None:
                raise BadRequest("an artifact storage lies on no host; leave it out", field=f"{within}host")
            return self._storage_place(storage_name, f"{within}storageName")
        if host is None:
            if self._settings.vfolder is None:
                raise BadRequest("there is no default host; name one as PROXY:VOLUME", field=f"{within}host")
            host = self._settings.vfolder.default_host
        proxy, volume = check_host(host, self._proxies, field=f"{within}host")
        return QuotaPlace(proxy, volume, user_id=user_id, project_id=project_id)

    def _storage_place(self, storage_name: str, field: str) -> QuotaPlace:
        reservoir = self._settings.reservoir
        if ":" not in storage_name and reservoir is not None:
            place = QuotaPlace(reservoir.proxy, storage_name=storage_name)
            if self._is_of_reservoir(place):
                return place
        proxy, _, name = storage_name.partition(":")
        if proxy not in self._proxies or re.fullmatch(wire.NAME_PATTERN, name) is None:
            raise NotFound(
                "there is no such artifact storage in the section [reservoir] of the manager's configuration; name "
                "another one as PROXY:STORAGE or PROXY:STORAGE.NAMESPACE",
                field=field,
            )
        return QuotaPlace(proxy, storage_name=name)

    def _is_of_reservoir(self, place: QuotaPlace) -> bool:
        reservoir = self._settings.reservoir
        return (
            reservoir is not None
            and place.proxy == reservoir.proxy
            and place.storage_name in {reservoir.download, reservoir.verify, reservoir.archive}
        )

    async def _insist_on_storage(self, place: QuotaPlace) -> None:
        """Raise `NotFound` for an artifact storage that neither was entered here nor its proxy has."""
        if place.storage_name is None or self._is_of_reservoir(place):
            return
        name = case(
            (StorageNamespace.namespace.is_(None), ArtifactStorage.name),
            else_=ArtifactStorage.name + "." + StorageNamespace.namespace,
        )
        entered = (
            select(ArtifactStorage.id)
            .join(StorageNamespace, isouter=True)
            .where(
                ArtifactStorage.proxy == place.proxy,
                or_(name == place.storage_name, ArtifactStorage.name == place.storage_name),
            )
        )
        async with self._database.read() as session:
            if await session.scalar(entered.limit(1)) is not None:
                return
        async with _within(ANSWER_DEADLINE, place.proxy):
            there = await self._client(place).artifact_storages()
        if place.storage_name not in {storage.name for storage in there}:
            raise NotFound(f"there is no {place.text}; check its name", field="input.storageName")

    async def set_limit(self, caller: Caller, place: QuotaPlace, limit_bytes: int | None) -> QuotaState:
        """Set a limit, or lift it; only administrators may. May be repeated.

        It holds for new imports from now on. The proxy is told at once, or as soon as it answers. A limit below what is
        used is taken: nothing is removed, and nothing more comes in.
        """
        await require_admin(caller)
        if limit_bytes is not None and limit_bytes > _LARGEST_LIMIT:
            raise BadRequest(
                f"a limit is at most {_LARGEST_LIMIT} bytes; null lifts it", field="input.limitBytes"
            )
        await self._insist_on_storage(place)
        async with self._database.begin() as session:
            await _insist_on_owner(session, place)
            values: dict[str, Any] = {
                "id": place.id,
                "proxy": place.proxy,
                "volume": place.volume,
                "user_id": place.user_id,
                "project_id": place.project_id,
                "storage_name": place.storage_name,
            }
            await session.execute(
                insert(Quota).values(staged_bytes=0, created_at=utc_now(), **values).on_conflict_do_nothing()
            )
            row = await session.get_one(Quota, place.id, with_for_update=True)
            details = {"of": place.text, "before": row.limit_bytes, "limit": limit_bytes}
            row.limit_bytes = limit_bytes
            audit(session, caller, "quota.set", str(place.id), details)
        await self._refresh([row])
        async with self._database.read() as session:
            return (await load_states(session, Quota.id == place.id))[0]

    async def look(self, caller: Caller, place: QuotaPlace) -> QuotaState:
        """Return a quota with what its proxy says now, or said last where it gives no answer in time.

        A user sees the user's own, the projects' of which the user is a member, and the artifact storage where the user
        may fill it; administrators see all. Where there is no row the proxy's own limit is shown.
        """
        async with self._database.read() as session:
            if place.user_id is not None and place.user_id != caller.user_id:
                if not caller.is_admin:
                    raise Forbidden("only administrators see the quotas of others", field="userId")
                await _insist_on_owner(session, place, within="")
            elif place.project_id is not None:
                await require_project_member(session, caller, place.project_id, field="projectId")
            elif place.storage_name is not None:
                await may_import_to_artifact_storage(session, caller)
        return await self._look(place)

    async def of_folder(self, folder: WritableVFolder) -> QuotaState:
        """Return the quota that a folder counts against, as `look` does: who may fill it may know how much fits."""
        return await self._look(QuotaPlace.of_vfolder(folder.vfolder))

    async def _look(self, place: QuotaPlace) -> QuotaState:
        async with self._database.read() as session:
            row = await session.get(Quota, place.id)
        if row is None:
            return await self._unlimited(place)
        await self._refresh([row])
        async with self._database.read() as session:
            return (await load_states(session, Quota.id == place.id))[0]

    async def _unlimited(self, place: QuotaPlace) -> QuotaState:
        """Show a place of which no row speaks."""
        row = Quota(
            id=place.id,
            proxy=place.proxy,
            volume=place.volume,
            user_id=place.user_id,
            project_id=place.project_id,
            storage_name=place.storage_name,
            staged_bytes=0,
        )
        try:
            async with _within(ANSWER_DEADLINE, place.proxy):
                row.used_bytes, row.limit_bytes = await self._report(place)
        except StowageError as exc:
            log.warning("usage not known", proxy=place.proxy, reason=exc.message)
        else:
            row.enforced_bytes, row.reported_at = row.limit_bytes, utc_now()
        async with self._database.read() as session:
            reserved = await session.scalar(reserved_at(place))
        return QuotaState(row, row.used_bytes, int(reserved or 0))

    # What the proxies say.

    async def follow(self) -> None:
        """Keep limits and reports of all quotas in step with the proxies, until cancelled.

        May run in several processes: each takes what nobody else took.
        """
        while True:
            try:
                await self._refresh(await self._due(), deadline=None)
            except Unavailable as exc:
                log.warning("quotas not refreshed", reason=exc.message)
            await asyncio.sleep(self._settings.reconciler.order_interval)

    async def _due(self) -> Sequence[Quota]:
        now = utc_now()
        task = aliased(ImportTask)
        ended = (
            select(task.id)
            .where(counts_against_quota(task), ended_since(task, Quota.reported_at))
            .correlate(Quota)
            .exists()
        )
        behind = or_(
            and_(Quota.storage_name.is_(None), Quota.enforced_bytes.is_distinct_from(Quota.limit_bytes)),
            ended,
        )
        long_ago = now - timedelta(seconds=self._settings.reconciler.quota_interval)
        due = (
            select(Quota.id)
            .where(
                or_(
                    Quota.asked_at.is_(None),
                    Quota.asked_at < long_ago,
                    and_(Quota.asked_at < now - _SOON, behind),
                )
            )
            .order_by(Quota.asked_at.nulls_first())
            .limit(100)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        async with self._database.begin() as session:
            return (
                await session.scalars(
                    update(Quota)
                    .where(Quota.id == due.c.id)
                    .values(asked_at=now)
                    .returning(Quota)
                    .execution_options(synchronize_session=False)
                )
            ).all()

    async def _refresh(self, rows: Sequence[Quota], *, deadline: float | None = ANSWER_DEADLINE) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(row: Quota) -> None:
            async with gate:
                try:
                    async with _within(deadline, row.proxy):
                        await self._settle(row)
                except StowageError as exc:
                    log.warning("quota not refreshed", quota=str(row.id), proxy=row.proxy, reason=exc.message)

        async with asyncio.TaskGroup() as group:
            for row in rows:
                group.create_task(one(row))

    async def _settle(self, row: Quota) -> None:
        """Bring the limit to the proxy and take over what it reports.

        The limit is read again after each word to the proxy: of two that are set at once the last one stays, whichever
        of the two calls came second.
        """
        place, limit = QuotaPlace.of_row(row), row.limit_bytes
        while True:
            asked_at = utc_now()
            async with self._database.begin() as session:
                # Before the question: what is staged from now on is in the answer and not taken off.
                staged = await session.scalar(
                    update(Quota)
                    .where(Quota.id == row.id)
                    .values(asked_at=asked_at)
                    .returning(staged_bytes())
                    .execution_options(synchronize_session=False)
                )
            used, enforced = await self._report(place)
            if place.scope is not None and enforced != limit:
                used, enforced = await self._bring(place, limit)
            async with self._database.begin() as session:
                now = await session.get(Quota, row.id, with_for_update=True)
                if now is None:
                    return
                now.used_bytes, now.enforced_bytes = used, enforced
                now.staged_bytes, now.reported_at = int(staged or 0), asked_at
                if place.scope is None or now.limit_bytes == enforced:
                    return
                limit = now.limit_bytes

    async def _report(self, place: QuotaPlace) -> tuple[int | None, int | None]:
        client = self._client(place)
        if place.scope is not None:
            answer = await client.get_quota_scope(place.volume or "", place.scope)
            return answer.used_bytes, answer.limit_bytes
        for storage in await client.artifact_storages():
            if storage.name == place.storage_name:
                return storage.used_bytes, None
        raise NotFound(f"there is no artifact storage {place.storage_name} on {place.proxy}")

    async def _bring(self, place: QuotaPlace, limit: int | None) -> tuple[int | None, int | None]:
        if place.scope is None:
            return None, None
        answer = await self._client(place).set_quota_scope(place.volume or "", place.scope, limit)
        return answer.used_bytes, answer.limit_bytes

    def _client(self, place: QuotaPlace) -> StorageProxyClient:
        if (client := self._proxies.get(place.proxy)) is None:
            raise Unavailable(f"the storage proxy {place.proxy} is not in the manager's configuration")
        return client


@asynccontextmanager
async def _within(deadline: float | None, proxy: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(deadline):
            yield
    except TimeoutError as exc:
        raise Unavailable(f"storage proxy {proxy} is slow to answer") from exc


async def _insist_on_owner(session: AsyncSession, place: QuotaPlace, *, within: str = "input.") -> None:
    if place.user_id is not None and await session.get(User, place.user_id) is None:
        raise NotFound("there is no such user; check the id", field=f"{within}userId")
    if place.project_id is not None:
        there = select(Project.id).where(Project.id == place.project_id, Project.deleted_at.is_(None))
        if await session.scalar(there) is None:
            raise NotFound("there is no such project; check the id", field=f"{within}projectId")
