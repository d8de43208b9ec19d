"""How many connections one import uses: more only while more of them bring more bytes."""

import time
from dataclasses import dataclass, field

TICK = 0.1  # seconds between two looks
_GAIN = 1.1  # what an increase must bring to be kept
_HUNGRY = 0.5  # share of the time that receivers wait for the source, from which on more connections can help
_STEP = 4
_PAUSE = 2.0  # seconds after an increase that brought nothing; doubles up to a minute
_LONGEST_PAUSE = 60.0


@dataclass
class Width:
    """A source that caps each connection is asked over many; one that is limited as a whole, or by us, over few."""

    now: int
    _before: tuple[int, float] | None = field(default=None, init=False)
    _fresh: bool = field(default=False, init=False)
    _quiet_until: float = field(default=0.0, init=False)
    _pause: float = field(default=_PAUSE, init=False)

    def tick(self, rate: float, hungry: float, most: int) -> None:
        """Look at the last moment: `rate` in bytes per second, `hungry` the share of time spent waiting for the source."""
        if self.now > most:
            self.now, self._before = most, None
            return
        if self._fresh:
            self._fresh = False  # connections that were just opened have brought nothing yet
            return
        if self._before is not None:
            width, best = self._before
            self._before = None
            if rate <= best * _GAIN:
                self.now = width
                self._quiet_until = time.monotonic() + self._pause
                self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
                return
            self._pause = _PAUSE
        if hungry >= _HUNGRY and self.now < most and time.monotonic() >= self._quiet_until:
            self._before, self._fresh = (self.now, rate), True
            self.now = min(most, self.now * _STEP)
