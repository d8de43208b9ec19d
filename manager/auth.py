"""Who is calling: bearer tokens."""

import hashlib
import re
import secrets
import uuid
from dataclasses import dataclass

from sqlalchemy import func, or_, select

from manager.db import Database
from manager.models import ApiToken, User, UserRole, UserStatus
from proxy_client.errors import Unauthenticated
from proxy_client.wire import REQUEST_ID_PATTERN

TOKEN_PREFIX = "stw_"  # noqa: S105 -- what every token begins with, so that leaks can be searched for


@dataclass(frozen=True)
class Caller:
    """The user behind a request; `request_id` fits the wire."""

    user_id: uuid.UUID
    email: str
    role: UserRole
    request_id: str

    @property
    def is_admin(self) -> bool:
        """Whether the user is an administrator."""
        return self.role is UserRole.ADMIN


def new_token() -> tuple[str, str]:
    """Make a token of 256 random bits; returns it, to be shown once, and what to keep of it."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return token, token_hash(token)


def token_hash(token: str) -> str:
    """Return what is kept of a token: with 256 random bits no slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(authorization_header: str | None) -> str:
    """Return the token in `Authorization: Bearer <token>` (RFC 6750). Raises `Unauthenticated`."""
    scheme, _, token = (authorization_header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("no token; send the header Authorization: Bearer <token>")
    return token.strip()


async def sign_in(database: Database, token: str) -> tuple[User, ApiToken]:
    """Find the user of a token, and the token. Raises `Unauthenticated` that tells whoever holds it what became of it."""
    async with database.read() as session:
        found = (
            await session.execute(
                select(User, ApiToken, ApiToken.expires_at <= func.now())
                .join(ApiToken)
                .where(ApiToken.token_hash == token_hash(token))
            )
        ).one_or_none()
    if found is None:
        raise Unauthenticated("there is no such token; check that it was copied whole", field="token")
    user, kept, expired = found
    if kept.revoked_at is not None:
        raise Unauthenticated("this token was revoked; ask an administrator for another one", field="token")
    if expired:
        at = f"{kept.expires_at:%Y-%m-%d %H:%M} UTC"
        raise Unauthenticated(f"this token expired at {at}; use another one", field="token")
    if user.status is not UserStatus.ACTIVE:
        raise Unauthenticated("this user may not sign in any more; ask an administrator", field="token")
    return user, kept


async def authenticate(database: Database, authorization_header: str | None, request_id: str) -> Caller:
    """Find the caller; a `request_id` that does not fit the wire is replaced.

    Raises `Unauthenticated` alike for a token that is unknown, expired, revoked or of an inactive user.
    """
    hashed = token_hash(bearer(authorization_header))
    async with database.read() as session:
        user = await session.scalar(
            select(User)
            .join(ApiToken)
            .where(
                ApiToken.token_hash == hashed,
                ApiToken.revoked_at.is_(None),
                or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > func.now()),
                User.status == UserStatus.ACTIVE,
            )
        )
    if user is None:
        raise Unauthenticated("the token is unknown, expired or revoked; use another one")
    if re.fullmatch(REQUEST_ID_PATTERN, request_id) is None:
        request_id = uuid.uuid4().hex
    return Caller(user.id, user.email, user.role, request_id)
