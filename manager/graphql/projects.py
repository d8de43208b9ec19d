"""Projects and their members."""

from datetime import datetime
from typing import Annotated

import strawberry
from sqlalchemy import exists, select

from manager import models
from manager.access import visible_projects
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.enums import ProjectType
from manager.graphql.fields import Node, column, mutation
from manager.graphql.ids import parse_id
from manager.graphql.users import User
from manager.paging import Order, PageRequest, SortKey


@strawberry.type(description="A group of users that owns folders together.")
class Project(Node):
    """A group of users that owns folders together; holds its row."""

    row: strawberry.Private[models.Project]

    name: str = column("name", "The project's name.")
    type: ProjectType = column("type", "Whether its folders are a store of models for everybody.")
    created_at: datetime = column("created_at", "When it was created.")


@strawberry.input(description="A new project.")
class CreateProjectInput:
    """A new project."""

    name: str = strawberry.field(description="Its name; not that of another project.")
    type: ProjectType = strawberry.field(
        default=ProjectType.GENERAL,
        description="MODEL_STORE lets everybody read its folders, GENERAL its members alone.",
    )


@strawberry.type(description="The new project.")
class CreateProjectPayload:
    """The new project."""

    project: Project = strawberry.field(description="The project.")


@strawberry.input(description="Which project.")
class DeleteProjectInput:
    """Which project."""

    project_id: strawberry.ID = strawberry.field(description="The project's id; it owns no folders any more.")


@strawberry.type(description="The project that was deleted.")
class DeleteProjectPayload:
    """The project that was deleted."""

    id: strawberry.ID = strawberry.field(description="The project's id.")


@strawberry.input(description="Who becomes a member of what.")
class AddProjectMemberInput:
    """Who becomes a member of what."""

    project_id: strawberry.ID = strawberry.field(description="The project's id.")
    user_id: strawberry.ID = strawberry.field(description="The user's id.")


@strawberry.type(description="The project with its new member.")
class AddProjectMemberPayload:
    """The project with its new member."""

    project: Project = strawberry.field(description="The project.")


@strawberry.input(description="Who is a member of what no more.")
class RemoveProjectMemberInput:
    """Who is a member of what no more."""

    project_id: strawberry.ID = strawberry.field(description="The project's id.")
    user_id: strawberry.ID = strawberry.field(description="The user's id.")


@strawberry.type(description="The project without that member.")
class RemoveProjectMemberPayload:
    """The project without that member."""

    project: Project = strawberry.field(description="The project.")


@strawberry.type
class ProjectQuery:
    """The queries about projects."""

    @listed("The projects of which the caller is a member, or for administrators all; by name.")
    async def projects(
        self,
        info: Info,
        request: PageRequest,
        *,
        search: Annotated[
            str | None, strawberry.argument(description="Only names that hold this text, in any case.")
        ] = strawberry.UNSET,
    ) -> Connection[Project] | None:
        """Load one page of the projects."""
        statement = visible_projects(info.context.caller)
        if search:
            statement = statement.where(models.Project.name.icontains(search, autoescape=True))
        order = Order.by([SortKey("name", models.Project.name)], models.Project.id)
        return await connect(info, statement, order, request, lambda row: Project(row=row[0]))

    @listed("The members of a project of the caller's, or for administrators of any; by address.")
    async def project_members(
        self,
        info: Info,
        request: PageRequest,
        *,
        project_id: Annotated[strawberry.ID, strawberry.argument(description="The project's id.")],
    ) -> Connection[User] | None:
        """Load one page of the members; a project that the caller may not see has none."""
        key = parse_id(project_id, "Project", field="projectId")
        seen = visible_projects(info.context.caller).where(models.Project.id == key)
        member = exists().where(
            models.ProjectMember.project_id == key, models.ProjectMember.user_id == models.User.id
        )
        statement = select(models.User).where(member, seen.exists())
        order = Order.by([SortKey("email", models.User.email)], models.User.id)
        return await connect(info, statement, order, request, lambda row: User(row=row[0]))


@strawberry.type
class ProjectMutation:
    """The mutations of projects."""

    @mutation("Create a project. For administrators.")
    async def create_project(
        self,
        info: Info,
        asked: Annotated[CreateProjectInput, strawberry.argument(name="input", description="The project.")],
    ) -> CreateProjectPayload:
        """Create a project."""
        context = info.context
        row = await context.services.projects.create(context.caller, asked.name, asked.type)
        return CreateProjectPayload(project=Project(row=row))

    @mutation("Delete a project that owns no folders any more. For administrators.")
    async def delete_project(
        self,
        info: Info,
        asked: Annotated[DeleteProjectInput, strawberry.argument(name="input", description="Which project.")],
    ) -> DeleteProjectPayload:
        """Delete a project."""
        context = info.context
        project_id = parse_id(asked.project_id, "Project", field="input.projectId")
        await context.services.projects.delete(context.caller, project_id)
        return DeleteProjectPayload(id=asked.project_id)

    @mutation("Make a user a member of a project. For administrators; may be repeated.")
    async def add_project_member(
        self,
        info: Info,
        asked: Annotated[
            AddProjectMemberInput, strawberry.argument(name="input", description="Who and what.")
        ],
    ) -> AddProjectMemberPayload:
        """Add a member."""
        context = info.context
        row = await context.services.projects.add_member(
            context.caller,
            parse_id(asked.project_id, "Project", field="input.projectId"),
            parse_id(asked.user_id, "User", field="input.userId"),
        )
        return AddProjectMemberPayload(project=Project(row=row))

    @mutation(
        "End a membership, and what the user was permitted on the project's folders beyond it. For administrators."
    )
    async def remove_project_member(
        self,
        info: Info,
        asked: Annotated[
            RemoveProjectMemberInput, strawberry.argument(name="input", description="Who and what.")
        ],
    ) -> RemoveProjectMemberPayload:
        """Remove a member."""
        context = info.context
        row = await context.services.projects.remove_member(
            context.caller,
            parse_id(asked.project_id, "Project", field="input.projectId"),
            parse_id(asked.user_id, "User", field="input.userId"),
        )
        return RemoveProjectMemberPayload(project=Project(row=row))
