"""Who may do what. Only this module makes a `WritableVFolder`, a `DeletableVFolder` or a `ShareableVFolder`.

Whatever writes to a vfolder, deletes one, or says who else may use it, takes one of them.
"""

import hmac
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    exists,
    literal,
    null,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import SQLCoreOperations

from manager.auth import Caller, bearer
from manager.db import Database
from manager.models import (
    ApiToken,
    ArtifactRevision,
    HostPermission,
    ImportTask,
    Project,
    ProjectMember,
    ProjectType,
    Quota,
    User,
    UserGrant,
    UserStatus,
    VerificationWaiver,
    VFolder,
    VFolderGrant,
    VFolderInvitation,
    VFolderPermission,
    VFolderStatus,
    utc_now,
)
from manager.settings import Settings
from proxy_client import wire
from proxy_client.errors import Conflict, Forbidden, NotFound, Unauthenticated

ARTIFACT_IMPORT = "artifact:import"
CREATE_VFOLDER = "create-vfolder"
DELETE_VFOLDER = "delete-vfolder"
DOWNLOAD_FILE = "download-file"
UPLOAD_FILE = "upload-file"

NO_SUCH_VFOLDER = "there is no such folder among yours; check its id"

_WRITING = (VFolderPermission.READ_WRITE, VFolderPermission.RW_DELETE)
_IN_USE = (VFolderStatus.READY, VFolderStatus.MOUNTED)
# Those whose deletion was begun may be asked for again.
_DELETABLE = (
    VFolderStatus.READY,
    VFolderStatus.ERROR,
    VFolderStatus.DELETE_PENDING,
    VFolderStatus.DELETE_ONGOING,
    VFolderStatus.DELETE_ERROR,
)


@dataclass(frozen=True)
class WritableVFolder:
    """A vfolder that the caller may write to now, and the permission that says so."""

    vfolder: VFolder
    permission: VFolderPermission

    @property
    def proxy(self) -> str:
        """The storage proxy that holds the folder."""
        return self.vfolder.host.partition(":")[0]

    @property
    def volume(self) -> str:
        """The folder's volume on that proxy."""
        return self.vfolder.host.partition(":")[2]


@dataclass(frozen=True)
class DeletableVFolder:
    """A vfolder that the caller may delete now, and the permission that says so.

    Its row is locked: until the transaction ends no import into it begins.
    """

    vfolder: VFolder
    permission: VFolderPermission


@dataclass(frozen=True)
class ShareableVFolder:
    """A vfolder of which the caller may say now who else uses it.

    Its row is locked: until the transaction ends it is not deleted.
    """

    vfolder: VFolder


# What the caller may see.


def visible_vfolders(caller: Caller) -> Select[VFolder, VFolderPermission]:
    """Select the folders that the caller may see, each with the caller's effective permission.

    The owner has RW_DELETE. A row of `VFolderGrant` (an accepted invitation, or a member's own permission)
    comes next, then membership in the owning project with READ_WRITE. Folders of a MODEL_STORE project are
    readable by everybody and writable by administrators; administrators see all others.
    """
    permission = _effective_permission(caller)
    there = type_coerce(permission, VFolderGrant.permission.type).label("permission")
    return select(VFolder, there).where(
        permission.is_not(None), VFolder.status != VFolderStatus.DELETE_COMPLETE
    )


def visible_tasks(caller: Caller) -> Select[ImportTask]:
    """Select the import tasks that the caller may see and cancel.

    They are those that the caller requested, those into folders that the caller owns (alone, or as a member
    of the owning project who may write there), and all for an administrator.
    """
    tasks = select(ImportTask)
    if caller.is_admin:
        return tasks
    owned = exists().where(
        VFolder.id == ImportTask.vfolder_id,
        or_(
            VFolder.user_id == caller.user_id,
            and_(_is_member(caller, VFolder.project_id), _effective_permission(caller).in_(_WRITING)),
        ),
    )
    return tasks.where(or_(ImportTask.requested_by_id == caller.user_id, owned))


def visible_tokens(caller: Caller, user_id: UUID | None) -> Select[ApiToken]:
    """Select a user's tokens, the caller's own where `user_id` is None.

    Raises `Forbidden` for somebody else's unless the caller is an administrator, whether or not there is such a user.
    """
    owner = user_id or caller.user_id
    if owner != caller.user_id and not caller.is_admin:
        raise Forbidden("only administrators see the tokens of others; leave out userId", field="userId")
    return select(ApiToken).where(ApiToken.user_id == owner)


