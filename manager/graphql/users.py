"""Users and their tokens."""

from datetime import datetime
from typing import Annotated

import strawberry
from sqlalchemy import func, or_, select

from manager import models
from manager.access import require_admin, visible_tokens
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.enums import UserPermission, UserRole, UserStatus
from manager.graphql.fields import Node, column, field, mutation
from manager.graphql.ids import parse_id
from manager.graphql.loaders import kept
from manager.paging import Order, PageRequest, SortKey
from proxy_client.errors import Unauthenticated


@strawberry.type(description="A person or program that calls Stowage.")
class User(Node):
    """A person or program that calls Stowage; holds its row."""

    row: strawberry.Private[models.User]

    email: str = column("email", "The address that it is known by.")
    role: UserRole = column("role", "What it may do beyond its own folders.")
    status: UserStatus = column("status", "Whether its tokens are accepted.")
    created_at: datetime = column("created_at", "When it was created.")

    @field("What it may do beyond its role; null for anybody but oneself and administrators.")
    async def permissions(self, info: Info) -> list[UserPermission] | None:
        """Load what was granted."""
        caller = info.context.caller
        if not caller.is_admin and caller.user_id != self.row.id:
            return None
        granted = await info.context.loaders.user_permissions.load(self.row.id)
        return [each for each in UserPermission if each.row_value in granted]


@strawberry.type(description="A token of a user's, without its value, which nobody can read again.")
class Token(Node):
    """A token of a user's; holds its row."""

    row: strawberry.Private[models.ApiToken]

    name: str = column("name", "What it is for.")
    created_at: datetime = column("created_at", "When it was created.")
    expires_at: datetime | None = column("expires_at", "When it ends to be accepted; never where null.")
    revoked_at: datetime | None = column("revoked_at", "When it was revoked; null if it was not.")

    @field("Whose it is.")
    async def user(self, info: Info) -> User:
        """Load the user."""
        return User(row=kept(await info.context.loaders.users.load(self.row.user_id)))


@strawberry.input(description="A new user.")
class CreateUserInput:
    """A new user."""

    email: str = strawberry.field(description="The address that it is known by; not yet taken.")
    role: UserRole = strawberry.field(
        default=UserRole.USER, description="What it may do beyond its own folders."
    )


@strawberry.type(description="The new user.")
class CreateUserPayload:
    """The new user."""

    user: User = strawberry.field(description="The user.")


@strawberry.input(description="Which user, and what becomes of it.")
class SetUserStatusInput:
    """Which user, and what becomes of it."""

    user_id: strawberry.ID = strawberry.field(description="The user's id.")
    status: UserStatus = strawberry.field(
        description="INACTIVE refuses its tokens from now on, ACTIVE accepts those that were not revoked again."
    )


@strawberry.type(description="The user as it is now.")
class SetUserStatusPayload:
    """The user as it is now."""

    user: User = strawberry.field(description="The user.")


@strawberry.input(description="Which user, and what becomes of it.")
class SetUserRoleInput:
    """Which user, and what becomes of it."""

    user_id: strawberry.ID = strawberry.field(description="The user's id.")
    role: UserRole = strawberry.field(description="What it may do beyond its own folders from now on.")


@strawberry.type(description="The user as it is now.")
class SetUserRolePayload:
    """The user as it is now."""

    user: User = strawberry.field(description="The user.")


@strawberry.input(description="Which user, and which permission.")
class GrantUserPermissionInput:
    """Which user, and which permission."""

    user_id: strawberry.ID = strawberry.field(description="The user's id.")
    permission: UserPermission = strawberry.field(description="What it may do from now on.")


@strawberry.type(description="The user as it is now.")
class GrantUserPermissionPayload:
    """The user as it is now."""

    user: User = strawberry.field(description="The user.")


@strawberry.input(description="Which user, and which permission.")
class RevokeUserPermissionInput:
    """Which user, and which permission."""

    user_id: strawberry.ID = strawberry.field(description="The user's id.")
    permission: UserPermission = strawberry.field(description="What it may do no more.")


@strawberry.type(description="The user as it is now.")
class RevokeUserPermissionPayload:
    """The user as it is now."""

    user: User = strawberry.field(description="The user.")


@strawberry.input(description="A new token.")
class CreateTokenInput:
    """A new token."""

    user_id: strawberry.ID | None = strawberry.field(
        default=None, description="Whose token; one's own without it. Others' only for administrators."
    )
    name: str = strawberry.field(description="What it is for, so that it can be told from others.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends to be accepted; never without it."
    )


