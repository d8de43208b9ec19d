"""Users and their tokens."""

import re
from datetime import UTC, datetime
from uuid import UUID, uuid4

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller, new_token, token_hash
from manager.db import Database
from manager.models import ApiToken, User, UserRole, UserStatus, utc_now
from proxy_client.errors import BadRequest, Conflict, Forbidden, NotFound

# Deliberately loose: only the owner of an address can tell whether it works.
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,255}")
_TOKEN_NAME_LENGTH = 255


class Users:
    """Makes and ends users and tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_user(self, caller: Caller, email: str, role: UserRole) -> User:
        """Make a user; only administrators may. Addresses are kept in lower case."""
        await require_admin(caller)
        if _EMAIL.fullmatch(email) is None:
            raise BadRequest("this is not an e-mail address; write name@host", field="input.email")
        user_id = uuid4()
        async with self._database.begin() as session:
            made = (
                insert(User)
                .values(id=user_id, email=email.lower(), role=role)
                .on_conflict_do_nothing(index_elements=[User.email])
                .returning(User)
            )
            user: User | None = await session.scalar(made)
            if user is None:
                raise Conflict("there is a user with this address already", field="input.email")
            audit(session, caller, "user.create", str(user_id), {"email": user.email, "role": role})
        return user

    async def set_user_status(self, caller: Caller, user_id: UUID, status: UserStatus) -> User:
        """Let a user in or keep the user out; only administrators may. May be repeated.

        An inactive user's tokens are refused from then on and the user's running imports publish nothing; tokens
        that were not revoked work again once the user is ACTIVE. Raises `NotFound`, and `Conflict` where no active
        administrator would be left.
        """
        await require_admin(caller)
        async with self._database.begin() as session:
            # All administrators are locked in one order, so that two of them cannot put out each other.
            rows = await session.scalars(
                select(User)
                .where(or_(User.id == user_id, User.role == UserRole.ADMIN))
                .order_by(User.id)
                .with_for_update(key_share=True)
            )
            found = {user.id: user for user in rows}
            if (user := found.get(user_id)) is None:
                raise NotFound("there is no such user; check the id", field="input.userId")
            if user.status is status:
                return user
            others = (other for other in found.values() if other is not user and other.role is UserRole.ADMIN)
            if (
                status is UserStatus.INACTIVE
                and user.role is UserRole.ADMIN
                and not any(other.status is UserStatus.ACTIVE for other in others)
            ):
                raise Conflict(
                    "this is the last active administrator; make another one first", field="input.userId"
                )
            user.status = status
            audit(session, caller, "user.set-status", str(user_id), {"email": user.email, "status": status})
        return user

    async def create_token(
        self, caller: Caller, user_id: UUID | None, name: str, expires_at: datetime | None
    ) -> tuple[UUID, str]:
        """Make a token, for the caller where `user_id` is None; returns its id and the token, which nobody sees again.

        A time without zone is UTC. Only administrators make tokens for others.
        """
        owner = user_id or caller.user_id
        if owner != caller.user_id and not caller.is_admin:
            raise Forbidden(
                "only administrators make tokens for others; leave out input.userId", field="input.userId"
            )
        if not name.strip() or len(name) > _TOKEN_NAME_LENGTH or not name.isprintable():
            raise BadRequest(
                "a token's name has 1 to 255 printable characters; choose another one", field="input.name"
            )
        if expires_at is not None:
            expires_at = expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC)
            if expires_at <= utc_now():
                raise BadRequest(
                    "this time is past; name one to come, or none for a token without end",
                    field="input.expiresAt",
                )
        token, hashed = new_token()
        made = ApiToken(id=uuid4(), user_id=owner, name=name, token_hash=hashed, expires_at=expires_at)
        async with self._database.begin() as session:
            status = await session.scalar(select(User.status).where(User.id == owner))
            if status is not UserStatus.ACTIVE:
                raise NotFound("there is no such active user", field="input.userId")
            session.add(made)
            audit(session, caller, "token.create", str(made.id), {"user": str(owner), "name": name})
        return made.id, token

    async def revoke_token(self, caller: Caller, token_id: UUID) -> UUID:
        """End a token of the caller's, or of anybody's for an administrator; may be repeated."""
        async with self._database.begin() as session:
            token = await session.get(ApiToken, token_id, with_for_update=True)
            if token is None or not (caller.is_admin or token.user_id == caller.user_id):
                raise NotFound("there is no such token among yours", field="input.id")
            if token.revoked_at is None:
                token.revoked_at = utc_now()
                audit(session, caller, "token.revoke", str(token_id), {"user": str(token.user_id)})
        return token_id

    async def ensure_admin(self, email: str, token: str) -> None:
        """Make the administrator and the token where they are missing; may be repeated, by several processes at once.

        A token that was revoked stays so.
        """
        async with self._database.begin() as session:
            await session.execute(
                insert(User)
                .values(id=uuid4(), email=email, role=UserRole.ADMIN)
                .on_conflict_do_nothing(index_elements=[User.email])
            )
            owner = await session.scalar(select(User.id).where(User.email == email))
            await session.execute(
                insert(ApiToken)
                .values(id=uuid4(), user_id=owner, name="admin-token file", token_hash=token_hash(token))
                .on_conflict_do_nothing(index_elements=[ApiToken.token_hash])
            )
