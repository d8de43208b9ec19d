"""What may be done on hosts, and by whom."""

from typing import Annotated
from uuid import UUID

import strawberry
from sqlalchemy import select

from manager import models
from manager.access import require_admin
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.enums import VFolderHostPermission
from manager.graphql.fields import Node, column, field, mutation
from manager.graphql.ids import parse_id
from manager.graphql.loaders import kept
from manager.graphql.projects import Project
from manager.graphql.users import User
from manager.paging import Order, PageRequest, SortKey


@strawberry.type(description="What may be done on a host by everybody, by a user, or by a project's members.")
class HostPermission(Node):
    """What may be done on a host; holds its row."""

    row: strawberry.Private[models.HostPermission]

    host: str = column("host", "The host, `proxy:volume`.")

    @field("What is permitted; it adds up with what others of these permit.")
    def permissions(self) -> list[VFolderHostPermission]:
        """Present the row's permissions."""
        return [each for each in VFolderHostPermission if each.row_value in self.row.permissions]

    @field("The user to whom it is permitted; null for a project's members or everybody.")
    async def user(self, info: Info) -> User | None:
        """Load the user."""
        if self.row.user_id is None:
            return None
        return User(row=kept(await info.context.loaders.users.load(self.row.user_id)))

    @field("The project to whose members it is permitted; null for a user or everybody.")
    async def project(self, info: Info) -> Project | None:
        """Load the project."""
        if self.row.project_id is None:
            return None
        return Project(row=kept(await info.context.loaders.projects.load(self.row.project_id)))


@strawberry.input(description="What is permitted where, and to whom.")
class GrantHostPermissionsInput:
    """What is permitted where, and to whom."""

    host: str = strawberry.field(description="The host, `proxy:volume`.")
    permissions: list[VFolderHostPermission] = strawberry.field(description="What may be done from now on.")
    user_id: strawberry.ID | None = strawberry.field(
        default=None, description="The user to whom; without it and `projectId` it is everybody."
    )
    project_id: strawberry.ID | None = strawberry.field(
        default=None, description="The project to whose members. Not with `userId`."
    )


@strawberry.type(description="What is permitted now.")
class GrantHostPermissionsPayload:
    """What is permitted now."""

    host_permission: HostPermission = strawberry.field(description="All that these may do on the host.")


@strawberry.input(description="What is permitted no more, where, and to whom.")
class RevokeHostPermissionsInput:
    """What is permitted no more, where, and to whom."""

    host: str = strawberry.field(description="The host, `proxy:volume`.")
    permissions: list[VFolderHostPermission] = strawberry.field(description="What may be done no more.")
    user_id: strawberry.ID | None = strawberry.field(
        default=None, description="The user from whom; without it and `projectId` it is everybody."
    )
    project_id: strawberry.ID | None = strawberry.field(
        default=None, description="The project from whose members. Not with `userId`."
    )


@strawberry.type(description="What is still permitted.")
class RevokeHostPermissionsPayload:
    """What is still permitted."""

    host_permission: HostPermission = strawberry.field(
        description="All that these may do on the host. As everybody, or in a project, they may be permitted more."
    )


@strawberry.type
class HostQuery:
    """The queries about hosts."""

    @listed("What is permitted on hosts, by host. For administrators.")
    async def host_permissions(
        self,
        info: Info,
        request: PageRequest,
        *,
        host: Annotated[
            str | None, strawberry.argument(description="Only on this host, `proxy:volume`.")
        ] = strawberry.UNSET,
    ) -> Connection[HostPermission] | None:
        """Load one page of what is permitted."""
        await require_admin(info.context.caller)
        statement = select(models.HostPermission)
        if host:
            statement = statement.where(models.HostPermission.host == host)
        order = Order.by([SortKey("host", models.HostPermission.host)], models.HostPermission.id)
        return await connect(info, statement, order, request, lambda row: HostPermission(row=row[0]))


@strawberry.type
class HostMutation:
    """The mutations of hosts."""

    @mutation("Permit more on a host. For administrators; may be repeated.")
    async def grant_host_permissions(
        self,
        info: Info,
        asked: Annotated[
            GrantHostPermissionsInput, strawberry.argument(name="input", description="What and to whom.")
        ],
    ) -> GrantHostPermissionsPayload:
        """Grant permissions."""
        context = info.context
        user_id, project_id = _whose(asked.user_id, asked.project_id)
        row = await context.services.hosts.grant(
            context.caller,
            asked.host,
            [each.row_value for each in asked.permissions],
            user_id=user_id,
            project_id=project_id,
        )
        return GrantHostPermissionsPayload(host_permission=HostPermission(row=row))

    @mutation("Permit less on a host. For administrators; may be repeated.")
    async def revoke_host_permissions(
        self,
        info: Info,
        asked: Annotated[
            RevokeHostPermissionsInput, strawberry.argument(name="input", description="What and from whom.")
        ],
    ) -> RevokeHostPermissionsPayload:
        """Revoke permissions."""
        context = info.context
        user_id, project_id = _whose(asked.user_id, asked.project_id)
        row = await context.services.hosts.revoke(
            context.caller,
            asked.host,
            [each.row_value for each in asked.permissions],
            user_id=user_id,
            project_id=project_id,
        )
        return RevokeHostPermissionsPayload(host_permission=HostPermission(row=row))


def _whose(user_id: str | None, project_id: str | None) -> tuple[UUID | None, UUID | None]:
    return (
        None if user_id is None else parse_id(user_id, "User", field="input.userId"),
        None if project_id is None else parse_id(project_id, "Project", field="input.projectId"),
    )