def visible_invitations(caller: Caller) -> Select[VFolderInvitation]:
    """Select the invitations to folders that are there: those to the caller, and those that the caller may revoke."""
    return (
        select(VFolderInvitation)
        .join(VFolder, VFolder.id == VFolderInvitation.vfolder_id)
        .where(
            VFolder.status.not_like("DELETE%"),
            or_(VFolderInvitation.email == caller.email, _may_share(caller)),
        )
    )


def visible_shares(caller: Caller, vfolder_id: UUID) -> Select[User, VFolderPermission]:
    """Select who uses a folder beside its owner and its project, all for those who may share it, else the caller alone."""
    return (
        select(User, VFolderGrant.permission)
        .join(VFolderGrant, VFolderGrant.user_id == User.id)
        .join(VFolder, VFolder.id == VFolderGrant.vfolder_id)
        .where(
            VFolder.id == vfolder_id,
            VFolder.status.not_like("DELETE%"),
            or_(VFolderGrant.user_id == caller.user_id, _may_share(caller)),
        )
    )


def visible_projects(caller: Caller) -> Select[Project]:
    """Select the projects of which the caller is a member, and all for an administrator."""
    projects = select(Project).where(Project.deleted_at.is_(None))
    return projects if caller.is_admin else projects.where(_is_member(caller, Project.id))


def visible_quotas(caller: Caller) -> Select[Quota]:
    """Select the caller's own quotas, those of the caller's projects, and all for an administrator."""
    quotas = select(Quota)
    if caller.is_admin:
        return quotas
    return quotas.where(or_(Quota.user_id == caller.user_id, _is_member(caller, Quota.project_id)))


# What the caller may do.


async def require_admin(caller: Caller) -> None:
    """Raise `Forbidden` unless the caller is an administrator."""
    if not caller.is_admin:
        raise Forbidden("only administrators may do this; ask one")


async def may_import_to_artifact_storage(session: AsyncSession, caller: Caller) -> None:
    """Raise `Forbidden` unless the caller is an administrator or was granted `artifact:import`."""
    if caller.is_admin:
        return
    granted = select(
        exists().where(UserGrant.user_id == caller.user_id, UserGrant.permission == ARTIFACT_IMPORT)
    )
    if not await session.scalar(granted):
        raise Forbidden(
            "importing into the artifact storage needs the permission artifact:import; "
            "ask an administrator for it, or import into a folder of yours"
        )


async def writable_vfolder(
    session: AsyncSession,
    caller: Caller,
    vfolder_id: UUID,
    *,
    lock: bool = False,
    field: str = "input.vfolderId",
) -> WritableVFolder:
    """Prove, in one statement, that the caller may write to the folder now.

    With `lock` nobody deletes the folder until the transaction ends.

    Raises `NotFound` for a folder that is not there or that the caller may not see, `Forbidden` where the
    caller may only read, where the folder's path is not managed by Stowage, or where the host does not allow
    uploads, and `Conflict` for a folder whose status takes no files.
    """
    wanted = (
        visible_vfolders(caller)
        .add_columns(host_allows(caller, VFolder.host, UPLOAD_FILE))
        .where(VFolder.id == vfolder_id)
    )
    if lock:
        wanted = wanted.with_for_update(of=VFolder, read=True, key_share=True)
    found = (await session.execute(wanted)).one_or_none()
    if found is None:
        raise NotFound(NO_SUCH_VFOLDER, field=field)
    vfolder, permission, may_upload = found
    if permission not in _WRITING:
        raise Forbidden("you may only read this folder; ask its owner for write permission", field=field)
    if vfolder.unmanaged_path is not None:
        raise Forbidden("this folder's path is not managed by Stowage; choose another folder", field=field)
    if not may_upload:
        raise Forbidden(
            f"the host {vfolder.host} does not let you upload files; ask an administrator for upload-file",
            field=field,
        )
    if vfolder.status not in _IN_USE:
        raise Conflict(
            f"the folder is {vfolder.status} and takes no files; it must be READY or MOUNTED", field=field
        )
    return WritableVFolder(vfolder, permission)


