"""What users, projects and artifact storages may keep, and what they do."""

from datetime import datetime
from typing import Annotated

import strawberry

from manager import models
from manager.access import visible_quotas
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Context, Info
from manager.graphql.fields import Node, field, mutation
from manager.graphql.ids import parse_id
from manager.graphql.loaders import kept
from manager.graphql.projects import Project
from manager.graphql.scalars import ByteSize
from manager.graphql.users import User
from manager.paging import Order, PageRequest, SortKey
from manager.room import QuotaPlace, QuotaState, state_of, with_room


@strawberry.type(
    description="What a user's or a project's folders on a host, or the files of an artifact storage (a directory or a "
    "bucket, which is one namespace), may sum up to."
)
class Quota(Node):
    """What may be kept somewhere; holds its row, and what is kept."""

    row: strawberry.Private[models.Quota]
    state: strawberry.Private[QuotaState]

    @classmethod
    def of(cls, state: QuotaState) -> "Quota":
        """Present a quota."""
        return cls(row=state.row, state=state)

    @field("The host whose folders count, `proxy:volume`; null for an artifact storage.")
    def host(self) -> str | None:
        """Name the host."""
        return None if self.row.volume is None else f"{self.row.proxy}:{self.row.volume}"

    @field("The quota scope on that host, `user:…` or `project:…`; null for an artifact storage.")
    def quota_scope_id(self) -> str | None:
        """Name the scope."""
        scope = QuotaPlace.of_row(self.row).scope
        return None if scope is None else str(scope)

    @field("The artifact storage; null for a user's or a project's quota.")
    def storage_name(self) -> str | None:
        """Name the storage."""
        return self.row.storage_name

    @field("Whose folders count; null for a project's or an artifact storage's quota.")
    async def user(self, info: Info) -> User | None:
        """Load the user."""
        if self.row.user_id is None:
            return None
        return User(row=kept(await info.context.loaders.users.load(self.row.user_id)))

    @field("The project whose folders count; null for a user's or an artifact storage's quota.")
    async def project(self, info: Info) -> Project | None:
        """Load the project."""
        if self.row.project_id is None:
            return None
        return Project(row=kept(await info.context.loaders.projects.load(self.row.project_id)))

    @field("The limit; null is none.")
    def limit_bytes(self) -> ByteSize | None:
        """Answer the limit."""
        return _size(self.row.limit_bytes)

    @field(
        "What is kept, as last reported, without what running imports have staged; null where nobody knows."
    )
    def used_bytes(self) -> ByteSize | None:
        """Answer the use."""
        return _size(self.state.used)

    @field("What running imports are to bring, and those that ended since the report have brought.")
    def reserved_bytes(self) -> ByteSize:
        """Answer the reservations."""
        return ByteSize(self.state.reserved)

    @field("What further imports may bring; null without a limit.")
    def available_bytes(self) -> ByteSize | None:
        """Answer the room."""
        return _size(self.state.available)

    @field(
        "Whether the storage proxy has this limit already, and enforces it while writing. That of an artifact storage is "
        "told with each import, at its start and before it is published."
    )
    def enforced(self) -> bool:
        """Compare with what the proxy reported."""
        row = self.row
        return row.storage_name is not None or (
            row.reported_at is not None and row.enforced_bytes == row.limit_bytes
        )

    @field("When its storage proxy last reported; null if it never did.")
    def reported_at(self) -> datetime | None:
        """Answer the time of the report."""
        return self.row.reported_at


@strawberry.input(
    description="What is limited, and to how much. Name one of userId, projectId and storageName."
)
class SetQuotaInput:
    """What is limited, and to how much."""

    limit_bytes: ByteSize | None = strawberry.field(
        default=None, description="The limit; null lifts it. One below what is kept removes nothing."
    )
    user_id: strawberry.ID | None = strawberry.field(
        default=None, description="The user whose folders on the host are limited."
    )
    project_id: strawberry.ID | None = strawberry.field(
        default=None, description="The project whose folders on the host are limited."
    )
    storage_name: str | None = strawberry.field(
        default=None,
        description="The artifact storage that is limited: one of the configuration's `[reservoir]` by its name, any as "
        "PROXY:STORAGE or PROXY:STORAGE.NAMESPACE.",
    )
    host: str | None = strawberry.field(
        default=None,
        description="The host, `proxy:volume`, for a user or project; the default one without it.",
    )


@strawberry.type(description="The quota as it is now.")
class SetQuotaPayload:
    """The quota as it is now."""

    quota: Quota = strawberry.field(description="The quota.")


@strawberry.type
class QuotaQuery:
    """The queries about quotas."""

    @field("What may be kept somewhere and what is, asked of the storage proxy now; one's own without userId, "
           "projectId and storageName, of which one may be named.")  # fmt: skip
    async def quota(
        self,
        info: Info,
        *,
        user_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="The user; others only for administrators."),
        ] = strawberry.UNSET,
        project_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="The project; for its members.")
        ] = strawberry.UNSET,
        storage_name: Annotated[
            str | None,
            strawberry.argument(
                description="The artifact storage, as setQuota names it; for those who may import into it."
            ),
        ] = strawberry.UNSET,
        host: Annotated[
            str | None,
            strawberry.argument(
                description="The host, `proxy:volume`, for a user or project; the default one without it."
            ),
        ] = strawberry.UNSET,
    ) -> Quota:
        """Ask the proxy."""
        context = info.context
        place = _place(
            context,
            host or None,
            user_id or None,
            project_id or None,
            storage_name or None,
            own=True,
        )
        return Quota.of(await context.services.quotas.look(context.caller, place))

    @listed("The quotas that were set: the caller's own and those of the caller's projects, or for administrators all; "
           "as last reported.")  # fmt: skip
    async def quotas(
        self,
        info: Info,
        request: PageRequest,
    ) -> Connection[Quota] | None:
        """Load one page of the quotas."""
        statement = with_room(visible_quotas(info.context.caller))
        order = Order.by([SortKey("created_at", models.Quota.created_at)], models.Quota.id)
        return await connect(info, statement, order, request, lambda row: Quota.of(state_of(row)))


@strawberry.type
class QuotaMutation:
    """The mutations of quotas."""

    @mutation("Limit what may be kept somewhere, or lift the limit. For administrators; may be repeated.")
    async def set_quota(
        self,
        info: Info,
        asked: Annotated[SetQuotaInput, strawberry.argument(name="input", description="What and how much.")],
    ) -> SetQuotaPayload:
        """Set a limit."""
        context = info.context
        place = _place(
            context, asked.host, asked.user_id, asked.project_id, asked.storage_name, within="input."
        )
        state = await context.services.quotas.set_limit(context.caller, place, asked.limit_bytes)
        return SetQuotaPayload(quota=Quota.of(state))


def _place(
    context: Context,
    host: str | None,
    user_id: str | None,
    project_id: str | None,
    storage_name: str | None,
    *,
    within: str = "",
    own: bool = False,
) -> QuotaPlace:
    user = None if user_id is None else parse_id(user_id, "User", field=f"{within}userId")
    if own and user_id is None and project_id is None and storage_name is None:
        user = context.caller.user_id
    return context.services.quotas.place(
        host=host,
        user_id=user,
        project_id=None
        if project_id is None
        else parse_id(project_id, "Project", field=f"{within}projectId"),
        storage_name=storage_name,
        within=within,
    )


def _size(value: int | None) -> ByteSize | None:
    return None if value is None else ByteSize(value)
