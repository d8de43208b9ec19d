"""Taking revisions out of the artifact storage again."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import contains_eager

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database, any_of
from manager.models import Artifact, ArtifactRevision, ArtifactStatus, ImportTask
from manager.revision_status import announce, move
from manager.settings import Settings
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import BadRequest, Conflict, NotFound, StowageError, Unavailable

log = structlog.get_logger()

MOST_REVISIONS = 100
IDS_FIELD = "input.artifactRevisionIds"
# Seconds that a request waits for a storage; the reconciler goes on with what takes longer.
_DEADLINE = 5.0


class Cleanup:
    """Removes stored revisions; only administrators may. Folders that they were imported into are left alone."""

    def __init__(
        self, database: Database, settings: Settings, proxies: Mapping[str, StorageProxyClient]
    ) -> None:
        self._database = database
        self._settings = settings
        self._proxies = proxies

    async def clean_up(self, caller: Caller, revision_ids: Sequence[UUID]) -> list[ArtifactRevision]:
        """Make revisions SCANNED and remove what the artifact storage holds of them; may be repeated.

        From the commit on they count as not stored; a storage that gives no answer in time is asked again by the
        reconciler, and until it has done its work the revision is not imported there anew. Returns the revisions in
        the order asked for, with artifact and registry.

        Raises `BadRequest`, `NotFound`, and `Conflict` while an import of one into the storage is open; then nothing
        is changed.
        """
        await require_admin(caller)
        if not 1 <= len(revision_ids) <= MOST_REVISIONS:
            raise BadRequest(
                f"these are {len(revision_ids)} revisions; name 1 to {MOST_REVISIONS}", field=IDS_FIELD
            )
        async with self._database.begin() as session:
            rows = await session.scalars(
                select(ArtifactRevision)
                .join(ArtifactRevision.artifact)
                .join(Artifact.origin)
                .options(contains_eager(ArtifactRevision.artifact).contains_eager(Artifact.origin))
                .where(ArtifactRevision.id == any_of(revision_ids))
                .order_by(ArtifactRevision.id)
                .with_for_update(of=ArtifactRevision, key_share=True)
            )
            found = {row.id: row for row in rows}
            running = await session.scalars(
                select(ImportTask.artifact_revision_id).where(
                    ImportTask.artifact_revision_id == any_of(revision_ids),
                    ImportTask.storage_name.is_not(None),
                    ImportTask.finished_at.is_(None),
                )
            )
            busy = set(running)
            revisions = []
            for index, revision_id in enumerate(revision_ids):
                where = f"{IDS_FIELD}[{index}]"
                if (revision := found.get(revision_id)) is None:
                    raise NotFound("there is no such artifact revision; check its id", field=where)
                if revision_id in busy:
                    raise Conflict(
                        "an import of this revision into the artifact storage is not finished; cancel it or wait",
                        field=where,
                    )
                revisions.append(revision)
            changed = [revision.id for revision in found.values() if self._forget(revision)]
            if changed:
                audit(
                    session,
                    caller,
                    "artifact.clean-up",
                    "artifact storage",
                    {"revisions": list(map(str, changed))},
                )
                await announce(session, changed)
        waiting = [revision for revision in found.values() if revision.cleanup is not None]
        await asyncio.gather(*(self._remove(revision) for revision in waiting))
        return revisions

    def _forget(self, revision: ArtifactRevision) -> bool:
        if revision.stored_commit is not None:
            revision.cleanup = revision.stored_in or self._configured(revision)
        revision.stored_commit, revision.stored_in, revision.verification = None, None, None
        return move(revision, ArtifactStatus.SCANNED)

    def _configured(self, revision: ArtifactRevision) -> dict[str, Any] | None:
        """Return where a revision lies whose import nobody remembers."""
        reservoir = self._settings.reservoir
        if reservoir is None:
            return None
        path = f"{revision.artifact.name}/{revision.version.replace('/', '%2F')}"
        return {"proxy": reservoir.proxy, "storage_name": reservoir.archive, "path": path}

    async def _remove(self, revision: ArtifactRevision) -> None:
        client = self._proxies.get((revision.cleanup or {})["proxy"])
        try:
            if client is None:
                raise Unavailable("its storage proxy is not in the manager's configuration")
            async with asyncio.timeout(_DEADLINE):
                await remove_at_proxy(self._database, client, revision)
        except (TimeoutError, StowageError) as exc:
            reason = exc.message if isinstance(exc, StowageError) else "it takes long"
            log.warning("clean-up left to the reconciler", revision=str(revision.id), reason=reason)


async def pending_cleanups(database: Database, proxy: str, most: int) -> Sequence[ArtifactRevision]:
    """Return revisions that a proxy still has to remove, with their artifacts."""
    async with database.read() as session:
        found = await session.scalars(
            select(ArtifactRevision)
            .join(ArtifactRevision.artifact)
            .options(contains_eager(ArtifactRevision.artifact))
            .where(
                ArtifactRevision.cleanup.is_not(None), ArtifactRevision.cleanup["proxy"].as_string() == proxy
            )
            .order_by(ArtifactRevision.id)
            .limit(most)
        )
        return found.all()


async def remove_at_proxy(database: Database, client: StorageProxyClient, revision: ArtifactRevision) -> None:
    """Remove what `cleanup` names and record it; may be repeated. Raises what the proxy answers."""
    place = revision.cleanup or {}
    stored = wire.StoredArtifact(
        model_id=revision.artifact.name, revision=revision.version, path=place["path"]
    )
    await client.unpublish(place["storage_name"], stored)
    async with database.begin() as session:
        await session.execute(
            update(ArtifactRevision)
            .where(ArtifactRevision.id == revision.id, ArtifactRevision.cleanup == place)
            .values(cleanup=None)
            .execution_options(synchronize_session=False)
        )
