"""Scans that nobody waits for: sizes and readmes that a large scan left out, and models that grow old.

What is due stands in the rows, so that nothing is forgotten when a manager dies. One manager process scans, by an
advisory lock on a connection of its own; the others stand by.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import and_, func, select, text, update

from manager.catalog import keep_models, look_up
from manager.db import Database, storable, translated
from manager.models import (
    Artifact,
    ArtifactAvailability,
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactRevision,
    utc_now,
)
from manager.registries import scanning_proxy
from manager.settings import Settings
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import NotFound, SourceUnavailable, StowageError, Unavailable

log = structlog.get_logger()

# Any number for the advisory lock: "scan" in ASCII.
_LOCK = 0x7363616E
_AT_A_TIME = 32
_SIDE_BY_SIDE = 4
# Seconds between looks for what is due; nobody waits for it.
_PAUSE = 2.0
_RETRY = timedelta(minutes=1)
_OPEN = and_(
    ArtifactRegistry.type == ArtifactRegistryType.HUGGINGFACE,
    ArtifactRegistry.deleted_at.is_(None),
    Artifact.availability == ArtifactAvailability.ALIVE,
)


@dataclass(frozen=True)
class _Due:
    id: UUID
    registry: ArtifactRegistry
    model_id: str
    version: str | None = None


class Scanner:
    """Asks registries for what is due, a few models side by side."""

    def __init__(
        self, database: Database, settings: Settings, proxies: Mapping[str, StorageProxyClient]
    ) -> None:
        self._database = database
        chosen = settings.artifact_registry
        self._interval = timedelta(seconds=chosen.rescan_interval if chosen else 0)
        proxy = scanning_proxy(settings)
        self._client = proxies.get(proxy) if proxy else None
        self._resting: dict[UUID, float] = {}

    async def run(self) -> None:
        """Run until cancelled; an outage is waited out."""
        while True:
            try:
                await self._lead()
            except Unavailable as exc:
                log.warning("background scans wait", reason=exc.message)
            await asyncio.sleep(_PAUSE)

    async def _lead(self) -> None:
        async with self._database.connection() as connection:
            leads = False
            while True:
                with translated():
                    if leads:
                        # The lock lives and dies with this connection.
                        await connection.execute(text("SELECT 1"))
                    else:
                        leads = await connection.scalar(select(func.pg_try_advisory_lock(_LOCK, 0))) is True
                if leads:
                    await self.scan_due()
                await asyncio.sleep(_PAUSE)

    async def scan_due(self) -> int:
        """Scan what is due now; returns how many revisions and models that was. May be repeated."""
        if self._client is None:
            return 0
        revisions, models = await self._due_revisions(), await self._due_models()
        await _each(revisions, self._describe)
        await _each(models, self._rescan)
        return len(revisions) + len(models)

    async def _due_revisions(self) -> list[_Due]:
        async with self._database.read() as session:
            found = await session.execute(
                select(ArtifactRevision.id, ArtifactRegistry, Artifact.name, ArtifactRevision.version)
                .join(ArtifactRevision.artifact)
                .join(Artifact.origin)
                .where(ArtifactRevision.details_due_at <= utc_now(), _OPEN)
                .order_by(ArtifactRevision.details_due_at)
                .limit(_AT_A_TIME)
            )
            return [_Due(row[0], row[1], row[2], row[3]) for row in found]

    async def _due_models(self) -> list[_Due]:
        if not self._interval:
            return []
        now = asyncio.get_running_loop().time()
        self._resting = {key: end for key, end in self._resting.items() if end > now}
        async with self._database.read() as session:
            found = await session.execute(
                select(Artifact.id, ArtifactRegistry, Artifact.name)
                .join(Artifact.origin)
                .where(
                    Artifact.scanned_at < utc_now() - self._interval,
                    Artifact.id.not_in(list(self._resting)),
                    _OPEN,
                )
                .order_by(Artifact.scanned_at)
                .limit(_AT_A_TIME)
            )
            return [_Due(row[0], row[1], row[2]) for row in found]

    async def _describe(self, due: _Due) -> None:
        values: dict[str, object]
        try:
            model = await self._model(due)
        except (SourceUnavailable, Unavailable, NotFound) as exc:
            # Also a proxy that does not know the registry: it has yet to be told of one that was entered here.
            log.info("details of a revision not found yet", model=due.model_id, reason=exc.message)
            values = {"details_due_at": utc_now() + _RETRY}
        except StowageError as exc:
            # It is gone, or closed to us: the next scan of the model tells.
            log.warning("details of a revision not found", model=due.model_id, reason=exc.message)
            values = {"details_due_at": None}
        else:
            values = {"details_due_at": None}
            for found in model.revisions:
                if found.name == due.version:
                    values |= {"digest": found.commit, "size": found.size, "readme": storable(found.readme)}
        async with self._database.begin() as session:
            await session.execute(
                update(ArtifactRevision)
                .where(ArtifactRevision.id == due.id)
                .values(**values, updated_at=utc_now())
            )

    async def _model(self, due: _Due) -> wire.RegistryModel:
        if self._client is None:
            raise Unavailable("no storage proxy asks registries")
        return await self._client.get_model(due.registry.name, due.model_id, due.version)

    async def _rescan(self, due: _Due) -> None:
        if self._client is None:
            return
        try:
            model = await look_up(self._client, due.registry.name, due.model_id, None, at_once=False)
            async with self._database.begin() as session:
                await keep_models(session, due.registry, [model])
        except StowageError as exc:
            log.warning("model not scanned again", model=due.model_id, reason=exc.message)
            pause = max(_RETRY, self._interval / 10).total_seconds()
            self._resting[due.id] = asyncio.get_running_loop().time() + pause


async def _each(due: Sequence[_Due], scan: Callable[[_Due], Awaitable[None]]) -> None:
    gate = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(item: _Due) -> None:
        async with gate:
            await scan(item)

    async with asyncio.TaskGroup() as group:
        for item in due:
            group.create_task(one(item))
