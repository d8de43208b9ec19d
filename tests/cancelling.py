"""Cancelling what uses a database, early and late, and insisting that no connection is lost by it."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import asyncpg

PATIENCE = 20


async def cancel_early_and_late(use: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run `use` again and again, cancel it a little later each time until it has ended before; return how often."""
    times, rounds, ended = 0, 0, False
    while not ended:
        task = asyncio.create_task(use())
        for _ in range(rounds):
            await asyncio.sleep(0)
            if ended := task.done():
                break
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        times += 1
        rounds += 1 + rounds // 20
    return times


async def insist_on_no_connection(database_url: str) -> None:
    """Wait until PostgreSQL has none to this database but the one that asks; one that is lost would stay."""
    gc.collect()  # tells of errors that nobody took
    ours = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(PATIENCE):
            while await connection.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}"):
                await asyncio.sleep(0.01)
    finally:
        await connection.close()
