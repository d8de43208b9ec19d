"""How long and how often a registry is asked again. There is one such layer; nothing below it retries."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from proxy_client.errors import SourceError, SourceUnavailable
from storage_proxy.settings import TransferSection


class RetryLater(SourceUnavailable):
    """The registry asked to come back after `seconds` (Retry-After of a 429 or 503)."""

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__(message)
        self.seconds = seconds


def retry_after_seconds(header: str | None) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds, or an HTTP date; None if there is none to read."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header.strip())
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


@dataclass
class Patience:
    """A budget of retries that is full again after every progress."""

    settings: TransferSection
    retries: int
    used: int = field(default=0, init=False)

    def refill(self) -> None:
        """Begin anew: there was progress."""
        self.used = 0

    async def wait(self, fault: SourceError) -> None:
        """Sleep before the next try, full jitter from 0.5 to 30 seconds by default, or as Retry-After says.

        Raises `fault` itself once the budget is used up, or when Retry-After is longer than the setting allows.
        """
        if self.used >= self.retries:
            raise fault
        self.used += 1
        asked = fault.seconds if isinstance(fault, RetryLater) else None
        if asked is not None:
            if asked > self.settings.retry_after_max:
                raise fault
            await asyncio.sleep(asked)
            return
        ceiling = min(self.settings.backoff_max, self.settings.backoff_initial * 2 ** (self.used - 1))
        await asyncio.sleep(ceiling * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads load, guards nothing


class RateFloor:
    """Cuts a transfer whose rate over the window stays below the minimum."""

    def __init__(self, settings: TransferSection) -> None:
        self._settings = settings
        self._since = time.monotonic()
        self._bytes = 0

    def count(self, received: int) -> None:
        """Add received bytes; raises `SourceUnavailable` at the end of a window that was too slow."""
        self._bytes += received
        elapsed = time.monotonic() - self._since
        if elapsed < self._settings.rate_window:
            return
        if self._bytes < self._settings.minimum_rate * elapsed:
            raise SourceUnavailable(
                f"the registry sent less than {self._settings.minimum_rate} bytes per second"
            )
        self._since, self._bytes = time.monotonic(), 0
