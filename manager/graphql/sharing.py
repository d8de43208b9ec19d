"""Sharing folders: invitations, and who uses a folder."""

from datetime import datetime
from typing import Annotated

import strawberry

from manager import models
from manager.access import visible_invitations, visible_shares
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.enums import VFolderInvitationState, VFolderPermission
from manager.graphql.fields import Node, column, field, mutation
from manager.graphql.ids import parse_id
from manager.graphql.loaders import kept
from manager.graphql.users import User
from manager.graphql.vfolders import VFolder
from manager.paging import Order, PageRequest, SortKey


@strawberry.type(name="VFolderInvitation", description="An offer to use somebody else's folder.")
class VFolderInvitation(Node):
    """An offer to use somebody else's folder; holds its row."""

    row: strawberry.Private[models.VFolderInvitation]

    email: str = column("email", "The address of whom it is for.")
    permission: VFolderPermission = column("permission", "What whoever accepts may do with the files.")
    state: VFolderInvitationState = column("state", "Where it stands; only a PENDING one can be answered.")
    created_at: datetime = column("created_at", "When it was sent.")
    answered_at: datetime | None = column("answered_at", "When its state last changed; null while PENDING.")

    @field("Who sent it.")
    async def inviter(self, info: Info) -> User:
        """Load the user."""
        return User(row=kept(await info.context.loaders.users.load(self.row.inviter_id)))

    @field("The name of the folder, also for those who may not see the folder yet.")
    async def vfolder_name(self, info: Info) -> str:
        """Load the folder's name."""
        seen = await info.context.loaders.task_vfolders.load(self.row.vfolder_id)
        return seen.row.name

    @field("The folder; null for those who may not see it, or not yet.")
    async def vfolder(self, info: Info) -> VFolder | None:
        """Load the folder."""
        seen = await info.context.loaders.vfolders.load(self.row.vfolder_id)
        return VFolder.of(seen) if seen else None


@strawberry.type(
    name="VFolderShare", description="What somebody may do with a folder beside its owner or project."
)
class VFolderShare:
    """What somebody may do with a folder beside its owner or project."""

    user: User = strawberry.field(description="Who.")
    permission: VFolderPermission = strawberry.field(
        description="What the user may do with the files; for a member it takes the place of the project's."
    )


@strawberry.input(name="InviteToVFolderInput", description="Who is invited to what.")
class InviteToVFolderInput:
    """Who is invited to what."""

    vfolder_id: strawberry.ID = strawberry.field(description="The folder's id.")
    email: str = strawberry.field(description="The address; whoever has it, now or later, may accept.")
    permission: VFolderPermission = strawberry.field(
        default=VFolderPermission.READ_ONLY,
        description="What may be done with the files; RW_DELETE lets delete the folder too.",
    )


@strawberry.type(name="InviteToVFolderPayload", description="The invitation that was sent.")
class InviteToVFolderPayload:
    """The invitation that was sent."""

    invitation: VFolderInvitation = strawberry.field(description="The invitation.")


@strawberry.input(name="AcceptVFolderInvitationInput", description="Which invitation.")
class AcceptVFolderInvitationInput:
    """Which invitation."""

    id: strawberry.ID = strawberry.field(description="The invitation's id.")


@strawberry.type(name="AcceptVFolderInvitationPayload", description="The invitation that was accepted.")
class AcceptVFolderInvitationPayload:
    """The invitation that was accepted."""

    invitation: VFolderInvitation = strawberry.field(description="The invitation, with its folder.")


@strawberry.input(name="RejectVFolderInvitationInput", description="Which invitation.")
class RejectVFolderInvitationInput:
    """Which invitation."""

    id: strawberry.ID = strawberry.field(description="The invitation's id.")


@strawberry.type(name="RejectVFolderInvitationPayload", description="The invitation that was rejected.")
class RejectVFolderInvitationPayload:
    """The invitation that was rejected."""

    invitation: VFolderInvitation = strawberry.field(description="The invitation.")