@strawberry.type(description="The new token.")
class CreateTokenPayload:
    """The new token."""

    id: strawberry.ID = strawberry.field(description="The token's id, for revokeToken.")
    token: str = strawberry.field(description="The token itself. It is shown this once and kept nowhere.")


@strawberry.input(description="Which token is replaced.")
class RotateTokenInput:
    """Which token is replaced."""

    id: strawberry.ID = strawberry.field(description="The id of the token that is replaced.")
    expires_at: datetime | None = strawberry.field(
        default=None,
        description="When the new one ends to be accepted; without it, it lives as long as the old one was to live.",
    )
    keep_until: datetime | None = strawberry.field(
        default=None,
        description="Until when the old one is accepted beside the new one; without it, it is refused at once.",
    )


@strawberry.type(description="The token that takes the place of another one.")
class RotateTokenPayload:
    """The token that takes the place of another one."""

    id: strawberry.ID = strawberry.field(description="The new token's id.")
    token: str = strawberry.field(description="The token itself. It is shown this once and kept nowhere.")


@strawberry.input(description="Which token, and its end.")
class SetTokenExpiryInput:
    """Which token, and its end."""

    id: strawberry.ID = strawberry.field(description="The token's id.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends to be accepted; never without it."
    )


@strawberry.type(description="The token as it is now.")
class SetTokenExpiryPayload:
    """The token as it is now."""

    token: Token = strawberry.field(description="The token.")


@strawberry.input(description="Which token.")
class RevokeTokenInput:
    """Which token."""

    id: strawberry.ID = strawberry.field(description="The id that createToken answered.")


@strawberry.type(description="The token that is no longer accepted.")
class RevokeTokenPayload:
    """The token that is no longer accepted."""

    id: strawberry.ID = strawberry.field(description="The token's id.")


@strawberry.type
class UserQuery:
    """The queries about users."""

    @field("The user whose token was sent.")
    async def me(self, info: Info) -> User:
        """Load the caller."""
        row = await info.context.loaders.users.load(info.context.caller.user_id)
        if row is None:
            raise Unauthenticated("the token's user is gone; use another token")
        return User(row=row)

    @listed("All users, by address. For administrators.")
    async def users(
        self,
        info: Info,
        request: PageRequest,
        *,
        search: Annotated[
            str | None, strawberry.argument(description="Only addresses that hold this text, in any case.")
        ] = strawberry.UNSET,
    ) -> Connection[User] | None:
        """Load one page of the users."""
        await require_admin(info.context.caller)
        statement = select(models.User)
        if search:
            statement = statement.where(models.User.email.icontains(search, autoescape=True))
        order = Order.by([SortKey("email", models.User.email)], models.User.id)
        return await connect(info, statement, order, request, lambda row: User(row=row[0]))

    @listed("The caller's tokens, or for administrators anybody's; newest first.")
    async def tokens(
        self,
        info: Info,
        request: PageRequest,
        *,
        user_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Whose; the caller's own without it.")
        ] = strawberry.UNSET,
        active_only: Annotated[
            bool | None,
            strawberry.argument(description="Only those that are neither revoked nor expired."),
        ] = strawberry.UNSET,
    ) -> Connection[Token] | None:
        """Load one page of the tokens."""
        owner = parse_id(user_id, "User", field="userId") if isinstance(user_id, str) else None
        token = models.ApiToken
        statement = visible_tokens(info.context.caller, owner)
        if active_only:
            statement = statement.where(
                token.revoked_at.is_(None), or_(token.expires_at.is_(None), token.expires_at > func.now())
            )
        order = Order.by([SortKey("created_at", token.created_at, descending=True)], token.id)
        return await connect(info, statement, order, request, lambda row: Token(row=row[0]))


