"""Users and their tokens."""

from datetime import datetime
from typing import Annotated

import strawberry

from manager import models
from manager.graphql.context import Info
from manager.graphql.enums import UserRole
from manager.graphql.fields import Node, column, field, mutation
from manager.graphql.ids import parse_id
from proxy_client.errors import Unauthenticated


@strawberry.type(description="A person or program that calls Stowage.")
class User(Node):
    """A person or program that calls Stowage; holds its row."""

    row: strawberry.Private[models.User]

    email: str = column("email", "The address that it is known by.")
    role: UserRole = column("role", "What it may do beyond its own folders.")


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
