"""A look at the requests that a storage makes, and death or loss at the N-th of them."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from storage_proxy.storages.s3_requests import Body, S3Requests
from tests.storages.faults import KILLED

CHANGES = {"PUT", "POST", "DELETE"}


def die() -> None:
    os._exit(KILLED)


def lose() -> None:
    raise httpx.ReadError("injected")


class Watch:
    """Stands before every request of this process.

    `made` are methods and queries. Strikes at the N-th request that changes something, when it is answered; `for_good`:
    and before whatever comes after it.
    """

    def __init__(self, at: int = 0, strike: Callable[[], None] = lose, *, for_good: bool = False) -> None:
        self.made: list[tuple[str, str]] = []
        self.changes = 0
        self._at = at
        self._strike = strike
        self._for_good = for_good

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Watch":
        real = S3Requests.sent

        @contextmanager
        def sent(
            requests: S3Requests,
            method: str,
            key: str,
            query: Mapping[str, str],
            headers: Mapping[str, str],
            body: Body,
            sha256: str | None,
        ) -> Iterator[httpx.Response]:
            if self._for_good and self._at and self.changes >= self._at:
                self._strike()
            self.made.append((method, f"{key}?{'&'.join(query)}"))
            with real(requests, method, key, query, headers, body, sha256) as response:
                if method in CHANGES:
                    self.changes += 1
                    if self.changes == self._at:
                        self._strike()
                yield response

        monkeypatch.setattr(S3Requests, "sent", sent)
        return self
