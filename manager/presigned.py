"""URLs for single objects of a stored revision, which need no token and expire."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.models import ArtifactAvailability, ArtifactRevision, ArtifactStatus
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PathRefused,
    UnsupportedRegistry,
)
from proxy_client.paths import objection

STANDARD_SECONDS = 3600
LONGEST_SECONDS = 7 * 24 * 3600
_FIELD = "input.artifactRevisionId"


class PresignedURLs:
    """Makes URLs for objects beneath a revision's own prefix; no key leads out of it."""

    def __init__(self, database: Database, proxies: Mapping[str, StorageProxyClient]) -> None:
        self._database = database
        self._proxies = proxies

    async def download(
        self, caller: Caller, revision_id: UUID, key: str, expires_seconds: int | None
    ) -> wire.PresignedURL:
        """Return a URL that reads one file of a revision that is AVAILABLE; everybody who reads the catalogue may.

        Raises `NotFound`, `BadRequest` for a key or a time that cannot be, and `Conflict` for a revision that is not
        stored, or not in an object storage.
        """
        seconds = STANDARD_SECONDS if expires_seconds is None else expires_seconds
        if not 1 <= seconds <= LONGEST_SECONDS:
            raise BadRequest(
                f"expiration is {seconds}; choose 1 to {LONGEST_SECONDS} seconds", field="input.expiration"
            )
        return await self._presign(caller, revision_id, "GET", key, seconds)

    async def upload(self, caller: Caller, revision_id: UUID, key: str) -> wire.PresignedURL:
        """Return a URL that writes one file of a revision; administrators may, where the artifact is not read-only.

        What is written so was verified by nobody. Raises as `download` does, and `Forbidden`.
        """
        await require_admin(caller)
        return await self._presign(caller, revision_id, "PUT", key, STANDARD_SECONDS)

    async def _presign(
        self, caller: Caller, revision_id: UUID, method: str, key: str, seconds: int
    ) -> wire.PresignedURL:
        # The proxy refuses the same by its own policy; said here, the fault has its name.
        if fault := objection(key):
            raise BadRequest(
                f"the key is refused: {fault}; write the path of a file, as in the revision",
                field="input.key",
            )
        async with self._database.begin() as session:
            revision = await session.scalar(
                select(ArtifactRevision)
                .options(joinedload(ArtifactRevision.artifact))
                .where(ArtifactRevision.id == revision_id)
            )
            if revision is None:
                raise NotFound("there is no such artifact revision; check its id", field=_FIELD)
            if revision.artifact.availability is ArtifactAvailability.DELETED:
                raise Conflict("the artifact of this revision was deleted; restore it first", field=_FIELD)
            place = revision.stored_in
            if revision.status is not ArtifactStatus.AVAILABLE or place is None:
                raise Conflict(
                    f"this revision is {revision.status}, not in the artifact storage; import it first",
                    field=_FIELD,
                )
            if method == "PUT":
                if revision.artifact.readonly:
                    raise Forbidden(
                        "the artifact is read-only; change that with updateArtifact first", field=_FIELD
                    )
                audit(session, caller, "artifact.presign-upload", str(revision_id), {"key": key})
        if (client := self._proxies.get(place["proxy"])) is None:
            raise Conflict(
                f"the storage proxy {place['proxy']} of this revision is not in the manager's configuration; "
                "ask the operator to add it",
                field=_FIELD,
            )
        order = wire.PresignOrder.model_validate(
            {"method": method, "path": place["path"], "key": key, "expires_seconds": seconds}
        )
        try:
            return await client.presign(place["storage_name"], order)
        except PathRefused as exc:
            raise BadRequest(exc.message, field="input.key") from exc
        except (BadRequest, UnsupportedRegistry, Conflict) as exc:
            raise Conflict(
                f"there are no URLs for files of this revision: {exc.message}", field=_FIELD
            ) from exc