async def deletable_vfolder(
    session: AsyncSession, caller: Caller, vfolder_id: UUID, *, field: str = "input.vfolderId"
) -> DeletableVFolder:
    """Prove that the caller may delete the folder now, and lock it, in two statements.

    Raises `NotFound` for a folder that is not there or that the caller may not see, `Forbidden` without
    RW_DELETE, where the folder's path is not managed by Stowage, or where the host does not allow it, and
    `Conflict` for a folder that is in use or into which an import is open.
    """
    found = (
        await session.execute(
            visible_vfolders(caller)
            .add_columns(host_allows(caller, VFolder.host, DELETE_VFOLDER))
            .where(VFolder.id == vfolder_id)
            .with_for_update(of=VFolder)
        )
    ).one_or_none()
    if found is None:
        raise NotFound(NO_SUCH_VFOLDER, field=field)
    vfolder, permission, may_delete = found
    if permission is not VFolderPermission.RW_DELETE:
        raise Forbidden("you may not delete this folder; ask its owner to do it", field=field)
    if vfolder.unmanaged_path is not None:
        raise Forbidden(
            "this folder's path is not managed by Stowage; whoever manages it can delete it", field=field
        )
    if not may_delete:
        raise Forbidden(
            f"the host {vfolder.host} does not let you delete folders; ask an administrator for delete-vfolder",
            field=field,
        )
    if vfolder.status not in _DELETABLE:
        raise Conflict(f"the folder is {vfolder.status}; delete it when it is READY again", field=field)
    # After the lock was granted: an import that began before is seen.
    imports = select(ImportTask.id).where(
        ImportTask.vfolder_id == vfolder_id, ImportTask.finished_at.is_(None)
    )
    if (task_id := await session.scalar(imports.limit(1))) is not None:
        raise Conflict(
            f"the import {task_id} into this folder is not finished; cancel it or wait, then delete the folder",
            field=field,
        )
    return DeletableVFolder(vfolder, permission)


async def shareable_vfolder(
    session: AsyncSession, caller: Caller, vfolder_id: UUID, *, field: str = "input.vfolderId"
) -> ShareableVFolder:
    """Prove, in one statement, that the caller may say who else uses the folder, and keep it from being deleted.

    Those are its owner, of a project's folder the members whose own permission is RW_DELETE, and administrators: not
    every member, and no guest. Raises `NotFound` for a folder that is not there or that the caller may not see,
    `Forbidden` for one of somebody else, and `Conflict` for one that is being deleted.
    """
    found = (
        await session.execute(
            visible_vfolders(caller)
            .add_columns(_may_share(caller))
            .where(VFolder.id == vfolder_id)
            .with_for_update(of=VFolder, read=True, key_share=True)
        )
    ).one_or_none()
    if found is None:
        raise NotFound(NO_SUCH_VFOLDER, field=field)
    vfolder, _permission, may_share = found
    if not may_share:
        raise Forbidden("this folder is not yours to share; ask its owner or an administrator", field=field)
    if vfolder.status.startswith("DELETE"):
        raise Conflict(f"the folder is {vfolder.status}; share another one", field=field)
    return ShareableVFolder(vfolder)


def host_allows(caller: Caller, host: SQLCoreOperations[str] | str, permission: str) -> ColumnElement[bool]:
    """Express whether a row for everybody, for the caller or for a project of the caller's gives `permission`."""
    return exists().where(
        HostPermission.host == host,
        HostPermission.permissions.contains([permission]),
        or_(
            and_(HostPermission.user_id.is_(None), HostPermission.project_id.is_(None)),
            and_(
                or_(HostPermission.user_id.is_(None), HostPermission.user_id == caller.user_id),
                or_(HostPermission.project_id.is_(None), _is_member(caller, HostPermission.project_id)),
            ),
        ),
    )


async def require_project_member(
    session: AsyncSession,
    caller: Caller,
    project_id: UUID,
    *,
    lock: bool = False,
    field: str = "input.projectId",
) -> Project:
    """Return the project if the caller is a member of it or an administrator; else raises `NotFound`.

    With `lock` nobody deletes the project until the transaction ends.
    """
    project = visible_projects(caller).where(Project.id == project_id)
    if lock:
        project = project.with_for_update(of=Project, read=True, key_share=True)
    if (found := await session.scalar(project)) is None:
        raise NotFound("there is no such project among yours", field=field)
    return found


# What a proxy asks.


