"""Findings of verifiers that administrators let pass."""

from datetime import datetime
from typing import Annotated

import strawberry
from sqlalchemy import select

from manager import models
from manager.access import require_admin, waiver_in_force
from manager.graphql.catalog import Artifact
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.fields import Node, column, field, given, mutation
from manager.graphql.ids import parse_id
from manager.graphql.loaders import kept
from manager.graphql.users import User
from manager.paging import Order, PageRequest, SortKey


@strawberry.type(
    description="An administrator's word that certain findings in an artifact's files do not stand in the way, for a while."
)
class VerificationWaiver(Node):
    """What was waived, by whom, why and until when; holds its row."""

    row: strawberry.Private[models.VerificationWaiver]

    verifier: str = column("verifier", "The verifier whose findings pass.")
    rule: str | None = column("rule", "The rule whose findings pass; null for every rule of the verifier.")
    file: str | None = column("file", "The file in which they pass; null for every file.")
    reason: str = column("reason", "Why they pass.")
    created_at: datetime = column("created_at", "Since when.")
    expires_at: datetime = column("expires_at", "Until when, unless it is revoked.")
    revoked_at: datetime | None = column("revoked_at", "When it was revoked.")

    @field("The artifact in whose files they pass, whatever the revision.")
    async def artifact(self, info: Info) -> Artifact:
        """Load the artifact."""
        return Artifact(row=kept(await info.context.loaders.artifacts.load(self.row.artifact_id)))

    @field("Who made it.")
    async def created_by(self, info: Info) -> User:
        """Load the user."""
        return User(row=kept(await info.context.loaders.users.load(self.row.created_by_id)))

    @field("Who revoked it.")
    async def revoked_by(self, info: Info) -> User | None:
        """Load the user."""
        if self.row.revoked_by_id is None:
            return None
        return User(row=kept(await info.context.loaders.users.load(self.row.revoked_by_id)))


@strawberry.input(description="What passes, where, why and until when.")
class CreateVerificationWaiverInput:
    """What passes, where, why and until when."""

    artifact_id: strawberry.ID = strawberry.field(description="The artifact in whose files it passes.")
    verifier: str = strawberry.field(description="The verifier; `integrity` cannot be waived.")
    rule: str | None = strawberry.field(default=None, description="Only findings of this rule.")
    file: str | None = strawberry.field(default=None, description="Only findings in this file.")
    reason: str = strawberry.field(description="Why; at most 1000 characters.")
    expires_at: datetime = strawberry.field(description="Until when; at most 366 days from now.")


@strawberry.type(description="The waiver.")
class CreateVerificationWaiverPayload:
    """The waiver."""

    waiver: VerificationWaiver = strawberry.field(description="The waiver, in force.")


@strawberry.input(description="Which waiver.")
class RevokeVerificationWaiverInput:
    """Which waiver."""

    id: strawberry.ID = strawberry.field(description="The waiver's id.")


@strawberry.type(description="The waiver.")
class RevokeVerificationWaiverPayload:
    """The waiver."""

    waiver: VerificationWaiver = strawberry.field(description="The waiver, not in force any more.")


@strawberry.type
class WaiverQuery:
    """The queries about waivers."""

    @listed("The waivers, newest first. For administrators.")
    async def verification_waivers(
        self,
        info: Info,
        request: PageRequest,
        *,
        artifact_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only those of this artifact.")
        ] = strawberry.UNSET,
        in_force: Annotated[
            bool | None, strawberry.argument(description="Only those that count now, or only the others.")
        ] = strawberry.UNSET,
    ) -> Connection[VerificationWaiver] | None:
        """Load one page of waivers."""
        await require_admin(info.context.caller)
        waiver = models.VerificationWaiver
        statement = select(waiver)
        if isinstance(artifact_id, str):
            key = parse_id(artifact_id, "Artifact", field="artifactId")
            statement = statement.where(waiver.artifact_id == key)
        if isinstance(in_force, bool):
            statement = statement.where(waiver_in_force() if in_force else ~waiver_in_force())
        order = Order.by([SortKey("createdAt", waiver.created_at, descending=True)], waiver.id)
        return await connect(info, statement, order, request, lambda row: VerificationWaiver(row=row[0]))


@strawberry.type
class WaiverMutation:
    """The mutations of waivers."""

    @mutation("Let certain findings of a verifier in an artifact's files pass. For administrators.")
    async def create_verification_waiver(
        self,
        info: Info,
        asked: Annotated[
            CreateVerificationWaiverInput, strawberry.argument(name="input", description="What passes.")
        ],
    ) -> CreateVerificationWaiverPayload:
        """Make a waiver."""
        context = info.context
        row = await context.services.waivers.create(
            context.caller,
            parse_id(asked.artifact_id, "Artifact", field="input.artifactId"),
            verifier=asked.verifier,
            rule=given(asked.rule),
            file=given(asked.file),
            reason=asked.reason,
            expires_at=asked.expires_at,
        )
        return CreateVerificationWaiverPayload(waiver=VerificationWaiver(row=row))

    @mutation("End a waiver; what was published by it stays. For administrators; may be repeated.")
    async def revoke_verification_waiver(
        self,
        info: Info,
        asked: Annotated[
            RevokeVerificationWaiverInput, strawberry.argument(name="input", description="Which waiver.")
        ],
    ) -> RevokeVerificationWaiverPayload:
        """Revoke a waiver."""
        context = info.context
        key = parse_id(asked.id, "VerificationWaiver", field="input.id")
        row = await context.services.waivers.revoke(context.caller, key)
        return RevokeVerificationWaiverPayload(waiver=VerificationWaiver(row=row))