@strawberry.type
class UserMutation:
    """The mutations of users."""

    @mutation("Create a user. For administrators.")
    async def create_user(
        self,
        info: Info,
        asked: Annotated[CreateUserInput, strawberry.argument(name="input", description="The user.")],
    ) -> CreateUserPayload:
        """Create a user."""
        context = info.context
        row = await context.services.users.create_user(context.caller, asked.email, asked.role)
        return CreateUserPayload(user=User(row=row))

    @mutation("Let a user in or keep it out. For administrators; one of them stays active.")
    async def set_user_status(
        self,
        info: Info,
        asked: Annotated[SetUserStatusInput, strawberry.argument(name="input", description="Which user.")],
    ) -> SetUserStatusPayload:
        """Set a user's status."""
        context = info.context
        user_id = parse_id(asked.user_id, "User", field="input.userId")
        row = await context.services.users.set_user_status(context.caller, user_id, asked.status)
        return SetUserStatusPayload(user=User(row=row))

    @mutation(
        "Make a user an administrator, or an administrator a user. For administrators; one active one stays."
    )
    async def set_user_role(
        self,
        info: Info,
        asked: Annotated[SetUserRoleInput, strawberry.argument(name="input", description="Which user.")],
    ) -> SetUserRolePayload:
        """Set a user's role."""
        context = info.context
        user_id = parse_id(asked.user_id, "User", field="input.userId")
        row = await context.services.users.set_user_role(context.caller, user_id, asked.role)
        return SetUserRolePayload(user=User(row=row))

    @mutation("Permit a user something beyond its role. For administrators.")
    async def grant_user_permission(
        self,
        info: Info,
        asked: Annotated[
            GrantUserPermissionInput, strawberry.argument(name="input", description="Which user.")
        ],
    ) -> GrantUserPermissionPayload:
        """Grant a permission."""
        context = info.context
        user_id = parse_id(asked.user_id, "User", field="input.userId")
        row = await context.services.users.grant(context.caller, user_id, asked.permission.row_value)
        return GrantUserPermissionPayload(user=User(row=row))

    @mutation("Take back what a user was permitted beyond its role. For administrators.")
    async def revoke_user_permission(
        self,
        info: Info,
        asked: Annotated[
            RevokeUserPermissionInput, strawberry.argument(name="input", description="Which user.")
        ],
    ) -> RevokeUserPermissionPayload:
        """Revoke a permission."""
        context = info.context
        user_id = parse_id(asked.user_id, "User", field="input.userId")
        row = await context.services.users.revoke(context.caller, user_id, asked.permission.row_value)
        return RevokeUserPermissionPayload(user=User(row=row))

    @mutation("Create a token: one's own, or for administrators anybody's.")
    async def create_token(
        self,
        info: Info,
        asked: Annotated[CreateTokenInput, strawberry.argument(name="input", description="The token.")],
    ) -> CreateTokenPayload:
        """Create a token."""
        context = info.context
        user_id = None if asked.user_id is None else parse_id(asked.user_id, "User", field="input.userId")
        token_id, token = await context.services.users.create_token(
            context.caller, user_id, asked.name, asked.expires_at
        )
        return CreateTokenPayload(id=strawberry.ID(str(token_id)), token=token)

    @mutation("Replace a token by a new one: one's own, or for administrators anybody's.")
    async def rotate_token(
        self,
        info: Info,
        asked: Annotated[RotateTokenInput, strawberry.argument(name="input", description="Which token.")],
    ) -> RotateTokenPayload:
        """Replace a token."""
        context = info.context
        made, token = await context.services.users.rotate_token(
            context.caller,
            parse_id(asked.id, "Token", field="input.id"),
            expires_at=asked.expires_at,
            keep_until=asked.keep_until,
        )
        return RotateTokenPayload(id=strawberry.ID(str(made)), token=token)

    @mutation("Let a token that is accepted end at another time: one's own, or for administrators anybody's.")
    async def set_token_expiry(
        self,
        info: Info,
        asked: Annotated[SetTokenExpiryInput, strawberry.argument(name="input", description="Which token.")],
    ) -> SetTokenExpiryPayload:
        """Set a token's end."""
        context = info.context
        token_id = parse_id(asked.id, "Token", field="input.id")
        row = await context.services.users.set_token_expiry(context.caller, token_id, asked.expires_at)
        return SetTokenExpiryPayload(token=Token(row=row))

    @mutation("Revoke a token: one's own, or for administrators anybody's.")
    async def revoke_token(
        self,
        info: Info,
        asked: Annotated[RevokeTokenInput, strawberry.argument(name="input", description="Which token.")],
    ) -> RevokeTokenPayload:
        """Revoke a token; once revoked it stays so."""
        context = info.context
        token_id = parse_id(asked.id, "Token", field="input.id")
        await context.services.users.revoke_token(context.caller, token_id)
        return RevokeTokenPayload(id=asked.id)
