"""A source that is far away: many connections wait for it side by side."""

import pytest

from tests.faults.hub import Rule
from tests.proxy.running import Proxy

pytestmark = pytest.mark.anyio

BUCKETS = ()


async def test_small_files_from_far_away_come_over_all_connections_that_a_host_may_have(proxy: Proxy) -> None:
    model = proxy.model({f"{number}.json": f"{number}".encode() for number in range(160)})
    proxy.hub.set(Rule(path=f"{model.id}/resolve/", delay=0.2))
    proxy.hub.forget()

    await proxy.succeeded(await proxy.order(model, "folder", "folder", "folder"))

    assert proxy.hub.max_open_downloads == 16