@strawberry.input(name="RevokeVFolderShareInput", description="From whom which folder is taken back.")
class RevokeVFolderShareInput:
    """From whom which folder is taken back."""

    vfolder_id: strawberry.ID = strawberry.field(description="The folder's id.")
    email: str = strawberry.field(description="The address that was invited.")


@strawberry.type(name="RevokeVFolderSharePayload", description="The folder that was taken back.")
class RevokeVFolderSharePayload:
    """The folder that was taken back."""

    vfolder: VFolder = strawberry.field(description="The folder.")


@strawberry.input(name="LeaveVFolderInput", description="Which folder.")
class LeaveVFolderInput:
    """Which folder."""

    vfolder_id: strawberry.ID = strawberry.field(description="The folder's id.")


@strawberry.type(name="LeaveVFolderPayload", description="The folder that was left.")
class LeaveVFolderPayload:
    """The folder that was left."""

    id: strawberry.ID = strawberry.field(description="The folder's id.")


@strawberry.input(name="SetVFolderPermissionInput", description="Who may do what with which folder.")
class SetVFolderPermissionInput:
    """Who may do what with which folder."""

    vfolder_id: strawberry.ID = strawberry.field(description="The folder's id.")
    user_id: strawberry.ID = strawberry.field(
        description="The user's id: with whom the folder is shared, or a member of the project that owns it."
    )
    permission: VFolderPermission = strawberry.field(description="What the user may do from now on.")


@strawberry.type(name="SetVFolderPermissionPayload", description="Who may do what now.")
class SetVFolderPermissionPayload:
    """Who may do what now."""

    share: VFolderShare = strawberry.field(description="The user and the permission.")


@strawberry.type
class SharingQuery:
    """The queries about sharing."""

    @listed("The invitations to the caller, and those to folders that the caller may share; newest first.")
    async def vfolder_invitations(
        self,
        info: Info,
        request: PageRequest,
        *,
        received: Annotated[
            bool | None,
            strawberry.argument(description="True: only those to the caller; false: only others."),
        ] = strawberry.UNSET,
        vfolder_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only those to this folder.")
        ] = strawberry.UNSET,
        state: Annotated[
            list[VFolderInvitationState] | None,
            strawberry.argument(description="Only those that stand there."),
        ] = strawberry.UNSET,
    ) -> Connection[VFolderInvitation] | None:
        """Load one page of the invitations."""
        caller, invitation = info.context.caller, models.VFolderInvitation
        statement = visible_invitations(caller)
        if isinstance(received, bool):
            mine = invitation.email == caller.email
            statement = statement.where(mine if received else ~mine)
        if isinstance(vfolder_id, str):
            key = parse_id(vfolder_id, "VFolder", field="vfolderId")
            statement = statement.where(invitation.vfolder_id == key)
        if isinstance(state, list):
            statement = statement.where(invitation.state.in_(set(state)))
        order = Order.by([SortKey("created_at", invitation.created_at, descending=True)], invitation.id)
        return await connect(info, statement, order, request, lambda row: VFolderInvitation(row=row[0]))

    @listed(
        "Who uses a folder beside its owner and its project, for those who may share it; others see themselves."
    )
    async def vfolder_shares(
        self,
        info: Info,
        request: PageRequest,
        *,
        vfolder_id: Annotated[strawberry.ID, strawberry.argument(description="The folder's id.")],
    ) -> Connection[VFolderShare] | None:
        """Load one page of those who use it."""
        key = parse_id(vfolder_id, "VFolder", field="vfolderId")
        statement = visible_shares(info.context.caller, key)
        order = Order.by([SortKey("email", models.User.email)], models.User.id)
        return await connect(
            info,
            statement,
            order,
            request,
            lambda row: VFolderShare(user=User(row=row[0]), permission=row[1]),
        )


