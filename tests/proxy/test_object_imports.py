"""Imports through buckets: cancelled, killed, and with an object storage that is slow."""

import asyncio
from pathlib import Path

import pytest

from proxy_client.wire import ArtifactStorageImportStep
from tests.e2e.world import Files
from tests.faults.hub import Rule
from tests.faults.imports import LOST, fetched_again
from tests.proxy.running import MIB, Proxy, remove_abandoned

pytestmark = pytest.mark.anyio

FILES: Files = {"weights/big.bin": 24 * MIB + 5, "weights/small.bin": 300_000, "empty": b""}
LIMIT = 200 * MIB
_DOWNLOAD, _VERIFY, ARCHIVE = ArtifactStorageImportStep


async def uploads(proxy: Proxy, bucket: str = "bucket") -> int:
    client = proxy.buckets[bucket].client
    return await asyncio.to_thread(lambda: len(list(client.list_uploads(proxy.buckets[bucket].prefix))))


async def insist_on_nothing_staged(proxy: Proxy) -> None:
    """What was begun and not written down when a worker was killed is removed by its age."""
    await remove_abandoned(proxy)
    assert await proxy.staged() == []


async def begin_to_send(proxy: Proxy, *, least: int) -> None:
    """Wait until an upload is open and so many bytes more went to the object storage."""
    async with asyncio.timeout(60):
        while not await uploads(proxy):
            await asyncio.sleep(0.02)
    begun = proxy.front.sent
    await proxy.until(lambda: proxy.front.sent >= begun + least)


async def insist_on_silence(proxy: Proxy, before: int) -> None:
    """Wait until nothing goes to the hub or the object storage any more but what cleans up.

    Of what an import that goes on sends after `before`, the big file, much has to be missing then.
    """
    await proxy.until(lambda: not proxy.hub.open_downloads)
    async with asyncio.timeout(60):
        sent = -MIB
        while proxy.front.sent - sent >= MIB // 8:
            sent = proxy.front.sent
            await asyncio.sleep(0.5)
    assert proxy.front.sent - before < 20 * MIB


# Cancel.


async def test_a_cancel_while_pieces_are_written_leaves_none(proxy: Proxy) -> None:
    model = proxy.model(FILES)
    proxy.hub.set(Rule(path="big.bin", stall_at=11 * MIB))
    before = proxy.front.sent
    task_id = await proxy.order(model, "bucket", "a", "b")
    await proxy.until(lambda: any("/piece-" in key for key in proxy.buckets["bucket"].staged()))

    await proxy.site.jobs.request_cancel(task_id)

    await insist_on_silence(proxy, before)
    await proxy.cancelled(task_id)


async def test_a_cancel_while_parts_are_sent_stops_them_and_aborts_the_upload(proxy: Proxy) -> None:
    model = proxy.model(FILES)
    proxy.front.rate = MIB
    before = proxy.front.sent
    task_id = await proxy.order(model, "a", "a", "bucket")
    await begin_to_send(proxy, least=MIB)

    await proxy.site.jobs.request_cancel(task_id)

    await insist_on_silence(proxy, before)
    await proxy.cancelled(task_id)
    assert await proxy.digests("bucket", model) == {}


@pytest.mark.parametrize("download", ["a", "bucket"])
async def test_a_cancel_before_the_last_permission_aborts_what_was_sent_whole(
    proxy: Proxy, download: str
) -> None:
    model = proxy.model(FILES)
    asked = proxy.manager.asked
    proxy.hub.set(Rule(path="big.bin", stall_after=0))
    task_id = await proxy.order(model, download, "a", "other-bucket")
    await proxy.until(lambda: proxy.hub.open_downloads)
    proxy.manager.held = True
    proxy.hub.clear()
    await proxy.until(lambda: proxy.manager.asked == asked + 2)
    assert await uploads(proxy, "other-bucket") == 1

    await proxy.cancelled(task_id)

    assert await proxy.digests("other-bucket", model) == {}


# kill -9.


async def test_a_download_into_a_bucket_goes_on_by_range(proxy: Proxy) -> None:
    model = proxy.model(FILES)
    proxy.hub.set(Rule(path="big.bin", stall_at=11 * MIB))
    task_id = await proxy.order(model, "bucket", "a", "other-bucket")
    await proxy.until(lambda: any("/piece-" in key for key in proxy.buckets["bucket"].staged()))
    await proxy.until(lambda: proxy.hub.sent("big.bin") >= 11 * MIB)

    proxy.kill_worker()
    await asyncio.to_thread(proxy.hub.wait_for_cut)
    proxy.hub.clear()
    proxy.start_worker()

    await proxy.succeeded(task_id)
    assert await proxy.digests("other-bucket", model) == model.digests
    assert max(fetched_again(proxy.hub.downloads(model.id)).values()) <= LOST
    await insist_on_nothing_staged(proxy)


async def test_an_upload_goes_on_with_the_parts_that_are_there(proxy: Proxy) -> None:
    model = proxy.model(FILES)
    proxy.front.rate = 4 * MIB
    task_id = await proxy.order(model, "a", "a", "bucket")
    await begin_to_send(proxy, least=10 * MIB)
    asked = len(proxy.hub.downloads())

    proxy.kill_worker()
    proxy.front.rate = None
    before = proxy.front.sent
    proxy.start_worker()

    await proxy.succeeded(task_id)
    assert await proxy.digests("bucket", model) == model.digests
    assert proxy.front.sent - before < 24 * MIB
    assert len(proxy.hub.downloads()) == asked
    await insist_on_nothing_staged(proxy)


async def test_a_worker_killed_while_it_publishes_to_a_bucket_leaves_nothing_undone(proxy: Proxy) -> None:
    model = proxy.model(FILES | {f"{number % 5}/{number}.txt": f"{number}".encode() for number in range(40)})
    task_id = await proxy.order(model, "a", "a", "bucket")
    for pause in (0.0, 0.1, 0.2):
        await proxy.is_at(task_id, ARCHIVE)
        await asyncio.sleep(pause)
        proxy.kill_worker()
        proxy.start_worker()

    await proxy.succeeded(task_id)

    assert await proxy.digests("bucket", model) == model.digests
    await insist_on_nothing_staged(proxy)


async def test_a_worker_removes_what_nobody_will_finish(proxy: Proxy) -> None:
    bucket = proxy.buckets["bucket"]
    await asyncio.to_thread(bucket.client.create_upload, f"{bucket.prefix}/org/gone/main/big.bin", {})
    assert await uploads(proxy) == 1
    await asyncio.sleep(2)

    proxy.kill_worker()
    proxy.start_worker()

    async with asyncio.timeout(60):
        while await uploads(proxy):
            await asyncio.sleep(0.1)


# Memory.


@pytest.mark.parametrize(("download", "archive"), [("a", "bucket"), ("bucket", "b")])
async def test_memory_stays_flat_with_a_slow_object_storage(
    proxy: Proxy, download: str, archive: str
) -> None:
    model = proxy.model({"big.bin": 160 * MIB})
    proxy.front.rate = 30 * MIB
    assert proxy.worker is not None
    process = Path(f"/proc/{proxy.worker.pid}")
    (process / "clear_refs").write_text("5")  # proc(5): begin the peak anew

    await proxy.succeeded(await proxy.order(model, download, "a", archive), 100)

    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    assert int(status["VmHWM"].split()[0]) * 1024 < LIMIT
