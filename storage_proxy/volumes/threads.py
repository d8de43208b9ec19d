"""Blocking work in threads, with cancellation that never leaves an operation half-done."""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Its own pool, since a file system that hangs must not take the threads of everything else with it.
_pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="files")
# Counting what a folder of millions of files holds takes minutes; it waits for others of its kind, nothing waits for it.
_walks = ThreadPoolExecutor(max_workers=4, thread_name_prefix="walks")
background = ThreadPoolExecutor(max_workers=8, thread_name_prefix="behind")
"""For what makes written bytes durable behind the back of whoever writes on."""
syncs = ThreadPoolExecutor(max_workers=8, thread_name_prefix="sync")
"""For syncs side by side, which share the commits of a file system's journal; they wait for nothing."""
_stop: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("stop", default=None)


class Stopped(Exception):
    """The task that asked for this work was cancelled; nobody waits for its outcome."""


def stop_point() -> None:
    """Raise `Stopped` if the task that asked for this work was cancelled. For long loops that change nothing."""
    if (stop := _stop.get()) is not None and stop.is_set():
        raise Stopped


def stopping_with(stop: threading.Event) -> None:
    """Let `stop` be what `stop_point` looks at in this thread."""
    _stop.set(stop)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a thread.

    When the caller is cancelled, the work is told (see `stop_point`) and waited for before the cancellation goes
    on: nothing is still at work behind the back of whoever cleans up.
    """
    return await _in(_pool, functools.partial(work, *args, **kwargs))


async def walk_in_thread(work: Callable[[], T]) -> T:
    """Run `work`, which walks a whole tree for somebody's information, as `in_thread` does: four at once in a process."""
    return await _in(_walks, work)


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    stop = threading.Event()
    context = contextvars.copy_context()
    context.run(_stop.set, stop)
    future = asyncio.get_running_loop().run_in_executor(pool, functools.partial(context.run, work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        future.exception()  # looked at, so that asyncio does not complain of an error that nobody saw
        raise
