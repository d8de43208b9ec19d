"""Projects: users who own folders together."""

import re
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.models import (
    HostPermission,
    Project,
    ProjectMember,
    ProjectType,
    Quota,
    User,
    VFolder,
    VFolderGrant,
    VFolderInvitation,
    VFolderInvitationState,
    VFolderStatus,
    utc_now,
)
from proxy_client.errors import BadRequest, Conflict, NotFound

# As a folder's name is, but a space may stand inside.
_NAME = re.compile(r"(?! )(?!.* $)[\w. -]{1,64}")


class Projects:
    """Makes and ends projects and memberships; only administrators may."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, caller: Caller, name: str, kind: ProjectType) -> Project:
        """Make a project without members. Raises `Conflict` where there is one of that name."""
        await require_admin(caller)
        if _NAME.fullmatch(name) is None:
            raise BadRequest(
                "a project's name has 1 to 64 letters, digits, dots, hyphens, underscores or spaces, and no space "
                "at its ends; choose another one",
                field="input.name",
            )
        async with self._database.begin() as session:
            project: Project | None = await session.scalar(
                insert(Project)
                .values(id=uuid4(), name=name, type=kind)
                .on_conflict_do_nothing(
                    index_elements=[Project.name], index_where=Project.deleted_at.is_(None)
                )
                .returning(Project)
            )
            if project is None:
                raise Conflict(f"there is a project {name} already; choose another name", field="input.name")
            audit(session, caller, "project.create", str(project.id), {"name": name, "type": kind})
        return project

    async def delete(self, caller: Caller, project_id: UUID) -> Project:
        """End a project with its memberships, its permissions on hosts and its quotas.

        Raises `NotFound`, and `Conflict` for one that owns folders: those are to be deleted first.
        """
        await require_admin(caller)
        async with self._database.begin() as session:
            project = await _locked(session, project_id, whole=True)
            # After the lock was granted: a folder that was made meanwhile is seen.
            folders = await session.scalar(
                select(func.count()).where(
                    VFolder.project_id == project_id, VFolder.status != VFolderStatus.DELETE_COMPLETE
                )
            )
            if folders:
                raise Conflict(
                    f"the project owns {folders} folder{'s' if folders > 1 else ''}; delete what it owns first",
                    field="input.projectId",
                )
            for table in (ProjectMember, HostPermission, Quota):
                await session.execute(delete(table).where(table.project_id == project_id))
            project.deleted_at = utc_now()
            audit(session, caller, "project.delete", str(project_id), {"name": project.name})
        return project

    async def add_member(self, caller: Caller, project_id: UUID, user_id: UUID) -> Project:
        """Make a user a member; may be repeated."""
        await require_admin(caller)
        async with self._database.begin() as session:
            project = await _locked(session, project_id)
            user = await session.get(User, user_id)
            if user is None:
                raise NotFound("there is no such user; check the id", field="input.userId")
            added = await session.scalar(
                insert(ProjectMember)
                .values(project_id=project_id, user_id=user_id)
                .on_conflict_do_nothing()
                .returning(ProjectMember.user_id)
            )
            if added is not None:
                details = {"user": str(user_id), "email": user.email}
                audit(session, caller, "project.add-member", str(project_id), details)
        return project

    async def remove_member(self, caller: Caller, project_id: UUID, user_id: UUID) -> Project:
        """End a membership, and what the user was permitted on the project's folders beyond it; may be repeated."""
        await require_admin(caller)
        async with self._database.begin() as session:
            project = await _locked(session, project_id)
            removed = await session.scalar(
                delete(ProjectMember)
                .where(ProjectMember.project_id == project_id, ProjectMember.user_id == user_id)
                .returning(ProjectMember.user_id)
            )
            if removed is not None:
                folders = select(VFolder.id).where(VFolder.project_id == project_id)
                await session.execute(
                    delete(VFolderGrant)
                    .where(VFolderGrant.user_id == user_id, VFolderGrant.vfolder_id.in_(folders))
                    .execution_options(synchronize_session=False)
                )
                address = select(User.email).where(User.id == user_id).scalar_subquery()
                await session.execute(
                    update(VFolderInvitation)
                    .where(
                        VFolderInvitation.email == address,
                        VFolderInvitation.vfolder_id.in_(folders),
                        VFolderInvitation.state == VFolderInvitationState.ACCEPTED,
                    )
                    .values(state=VFolderInvitationState.REVOKED)
                    .execution_options(synchronize_session=False)
                )
                audit(session, caller, "project.remove-member", str(project_id), {"user": str(user_id)})
        return project


async def _locked(session: AsyncSession, project_id: UUID, *, whole: bool = False) -> Project:
    """Keep the project from being deleted, or with `whole` from being given anything new."""
    wanted = select(Project).where(Project.id == project_id, Project.deleted_at.is_(None))
    wanted = wanted.with_for_update() if whole else wanted.with_for_update(read=True, key_share=True)
    if (project := await session.scalar(wanted)) is None:
        raise NotFound("there is no such project; check the id", field="input.projectId")
    return project