@strawberry.type
class SharingMutation:
    """The mutations of sharing."""

    @mutation(
        "Invite somebody to a folder of one's own. The answer is the same whether or not there is such a user."
    )
    async def invite_to_vfolder(
        self,
        info: Info,
        asked: Annotated[
            InviteToVFolderInput, strawberry.argument(name="input", description="Who and what.")
        ],
    ) -> InviteToVFolderPayload:
        """Send an invitation."""
        context = info.context
        vfolder_id = parse_id(asked.vfolder_id, "VFolder", field="input.vfolderId")
        row = await context.services.sharing.invite(context.caller, vfolder_id, asked.email, asked.permission)
        return InviteToVFolderPayload(invitation=VFolderInvitation(row=row))

    @mutation("Accept an invitation: the folder can be used from now on.")
    async def accept_vfolder_invitation(
        self,
        info: Info,
        asked: Annotated[
            AcceptVFolderInvitationInput, strawberry.argument(name="input", description="Which invitation.")
        ],
    ) -> AcceptVFolderInvitationPayload:
        """Accept an invitation."""
        context = info.context
        key = parse_id(asked.id, "VFolderInvitation", field="input.id")
        row = await context.services.sharing.accept(context.caller, key)
        return AcceptVFolderInvitationPayload(invitation=VFolderInvitation(row=row))

    @mutation("Reject an invitation.")
    async def reject_vfolder_invitation(
        self,
        info: Info,
        asked: Annotated[
            RejectVFolderInvitationInput, strawberry.argument(name="input", description="Which invitation.")
        ],
    ) -> RejectVFolderInvitationPayload:
        """Reject an invitation."""
        context = info.context
        key = parse_id(asked.id, "VFolderInvitation", field="input.id")
        row = await context.services.sharing.reject(context.caller, key)
        return RejectVFolderInvitationPayload(invitation=VFolderInvitation(row=row))

    @mutation("Take a folder back from somebody: the invitation that waits, and what was permitted.")
    async def revoke_vfolder_share(
        self,
        info: Info,
        asked: Annotated[
            RevokeVFolderShareInput, strawberry.argument(name="input", description="From whom and what.")
        ],
    ) -> RevokeVFolderSharePayload:
        """Take a folder back."""
        context = info.context
        vfolder_id = parse_id(asked.vfolder_id, "VFolder", field="input.vfolderId")
        await context.services.sharing.revoke(context.caller, vfolder_id, asked.email)
        context.forget()
        return RevokeVFolderSharePayload(
            vfolder=VFolder.of(kept(await context.loaders.vfolders.load(vfolder_id)))
        )

    @mutation("Give up a folder that somebody shared.")
    async def leave_vfolder(
        self,
        info: Info,
        asked: Annotated[LeaveVFolderInput, strawberry.argument(name="input", description="Which folder.")],
    ) -> LeaveVFolderPayload:
        """Leave a folder."""
        context = info.context
        vfolder_id = parse_id(asked.vfolder_id, "VFolder", field="input.vfolderId")
        await context.services.sharing.leave(context.caller, vfolder_id)
        return LeaveVFolderPayload(id=asked.vfolder_id)

    @mutation("Change what somebody may do who has the folder already, by an invitation or by its project.")
    async def set_vfolder_permission(
        self,
        info: Info,
        asked: Annotated[
            SetVFolderPermissionInput, strawberry.argument(name="input", description="Who and what.")
        ],
    ) -> SetVFolderPermissionPayload:
        """Set a permission."""
        context = info.context
        share = await context.services.sharing.set_permission(
            context.caller,
            parse_id(asked.vfolder_id, "VFolder", field="input.vfolderId"),
            parse_id(asked.user_id, "User", field="input.userId"),
            asked.permission,
        )
        return SetVFolderPermissionPayload(
            share=VFolderShare(user=User(row=share.user), permission=share.permission)
        )
