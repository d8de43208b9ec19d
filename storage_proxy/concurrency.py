"""Running things side by side with plain errors, and running a thing to its end."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def side_by_side(work: Callable[[T], Awaitable[R]], items: Iterable[T], *, width: int) -> list[R]:
    """Run `work` on every item, at most `width` at a time, and return the results in the items' order.

    The first error cancels the rest, waits for it to end, and is raised as it is, not wrapped in a group.
    """
    waiting = list(items)
    results: dict[int, R] = {}
    numbers = iter(range(len(waiting)))

    async def take() -> None:
        for number in numbers:
            results[number] = await work(waiting[number])

    takers = [asyncio.create_task(take()) for _ in range(min(width, len(waiting)))]
    try:
        for done in asyncio.as_completed(takers):
            await done
    finally:
        for taker in takers:
            taker.cancel()
        await asyncio.gather(*takers, return_exceptions=True)
    return [results[number] for number in range(len(waiting))]


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run works that depend on each other. The first error cancels the rest, waits for them, and is raised as it is."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        for done in asyncio.as_completed(tasks):
            await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(work: Coroutine[Any, Any, None], watch: Coroutine[Any, Any, None]) -> None:
    """Run `work` as long as `watch`, which never returns, raises nothing. The error of either is raised as it is."""
    tasks = [asyncio.create_task(work), asyncio.create_task(watch)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def to_the_end(work: Coroutine[Any, Any, R]) -> R:
    """Run `work` to its end even if the caller is cancelled meanwhile; the cancel is raised afterwards, whatever came of it."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at, so that it is not told of as one that nobody took
        raise cancelled
    return task.result()
