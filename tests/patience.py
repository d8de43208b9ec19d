"""How tests wait: for a condition, not for a time."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], told: Callable[[], str], within: float) -> None:
    """Wait until a condition holds; fail with what is told after `within` seconds.

    Looks again after four times as long as the last look took: what is waited for needs the processors as well.
    """
    deadline = time.monotonic() + within
    while True:
        began = time.monotonic()
        if condition():
            return
        ended = time.monotonic()
        assert ended < deadline, told()
        time.sleep(min(0.25, max(0.005, 4 * (ended - began))))
