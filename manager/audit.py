"""Who did what to what, and when."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from manager.auth import Caller
from manager.models import AuditEntry


def audit(
    session: AsyncSession, caller: Caller, action: str, subject: str, details: dict[str, Any] | None = None
) -> None:
    """Record a write in the writer's own transaction, so that one is never there without the other.

    `action` is `<thing>.<verb>`, `subject` the thing's id. `details` must hold no secrets.
    """
    session.add(
        AuditEntry(
            actor_id=caller.user_id,
            action=action,
            subject=subject,
            details=details,
            request_id=caller.request_id,
        )
    )
