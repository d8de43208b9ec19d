"""Orders at the storage proxies: placed, answered, and taken back."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from manager.db import Database, any_of
from manager.handover import Handover
from manager.models import ImportTask, ImportTaskStatus, utc_now
from manager.tasks import lock_tasks
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import Internal, NotFound, StowageError, Unauthenticated, Unavailable

log = structlog.get_logger()

_ORDERS_AT_ONCE = 16
# Seconds that a request waits for its orders; the reconciler places what is left.
_ORDER_DEADLINE = 5.0
_CANCEL_DEADLINE = 5.0


@dataclass(frozen=True)
class Silence:
    """Why orders got no answer that counts: the proxy is `down`, or failed over those in `faults`."""

    down: StowageError | None
    faults: Mapping[UUID, StowageError]

    @property
    def message(self) -> str:
        """One reason."""
        return (self.down or next(iter(self.faults.values()))).message


async def place_orders(
    database: Database, client: StorageProxyClient, orders: Sequence[wire.ImportOrder], handover: Handover
) -> Silence | None:
    """Order imports at one proxy and record its answers; returns why some got none, if so.

    Ends within seconds. What got no answer stays as it is and may be ordered again; a definite refusal ends
    that task FAILED. An import that was cancelled here meanwhile is cancelled at the proxy too.
    """
    accepted, refused, silence = await _ask(client, orders, handover)
    cancelled: set[UUID] = set()
    async with database.begin() as session:
        if accepted:
            cancelled = set(accepted) - await _record_accepted(session, accepted)
        if refused:
            locked = await lock_tasks(session, refused)
            for task_id, fault in refused.items():
                log.warning("order refused", proxy=client.name, task_id=str(task_id), code=fault.code)
                await locked.finish(task_id, ImportTaskStatus.FAILED, fault)
    for task_id in cancelled:
        with suppress(StowageError):
            await cancel_at_proxy(client, task_id)
    return silence


async def cancel_at_proxy(client: StorageProxyClient, task_id: UUID) -> None:
    """Ask a proxy for a cancel, for some seconds. Raises `NotFound` where it does not know the import."""
    try:
        async with asyncio.timeout(_CANCEL_DEADLINE):
            await client.cancel_import(task_id)
    except TimeoutError as exc:
        raise Unavailable(f"storage proxy {client.name} is slow to answer") from exc


async def _ask(
    client: StorageProxyClient, orders: Sequence[wire.ImportOrder], handover: Handover
) -> tuple[list[UUID], dict[UUID, wire.ImportFault], Silence | None]:
    accepted: list[UUID] = []
    refused: dict[UUID, wire.ImportFault] = {}
    down: list[StowageError] = []
    faults: dict[UUID, StowageError] = {}
    gate = asyncio.Semaphore(_ORDERS_AT_ONCE)

    async def ask(order: wire.ImportOrder) -> None:
        async with gate:
            if down:
                return  # one that is down for this order is down for the next
            try:
                await _start(client, order, handover)
            # A proxy that is down, has another secret or is broken says nothing about the import itself.
            except (Unavailable, Unauthenticated) as exc:
                down.append(exc)
            except Internal as exc:
                faults[order.task_id] = exc
            except StowageError as exc:
                refused[order.task_id] = wire.ImportFault(code=exc.code, message=exc.message)
            else:
                accepted.append(order.task_id)

    try:
        async with asyncio.timeout(_ORDER_DEADLINE), asyncio.TaskGroup() as group:
            for order in orders:
                group.create_task(ask(order))
    except TimeoutError:
        down.append(Unavailable(f"storage proxy {client.name} is slow to answer"))
    silence = Silence(down[0] if down else None, faults) if down or faults else None
    return accepted, refused, silence


async def _start(client: StorageProxyClient, order: wire.ImportOrder, handover: Handover) -> None:
    try:
        await client.start_import(order)
    except NotFound:
        # What was entered while a proxy was away may not have come to it yet.
        if not await handover.bring(client):
            raise
        await client.start_import(order)


async def _record_accepted(session: AsyncSession, task_ids: Sequence[UUID]) -> set[UUID]:
    now = utc_now()
    in_order = (
        select(ImportTask.id)
        .where(ImportTask.id == any_of(task_ids), ImportTask.finished_at.is_(None))
        .order_by(ImportTask.id)
        .with_for_update(key_share=True)
        .cte("in_order")
    )
    recorded = await session.scalars(
        update(ImportTask)
        .where(ImportTask.id == in_order.c.id)
        .values(ordered_at=now, updated_at=now)
        .returning(ImportTask.id)
        .execution_options(synchronize_session=False)
    )
    return set(recorded)
