"""How long and how often a registry is asked again. There is one such layer; nothing below it retries."""

import random
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from proxy_client.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceNotFound,
    SourceUnavailable,
)
from storage_proxy.settings import TransferSection
from storage_proxy.transfer.line import Line

_REFUSALS = 2


class RetryLater(SourceUnavailable):
    """The registry asked to come back after `seconds` (Retry-After of a 429 or 503)."""

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__(message)
        self.seconds = seconds


def retry_after_seconds(header: str | None) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds, or an HTTP date; None if there is none to read."""
    if header is None:
        return None
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", header):
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


@dataclass
class Patience:
    """A budget of retries that is full again after every progress worth the name."""

    settings: TransferSection
    retries: int
    line: Line
    used: int = field(default=0, init=False)
    _since: float = field(default_factory=time.monotonic, init=False)

    def progressed(self, received: int) -> bool:
        """Begin anew if `received` bytes since the last time are at least the minimum rate; return whether they are.

        A source that sends a byte and hangs up makes progress too, and would be asked for ever.
        """
        now = time.monotonic()
        if received <= 0 or received < self.settings.minimum_rate * (now - self._since):
            return False
        self.used, self._since = 0, now
        return True

    def wait(self, fault: SourceError) -> None:
        """Sleep before the next try, full jitter from 0.5 to 30 seconds by default, or as Retry-After says.

        Raises `fault` itself once the budget is used up, or when Retry-After is longer than the setting allows; or `Cut`.
        A refusal (403, 404, another commit) is rarely a passing mood: it is asked about twice at most.
        """
        most = self.retries
        if isinstance(fault, (SourceNotFound, SourceForbidden, SourceChanged)):
            most = min(most, _REFUSALS)
        if self.used >= most:
            raise fault
        self.used += 1
        asked = fault.seconds if isinstance(fault, RetryLater) else None
        if asked is not None:
            if asked > self.settings.retry_after_max:
                raise fault
            self.line.wait(asked)
            return
        ceiling = min(self.settings.backoff_max, self.settings.backoff_initial * 2 ** (self.used - 1))
        self.line.wait(ceiling * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads load, guards nothing


class RateFloor:
    """Cuts a transfer whose source stays below the minimum rate over the window. Only waiting for the source counts."""

    def __init__(self, settings: TransferSection) -> None:
        self._settings = settings
        self._waited = 0.0
        self._bytes = 0

    def count(self, received: int, waited: float) -> None:
        """Add bytes and the seconds that the source took for them; raises `SourceUnavailable` after a slow window."""
        self._bytes += received
        self._waited += waited
        if self._waited < self._settings.rate_window:
            return
        if self._bytes < self._settings.minimum_rate * self._waited:
            raise SourceUnavailable(
                f"the registry sent less than {self._settings.minimum_rate} bytes per second"
            )
        self._waited, self._bytes = 0.0, 0
