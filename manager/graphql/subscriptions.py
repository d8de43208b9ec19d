"""What can be followed."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import strawberry

from manager.graphql.context import Context, Info
from manager.graphql.fields import subscription
from manager.graphql.ids import parse_id
from manager.graphql.tasks import ImportTask
from proxy_client.errors import NotFound

# Seconds for which a look at the token and at the permission holds good, while changes come in.
PERMISSION_SECONDS = 10.0


@strawberry.type(description="What can be followed.")
class Subscription:
    """What can be followed."""

    @subscription(
        "An import task: how it stands now, then each change, ending with its terminal state. "
        "Changes that come faster than they are taken are told by the last of them."
    )
    async def import_task_updated(
        self,
        info: Info,
        task_id: Annotated[strawberry.ID, strawberry.argument(description="The task's id.")],
    ) -> AsyncGenerator[ImportTask, None]:
        """Follow one task."""
        key = parse_id(task_id, "ImportTask", field="taskId")
        await _require_visible(info.context, key)
        return _follow(info.context, key)


async def _follow(context: Context, task_id: UUID) -> AsyncGenerator[ImportTask, None]:
    looked = time.monotonic()
    async with aclosing(context.services.changes.follow(task_id)) as rows:
        async for row in rows:
            if time.monotonic() - looked > PERMISSION_SECONDS:
                await context.authenticate_again()
                await _require_visible(context, task_id)
                looked = time.monotonic()
            # What hangs below the task may have changed with it.
            context.forget()
            yield ImportTask(row=row)


async def _require_visible(context: Context, task_id: UUID) -> None:
    if await context.loaders.tasks.load(task_id) is None:
        raise NotFound("there is no such import task that you may see", field="taskId")
