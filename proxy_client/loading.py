"""How a process loads what it is made of."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import without the garbage collector, and let it pass over what was imported from then on.

    Of a thousand modules nothing is garbage; to look at it all again and again takes a third of a start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()
