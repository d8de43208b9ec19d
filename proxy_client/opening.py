"""Opening what has no owner until it is open."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def opened(opening: Coroutine[Any, Any, T], abandon: Callable[[T], object]) -> T:
    """Open something to its end. If the caller is cancelled meanwhile, what came of it is abandoned, and then the cancel raised.

    Cancelled midway, asyncpg for one leaves the end of its question about TLS as an error that nobody takes.
    """
    task = asyncio.create_task(opening)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            abandon(task.result())
        raise
