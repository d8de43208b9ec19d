"""Who may have a connection now: bounded for the proxy and for each host, shared fairly by users and imports."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from storage_proxy.transfer.line import Line

_LOOK = 0.5  # seconds after which a waiting thread looks whether its line was cut
_RECOVERY = 10.0  # seconds without a complaint after which a host's bound grows again


@dataclass
class _Host:
    """What one host bears: `bound` connections now, none before `not_before`."""

    bound: int
    held: int = 0
    not_before: float = 0.0
    complained: float = 0.0


@dataclass(frozen=True, eq=False)
class Claimant:
    """Who wants a connection."""

    host: str
    user: UUID
    import_id: UUID


@dataclass
class _Waiting:
    claimant: Claimant
    number: int
    granted: bool = field(default=False)


class ConnectionGate:
    """The connections of one worker. All threads share it."""

    def __init__(self, *, per_host: int, total: Callable[[], int]) -> None:
        """`total` tells how many connections this worker may have now: its share of the proxy's."""
        self._per_host = per_host
        self._total = total
        self._lock = threading.Condition()
        self._hosts: defaultdict[str, _Host] = defaultdict(lambda: _Host(per_host))
        self._users: Counter[UUID] = Counter()
        self._imports: Counter[UUID] = Counter()
        self._held = 0
        self._numbers = 0
        self._waiting: list[_Waiting] = []

    @contextmanager
    def connection(self, claimant: Claimant, line: Line) -> Iterator[None]:
        """Hold one connection's place; waits for it. Raises `Cut`."""
        self._acquire(claimant, line)
        try:
            yield
        finally:
            self._release(claimant)

    def bound(self, host: str) -> int:
        """Return how many connections to a host may be open now."""
        with self._lock:
            return self._grown(self._hosts[host]).bound

    def complained(self, host: str, pause: float | None = None) -> None:
        """Halve a host's bound after a 429, a 503 or a timeout; `pause` is how many seconds it asks to be left alone."""
        with self._lock:
            found = self._hosts[host]
            now = time.monotonic()
            if now - found.complained > 1.0:  # the answers to what was under way are one complaint
                found.bound = max(1, found.bound // 2)
            found.complained = now
            if pause is not None:
                found.not_before = max(found.not_before, now + pause)

    def _grown(self, host: _Host) -> _Host:
        quiet = time.monotonic() - host.complained
        if host.bound < self._per_host and quiet > _RECOVERY:
            host.bound = min(self._per_host, host.bound * 2)
            host.complained += _RECOVERY
        return host

    def _acquire(self, claimant: Claimant, line: Line) -> None:
        with self._lock:
            line.check()
            if not self._waiting and self._able(claimant, time.monotonic()):
                self._take(claimant)
                return
            self._numbers += 1
            mine = _Waiting(claimant, self._numbers)
            self._waiting.append(mine)
            try:
                self._grant()
                while not mine.granted:
                    line.check()
                    self._lock.wait(_LOOK)
                    self._grant()
            except BaseException:
                if mine.granted:
                    self._give_back(claimant)
                else:
                    self._waiting.remove(mine)
                raise

    def _release(self, claimant: Claimant) -> None:
        with self._lock:
            self._give_back(claimant)
            self._grant()

    def _give_back(self, claimant: Claimant) -> None:
        self._held -= 1
        self._hosts[claimant.host].held -= 1
        for counter, key in ((self._users, claimant.user), (self._imports, claimant.import_id)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def _grant(self) -> None:
        """Give what is free to whoever holds least: first by user, then by import, then in order."""
        granted = False
        while self._waiting:
            now = time.monotonic()
            able = [waiting for waiting in self._waiting if self._able(waiting.claimant, now)]
            if not able:
                break
            chosen = min(able, key=self._rank)
            self._waiting.remove(chosen)
            chosen.granted = granted = True
            self._take(chosen.claimant)
        if granted:
            self._lock.notify_all()

    def _able(self, claimant: Claimant, now: float) -> bool:
        host = self._grown(self._hosts[claimant.host])
        return host.held < host.bound and host.not_before <= now and self._held < max(1, self._total())

    def _take(self, claimant: Claimant) -> None:
        self._held += 1
        self._hosts[claimant.host].held += 1
        self._users[claimant.user] += 1
        self._imports[claimant.import_id] += 1

    def _rank(self, waiting: _Waiting) -> tuple[int, int, int]:
        claimant = waiting.claimant
        return self._users[claimant.user], self._imports[claimant.import_id], waiting.number
