import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from migrations import migrate_proxy
from storage_proxy import api
from storage_proxy.imports.jobs import ImportJobs

pytestmark = pytest.mark.anyio

SCHEMA = "stowage_proxy"


@pytest.fixture
async def jobs(proxy_database_url: str) -> AsyncIterator[ImportJobs]:
    await migrate_proxy(proxy_database_url, SCHEMA)
    async with ImportJobs.open(proxy_database_url, SCHEMA) as opened:
        yield opened


async def test_an_event_stream_whose_waker_has_nothing_to_tell_is_not_silent(
    jobs: ImportJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "KEEPALIVE_SECONDS", 0.3)
    site: Any = SimpleNamespace(jobs=jobs)

    async def stir() -> None:
        while True:
            async with jobs.changing():
                pass

    stirring = asyncio.create_task(stir())
    events = api._events(site, 0)
    try:
        async with asyncio.timeout(20):
            assert (await anext(events)).startswith(": follows")
            for _ in range(3):
                assert await anext(events) == ": still here\n\n"
    finally:
        stirring.cancel()
        await asyncio.wait([stirring])
        await events.aclose()
