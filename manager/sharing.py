"""Sharing folders: invitations, and what they leave behind when they are accepted."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, delete, exists, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from manager.access import NO_SUCH_VFOLDER, shareable_vfolder, visible_vfolders
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.models import (
    ProjectMember,
    User,
    UserStatus,
    VFolder,
    VFolderGrant,
    VFolderInvitation,
    VFolderInvitationState,
    VFolderPermission,
    utc_now,
)
from manager.users import check_email
from proxy_client.errors import Conflict, Forbidden, NotFound

_NO_SUCH_INVITATION = "there is no such invitation to you that waits for an answer; check its id"


@dataclass(frozen=True)
class Share:
    """What somebody other than the owner may do with a folder."""

    vfolder: VFolder
    user: User
    permission: VFolderPermission


class Sharing:
    """Lets others use a folder, and ends that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def invite(
        self, caller: Caller, vfolder_id: UUID, email: str, permission: VFolderPermission
    ) -> VFolderInvitation:
        """Offer a permission to an address; whoever has it, now or later, may accept.

        The answer is the same whether or not there is such a user. Raises what `shareable_vfolder` does,
        `BadRequest` for what is no address, and `Conflict` where an invitation waits or the folder is shared already.
        """
        address = check_email(email)
        async with self._database.begin() as session:
            folder = (await shareable_vfolder(session, caller, vfolder_id)).vfolder
            user = await session.scalar(select(User).where(User.email == address))
            if user is not None and user.id == folder.user_id:
                raise Conflict("the folder's owner has it already; invite somebody else", field="input.email")
            if user is not None and await session.get(VFolderGrant, (vfolder_id, user.id)) is not None:
                raise Conflict(
                    "the folder is shared with this address already; change the permission instead",
                    field="input.email",
                )
            invitation: VFolderInvitation | None = await session.scalar(
                insert(VFolderInvitation)
                .values(
                    id=uuid4(),
                    vfolder_id=vfolder_id,
                    email=address,
                    permission=permission,
                    inviter_id=caller.user_id,
                )
                .on_conflict_do_nothing(
                    index_elements=[VFolderInvitation.vfolder_id, VFolderInvitation.email],
                    # Not a parameter: PostgreSQL finds no partial index by one once it plans for all values.
                    index_where=text("state = 'PENDING'"),
                )
                .returning(VFolderInvitation)
            )
            if invitation is None:
                raise Conflict(
                    "an invitation of this address waits for an answer already; revoke it first",
                    field="input.email",
                )
            details = {"email": address, "permission": permission, "invitation": str(invitation.id)}
            audit(session, caller, "vfolder.invite", str(vfolder_id), details)
        return invitation

    async def accept(self, caller: Caller, invitation_id: UUID) -> VFolderInvitation:
        """Take what was offered: the caller has the permission from now on.

        Raises `NotFound` for an invitation that does not wait for this caller, and `Conflict` where who sent it may
        no longer do so.
        """
        async with self._database.begin() as session:
            invitation = await _waiting(session, caller, invitation_id)
            await _insist_on_inviter(session, caller, invitation)
            _answer(invitation, VFolderInvitationState.ACCEPTED)
            permission = insert(VFolderGrant).values(
                vfolder_id=invitation.vfolder_id,
                user_id=caller.user_id,
                permission=invitation.permission,
            )
            await session.execute(
                permission.on_conflict_do_update(
                    index_elements=[VFolderGrant.vfolder_id, VFolderGrant.user_id],
                    set_={"permission": permission.excluded.permission},
                )
            )
            details = {"invitation": str(invitation_id), "permission": invitation.permission}
            audit(session, caller, "vfolder.accept", str(invitation.vfolder_id), details)
        return invitation

    async def reject(self, caller: Caller, invitation_id: UUID) -> VFolderInvitation:
        """Turn down what was offered. Raises `NotFound` for an invitation that does not wait for this caller."""
        async with self._database.begin() as session:
            invitation = await _waiting(session, caller, invitation_id)
            _answer(invitation, VFolderInvitationState.REJECTED)
            details = {"invitation": str(invitation_id)}
            audit(session, caller, "vfolder.reject", str(invitation.vfolder_id), details)
        return invitation

    async def revoke(self, caller: Caller, vfolder_id: UUID, email: str) -> VFolder:
        """Take a folder back from an address: its invitation that waits, and what it was permitted.

        Raises what `shareable_vfolder` does, and `NotFound` where neither is there. Running imports of that user
        into the folder publish nothing any more.
        """
        address = check_email(email)
        async with self._database.begin() as session:
            folder = (await shareable_vfolder(session, caller, vfolder_id)).vfolder
            # Invitations first: one that is accepted at this moment leaves its permission before these end.
            invited = await _end_invitations(session, vfolder_id, address, VFolderInvitationState.REVOKED)
            guest = select(User.id).where(User.email == address).scalar_subquery()
            permitted = await _end_permission(session, vfolder_id, VFolderGrant.user_id == guest)
            if not invited and not permitted:
                raise NotFound("the folder is not shared with this address", field="input.email")
            audit(session, caller, "vfolder.revoke-share", str(vfolder_id), {"email": address})
        return folder

    async def leave(self, caller: Caller, vfolder_id: UUID) -> VFolder:
        """Give up what the caller was permitted on somebody else's folder.

        Raises `NotFound` for a folder that the caller may not see, and `Conflict` where nothing was shared: what one
        owns, or has by membership in its project, is not left this way.
        """
        async with self._database.begin() as session:
            folder: VFolder | None = await session.scalar(
                visible_vfolders(caller).where(VFolder.id == vfolder_id)
            )
            if folder is None:
                raise NotFound(NO_SUCH_VFOLDER, field="input.vfolderId")
            if not await _end_permission(session, vfolder_id, VFolderGrant.user_id == caller.user_id):
                raise Conflict(
                    "nobody shared this folder with you: you own it, or have it by a project or your role",
                    field="input.vfolderId",
                )
            await _end_invitations(session, vfolder_id, caller.email, VFolderInvitationState.LEFT)
            audit(session, caller, "vfolder.leave", str(vfolder_id))
        return folder

    async def set_permission(
        self, caller: Caller, vfolder_id: UUID, user_id: UUID, permission: VFolderPermission
    ) -> Share:
        """Change what somebody may do who has the folder already: a guest, or a member of the owning project.

        A member's own permission takes the place of the project's. Raises what `shareable_vfolder` does, and
        `NotFound` for a user who has the folder neither way: such a one is invited.
        """
        async with self._database.begin() as session:
            folder = (await shareable_vfolder(session, caller, vfolder_id)).vfolder
            grant = exists().where(VFolderGrant.vfolder_id == vfolder_id, VFolderGrant.user_id == User.id)
            member = exists().where(
                ProjectMember.project_id == folder.project_id, ProjectMember.user_id == User.id
            )
            user = await session.scalar(select(User).where(User.id == user_id, grant | member))
            if user is None:
                raise NotFound(
                    "the folder is not shared with this user; invite the user", field="input.userId"
                )
            values = insert(VFolderGrant).values(
                vfolder_id=vfolder_id, user_id=user_id, permission=permission
            )
            await session.execute(
                values.on_conflict_do_update(
                    index_elements=[VFolderGrant.vfolder_id, VFolderGrant.user_id],
                    set_={"permission": values.excluded.permission},
                )
            )
            details = {"user": str(user_id), "email": user.email, "permission": permission}
            audit(session, caller, "vfolder.set-permission", str(vfolder_id), details)
        return Share(folder, user, permission)


