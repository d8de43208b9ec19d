"""Findings of verifiers that administrators let pass: at one artifact, for a reason, until a day."""

import re
from datetime import datetime, timedelta
from uuid import UUID

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.models import Artifact, VerificationWaiver, utc_now
from proxy_client import wire
from proxy_client.errors import BadRequest, NotFound

LONGEST_REASON = 1000
LONGEST_RULE = 100
LONGEST_FILE = 5000
LONGEST_WAIVER = timedelta(days=366)


class Waivers:
    """Makes and revokes waivers; only administrators may."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        caller: Caller,
        artifact_id: UUID,
        *,
        verifier: str,
        rule: str | None,
        file: str | None,
        reason: str,
        expires_at: datetime,
    ) -> VerificationWaiver:
        """Let what a verifier finds in an artifact's files pass from now on; see `VerificationWaiver`.

        It holds for imports that are verified while it is in force, and is looked at again before they publish.
        """
        await require_admin(caller)
        _check(verifier, reason, expires_at, rule=rule, file=file)
        async with self._database.begin() as session:
            if await session.get(Artifact, artifact_id) is None:
                raise NotFound("there is no such artifact; check its id", field="input.artifactId")
            row = VerificationWaiver(
                artifact_id=artifact_id,
                verifier=verifier,
                rule=rule,
                file=file,
                reason=reason.strip(),
                created_by_id=caller.user_id,
                expires_at=expires_at,
            )
            session.add(row)
            await session.flush()
            details = {
                "artifact": str(artifact_id),
                "verifier": verifier,
                "rule": rule,
                "file": file,
                "reason": row.reason,
                "expires_at": expires_at.isoformat(),
            }
            audit(session, caller, "waiver.create", str(row.id), details)
        return row

    async def revoke(self, caller: Caller, waiver_id: UUID) -> VerificationWaiver:
        """End a waiver now; what was published by it stays. May be repeated. Raises `NotFound`."""
        await require_admin(caller)
        async with self._database.begin() as session:
            row = await session.get(VerificationWaiver, waiver_id, with_for_update=True)
            if row is None:
                raise NotFound("there is no such waiver; check its id", field="input.id")
            if row.revoked_at is None:
                row.revoked_at, row.revoked_by_id = utc_now(), caller.user_id
                audit(session, caller, "waiver.revoke", str(waiver_id))
        return row


def _check(verifier: str, reason: str, expires_at: datetime, *, rule: str | None, file: str | None) -> None:
    """Raise `BadRequest` for what no waiver may say."""
    if re.fullmatch(wire.NAME_PATTERN, verifier) is None:
        raise BadRequest("a verifier's name is of letters, digits, '.', '_' and '-'", field="input.verifier")
    if verifier == "integrity":
        raise BadRequest(
            "bytes that are not the registry's cannot be waived; import the revision again",
            field="input.verifier",
        )
    if rule is not None and not 1 <= len(rule) <= LONGEST_RULE:
        raise BadRequest(f"a rule's name has 1 to {LONGEST_RULE} characters", field="input.rule")
    if file is not None and not 1 <= len(file) <= LONGEST_FILE:
        raise BadRequest(f"a file's name has 1 to {LONGEST_FILE} characters", field="input.file")
    if not 1 <= len(reason.strip()) <= LONGEST_REASON:
        raise BadRequest(f"say in 1 to {LONGEST_REASON} characters why", field="input.reason")
    now = utc_now()
    if not now < expires_at <= now + LONGEST_WAIVER:
        raise BadRequest(
            f"a waiver ends in the future, at most {LONGEST_WAIVER.days} days from now",
            field="input.expiresAt",
        )
