"""Many clients of one HTTP server, each with one kept connection and one request at a time."""

import asyncio
import itertools
import json
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class RequestFailed(Exception):
    """An answer was not what a GraphQL request hopes for."""


@dataclass(frozen=True)
class Rate:
    """What a crowd of clients got."""

    clients: int
    per_second: float
    median_ms: float
    p99_ms: float


def requests(port: int, token: str, query: str, variables: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Yield one GraphQL request for each set of variables, as the bytes that go over the wire."""
    for each in variables:
        body = json.dumps({"query": query, "variables": each}).encode()
        head = (
            f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


async def rate(port: int, asked: Iterator[bytes], *, clients: int, seconds: float) -> Rate:
    """Send requests from many clients for some seconds, each client's next one after its answer.

    Raises `RequestFailed` if any answer is an error.
    """
    took: list[float] = []
    # The first requests of a process are slower: they are sent, and not counted.
    counted_from = time.perf_counter() + seconds / 5
    end = ended = counted_from + seconds

    async def client() -> None:
        nonlocal ended
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            # On a slow machine it takes longer until there is something to say of.
            while (begun := time.perf_counter()) < end or len(took) < 2 * clients:
                writer.write(next(asked))
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if not head.startswith(b"HTTP/1.1 200") or b'"errors"' in body:
                    raise RequestFailed((head + body)[:1000].decode(errors="replace"))
                if begun >= counted_from:
                    took.append((ended := time.perf_counter()) - begun)
        finally:
            writer.close()

    await asyncio.gather(*itertools.starmap(client, [()] * clients))
    cuts = statistics.quantiles(took, n=100)
    return Rate(clients, len(took) / (ended - counted_from), cuts[49] * 1e3, cuts[98] * 1e3)
