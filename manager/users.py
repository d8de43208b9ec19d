"""Users and their tokens."""

import re
from datetime import UTC, datetime
from uuid import UUID, uuid4

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller, new_token, token_hash
from manager.db import Database
from manager.models import ApiToken, User, UserGrant, UserRole, UserStatus, utc_now
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
        address = check_email(email)
        user_id = uuid4()
        async with self._database.begin() as session:
            made = (
                insert(User)
                .values(id=user_id, email=address, role=role)
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
            user = await _locked_beside_another_administrator(
                session, user_id, ends=status is UserStatus.INACTIVE
            )
            if user.status is not status:
                user.status = status
                audit(
                    session, caller, "user.set-status", str(user_id), {"email": user.email, "status": status}
                )
        return user

    async def set_user_role(self, caller: Caller, user_id: UUID, role: UserRole) -> User:
        """Make a user an administrator, or an administrator a user; only administrators may. May be repeated.

        It holds from the user's next request on. Raises `NotFound`, and `Conflict` where no active administrator would
        be left.
        """
        await require_admin(caller)
        async with self._database.begin() as session:
            user = await _locked_beside_another_administrator(
                session, user_id, ends=role is not UserRole.ADMIN
            )
            if user.role is not role:
                user.role = role
                audit(session, caller, "user.set-role", str(user_id), {"email": user.email, "role": role})
        return user

    async def grant(self, caller: Caller, user_id: UUID, permission: str) -> User:
        """Give a user a permission beyond the role; only administrators may. May be repeated."""
        await require_admin(caller)
        async with self._database.begin() as session:
            user = await _user(session, user_id)
            granted = await session.scalar(
                insert(UserGrant)
                .values(user_id=user_id, permission=permission)
                .on_conflict_do_nothing()
                .returning(UserGrant.permission)
            )
            if granted is not None:
                details = {"email": user.email, "permission": permission}
                audit(session, caller, "user.grant", str(user_id), details)
        return user

    async def revoke(self, caller: Caller, user_id: UUID, permission: str) -> User:
        """Take a permission beyond the role back; only administrators may. May be repeated."""
        await require_admin(caller)
        async with self._database.begin() as session:
            user = await _user(session, user_id)
            if (row := await session.get(UserGrant, (user_id, permission))) is not None:
                await session.delete(row)
                details = {"email": user.email, "permission": permission}
                audit(session, caller, "user.revoke", str(user_id), details)
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
            expires_at = _to_come(expires_at, "input.expiresAt", "none for a token without end")
        token, hashed = new_token()
        made = ApiToken(id=uuid4(), user_id=owner, name=name, token_hash=hashed, expires_at=expires_at)
        async with self._database.begin() as session:
            status = await session.scalar(select(User.status).where(User.id == owner))
            if status is not UserStatus.ACTIVE:
                raise NotFound("there is no such active user", field="input.userId")
            session.add(made)
            audit(session, caller, "token.create", str(made.id), {"user": str(owner), "name": name})
        return made.id, token

    async def rotate_token(
        self, caller: Caller, token_id: UUID, *, expires_at: datetime | None, keep_until: datetime | None
    ) -> tuple[UUID, str]:
        """Replace a token by a new one of the same name and user; returns the new one's id and the token itself.

        The old one is refused at once, or from `keep_until` on, which never prolongs it. Without `expires_at` the new
        one lives as long as the old one was to live. Raises `NotFound` for a token that is not the caller's
        (administrators replace anybody's), and `Conflict` for one that is accepted no more.
        """
        if expires_at is not None:
            expires_at = _to_come(expires_at, "input.expiresAt", "none for as long as the old one had")
        if keep_until is not None:
            keep_until = _to_come(keep_until, "input.keepUntil", "none to end the old token at once")
        async with self._database.begin() as session:
            old = await _own_token(session, caller, token_id)
            now = utc_now()
            _insist_on_accepted(old, now)
            if expires_at is None and old.expires_at is not None:
                expires_at = now + (old.expires_at - old.created_at)
            token, hashed = new_token()
            made = ApiToken(
                id=uuid4(), user_id=old.user_id, name=old.name, token_hash=hashed, expires_at=expires_at
            )
            session.add(made)
            if keep_until is None:
                old.revoked_at = now
            else:
                old.expires_at = min(keep_until, old.expires_at or keep_until)
            details = {"user": str(old.user_id), "by": str(made.id)}
            audit(session, caller, "token.rotate", str(token_id), details)
        return made.id, token

    async def set_token_expiry(self, caller: Caller, token_id: UUID, expires_at: datetime | None) -> ApiToken:
        """Let a token end at a time to come, or never where it is None. Raises as `rotate_token` does."""
        if expires_at is not None:
            expires_at = _to_come(expires_at, "input.expiresAt", "none for a token without end")
        async with self._database.begin() as session:
            token = await _own_token(session, caller, token_id)
            _insist_on_accepted(token, utc_now())
            token.expires_at = expires_at
            ends = None if expires_at is None else expires_at.isoformat()
            audit(session, caller, "token.set-expiry", str(token_id), {"expires_at": ends})
        return token

    async def revoke_token(self, caller: Caller, token_id: UUID) -> UUID:
        """End a token of the caller's, or of anybody's for an administrator; may be repeated."""
        async with self._database.begin() as session:
            token = await _own_token(session, caller, token_id)
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


def check_email(email: str) -> str:
    """Return an address as it is kept, in lower case. Raises `BadRequest` for what is none."""
    if _EMAIL.fullmatch(email) is None:
        raise BadRequest("this is not an e-mail address; write name@host", field="input.email")
    return email.lower()


async def _user(session: AsyncSession, user_id: UUID) -> User:
    if (user := await session.get(User, user_id)) is None:
        raise NotFound("there is no such user; check the id", field="input.userId")
    return user


async def _locked_beside_another_administrator(session: AsyncSession, user_id: UUID, *, ends: bool) -> User:
    """Lock a user, who is not the last active administrator where that is to end."""
    # All administrators are locked in one order, so that two of them cannot put out each other.
    rows = await session.scalars(
        select(User)
        .where(or_(User.id == user_id, User.role == UserRole.ADMIN))
        .order_by(User.id)
        .with_for_update(key_share=True)
    )
    found = {user.id: user for user in rows}
    if (user := found.pop(user_id, None)) is None:
        raise NotFound("there is no such user; check the id", field="input.userId")
    active = (user.role, user.status) == (UserRole.ADMIN, UserStatus.ACTIVE)
    if ends and active and not any(other.status is UserStatus.ACTIVE for other in found.values()):
        raise Conflict("this is the last active administrator; make another one first", field="input.userId")
    return user


async def _own_token(session: AsyncSession, caller: Caller, token_id: UUID) -> ApiToken:
    token = await session.get(ApiToken, token_id, with_for_update=True)
    if token is None or not (caller.is_admin or token.user_id == caller.user_id):
        raise NotFound("there is no such token among yours", field="input.id")
    return token


def _insist_on_accepted(token: ApiToken, now: datetime) -> None:
    if token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now):
        raise Conflict("this token is accepted no more; create another one", field="input.id")


def _to_come(time: datetime, field: str, otherwise: str) -> datetime:
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if time <= utc_now():
        raise BadRequest(f"this time is past; name one to come, or {otherwise}", field=field)
    return time