async def _waiting(session: AsyncSession, caller: Caller, invitation_id: UUID) -> VFolderInvitation:
    """Lock an invitation that waits for the caller's answer; its folder is not deleted meanwhile."""
    invitation = await session.scalar(
        select(VFolderInvitation)
        .join(VFolder, VFolder.id == VFolderInvitation.vfolder_id)
        .where(
            VFolderInvitation.id == invitation_id,
            VFolderInvitation.email == caller.email,
            VFolderInvitation.state == VFolderInvitationState.PENDING,
            VFolder.status.not_like("DELETE%"),
        )
        .with_for_update(of=VFolderInvitation)
    )
    if invitation is None:
        raise NotFound(_NO_SUCH_INVITATION, field="input.id")
    return invitation


async def _insist_on_inviter(session: AsyncSession, caller: Caller, invitation: VFolderInvitation) -> None:
    inviter = await session.get_one(User, invitation.inviter_id)
    sender = Caller(inviter.id, inviter.email, inviter.role, caller.request_id)
    refusal = Conflict(
        "who sent this invitation may no longer share the folder; ask its owner for a new one",
        field="input.id",
    )
    if inviter.status is not UserStatus.ACTIVE:
        raise refusal
    try:
        await shareable_vfolder(session, sender, invitation.vfolder_id)
    except (NotFound, Forbidden) as exc:
        raise refusal from exc


def _answer(invitation: VFolderInvitation, state: VFolderInvitationState) -> None:
    invitation.state = state
    invitation.answered_at = utc_now()


async def _end_invitations(
    session: AsyncSession, vfolder_id: UUID, address: str, state: VFolderInvitationState
) -> bool:
    ended = await session.scalars(
        update(VFolderInvitation)
        .where(
            VFolderInvitation.vfolder_id == vfolder_id,
            VFolderInvitation.email == address,
            VFolderInvitation.state.in_((VFolderInvitationState.PENDING, VFolderInvitationState.ACCEPTED)),
        )
        .values(state=state, answered_at=utc_now())
        .returning(VFolderInvitation.id)
        .execution_options(synchronize_session=False)
    )
    return bool(ended.all())


async def _end_permission(session: AsyncSession, vfolder_id: UUID, whose: ColumnElement[bool]) -> bool:
    ended = await session.scalars(
        delete(VFolderGrant)
        .where(VFolderGrant.vfolder_id == vfolder_id, whose)
        .returning(VFolderGrant.user_id)
        .execution_options(synchronize_session=False)
    )
    return bool(ended.all())
