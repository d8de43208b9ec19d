"""What was done, by whom."""

from datetime import datetime
from typing import Annotated

import strawberry
from sqlalchemy import select
from strawberry.scalars import JSON

from manager import models
from manager.access import require_admin
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.fields import Node, column, field
from manager.graphql.ids import parse_id
from manager.graphql.users import User
from manager.paging import Order, PageRequest, SortKey


@strawberry.type(description="Something that was done; it is never changed.")
class AuditEntry(Node):
    """Something that was done; holds its row."""

    row: strawberry.Private[models.AuditEntry]

    at: datetime = column("at", "When it was done.")
    action: str = column("action", "What was done, `<thing>.<verb>`.")
    subject: str = column("subject", "The id of what it was done to, or its name where it has no id.")
    details: JSON | None = column("details", "What else there is to say; it holds no secrets.")
    request_id: str | None = column("request_id", "Ties it to the request, and to log lines.")

    @field("Who did it; null for a user that is gone.")
    async def actor(self, info: Info) -> User | None:
        """Load the user."""
        if self.row.actor_id is None:
            return None
        row = await info.context.loaders.users.load(self.row.actor_id)
        return User(row=row) if row else None


@strawberry.type
class AuditQuery:
    """The queries about what was done."""

    @listed("What was done, newest first. For administrators.")
    async def audit_entries(
        self,
        info: Info,
        request: PageRequest,
        *,
        actor_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only what this user did.")
        ] = strawberry.UNSET,
        action: Annotated[
            str | None,
            strawberry.argument(description="Only this action, or with a dot at its end those of one thing."),
        ] = strawberry.UNSET,
        subject: Annotated[
            str | None, strawberry.argument(description="Only what was done to this.")
        ] = strawberry.UNSET,
        since: Annotated[
            datetime | None, strawberry.argument(description="Only what was done then or later.")
        ] = strawberry.UNSET,
        until: Annotated[
            datetime | None, strawberry.argument(description="Only what was done before.")
        ] = strawberry.UNSET,
    ) -> Connection[AuditEntry] | None:
        """Load one page of what was done."""
        await require_admin(info.context.caller)
        entry = models.AuditEntry
        statement = select(entry)
        if isinstance(actor_id, str):
            statement = statement.where(entry.actor_id == parse_id(actor_id, "User", field="actorId"))
        if action:
            whole = entry.action.startswith(action, autoescape=True)
            statement = statement.where(whole if action.endswith(".") else entry.action == action)
        if subject:
            statement = statement.where(entry.subject == subject)
        if since:
            statement = statement.where(entry.at >= since)
        if until:
            statement = statement.where(entry.at < until)
        order = Order.by([SortKey("at", entry.at, descending=True)], entry.id)
        return await connect(info, statement, order, request, lambda row: AuditEntry(row=row[0]))