async def authorize_import(
    database: Database, settings: Settings, task_id: UUID, authorization_header: str | None
) -> wire.Authorization:
    """Answer a proxy whether the import's requester may still write to its destination.

    Raises `Unauthenticated` for a secret of no proxy, and `NotFound` for a task of another one. An import that
    is finished here (cancelled, say, before its order was answered) is not allowed either.
    """
    shown = bearer(authorization_header).encode()
    # No early exit, so that the time tells nothing about which secret came close.
    proxies = {
        name
        for name, proxy in settings.storage_proxies.items()
        for secret in proxy.secrets
        if hmac.compare_digest(shown, secret.encode())
    }
    if not proxies:
        raise Unauthenticated("this secret belongs to no storage proxy")
    async with database.read() as session:
        found = (
            await session.execute(
                select(ImportTask, User)
                .join(User, User.id == ImportTask.requested_by_id)
                .where(ImportTask.id == task_id, ImportTask.proxy.in_(proxies))
            )
        ).one_or_none()
        if found is None:
            raise NotFound("there is no such import")
        task, user = found
        if task.finished_at is not None or task.cancel_requested_at is not None:
            reason = "the import was ended by the manager"
            return wire.Authorization(allowed=False, cancelled=True, reason=reason)
        if user.status is not UserStatus.ACTIVE:
            return wire.Authorization(allowed=False, reason="the requester is no longer active")
        caller = Caller(user.id, user.email, user.role, task.request_id)
        try:
            if task.vfolder_id is None:
                await may_import_to_artifact_storage(session, caller)
            else:
                await writable_vfolder(session, caller, task.vfolder_id)
        except (NotFound, Forbidden, Conflict) as refusal:
            return wire.Authorization(allowed=False, reason=refusal.message)
        waivers = await _waivers(session, task.artifact_revision_id)
        limit = await session.scalar(
            select(Quota.limit_bytes).where(
                Quota.proxy == task.proxy, Quota.storage_name == task.storage_name
            )
        )
    return wire.Authorization(allowed=True, waivers=waivers, limit_bytes=limit)


def waiver_in_force() -> ColumnElement[bool]:
    """Hold for the waivers that count now."""
    return and_(VerificationWaiver.revoked_at.is_(None), VerificationWaiver.expires_at > utc_now())


async def _waivers(session: AsyncSession, revision_id: UUID) -> list[wire.Waiver]:
    found = await session.scalars(
        select(VerificationWaiver)
        .join(ArtifactRevision, ArtifactRevision.artifact_id == VerificationWaiver.artifact_id)
        .where(ArtifactRevision.id == revision_id, waiver_in_force())
        .order_by(VerificationWaiver.created_at, VerificationWaiver.id)
    )
    return [wire.Waiver(id=row.id, verifier=row.verifier, rule=row.rule, file=row.file) for row in found]


def _is_member(
    caller: Caller, project_id: SQLCoreOperations[UUID] | SQLCoreOperations[UUID | None]
) -> ColumnElement[bool]:
    return exists().where(ProjectMember.project_id == project_id, ProjectMember.user_id == caller.user_id)


def _may_share(caller: Caller) -> ColumnElement[bool]:
    if caller.is_admin:
        return true()
    own = aliased(VFolderGrant)
    in_full = exists().where(
        own.vfolder_id == VFolder.id,
        own.user_id == caller.user_id,
        own.permission == VFolderPermission.RW_DELETE,
    )
    return or_(VFolder.user_id == caller.user_id, and_(_is_member(caller, VFolder.project_id), in_full))


def _effective_permission(caller: Caller) -> ColumnElement[VFolderPermission | None]:
    granted = (
        select(VFolderGrant.permission)
        .where(VFolderGrant.vfolder_id == VFolder.id, VFolderGrant.user_id == caller.user_id)
        .correlate(VFolder)
        .scalar_subquery()
    )
    in_model_store = exists().where(Project.id == VFolder.project_id, Project.type == ProjectType.MODEL_STORE)
    column = VFolderGrant.permission.type
    read_only = literal(VFolderPermission.READ_ONLY, column)
    read_write = literal(VFolderPermission.READ_WRITE, column)
    return case(
        (VFolder.user_id == caller.user_id, literal(VFolderPermission.RW_DELETE, column)),
        (granted.is_not(None), granted),
        (_is_member(caller, VFolder.project_id), read_write),
        (in_model_store, read_write if caller.is_admin else read_only),
        else_=read_only if caller.is_admin else null(),
    )
