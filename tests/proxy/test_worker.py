"""What a worker makes of an import that others began."""

import asyncio
import uuid
from pathlib import Path

import pytest

from migrations import migrate_proxy
from proxy_client.wire import ImportState
from storage_proxy.settings import load_settings
from storage_proxy.site import Site
from storage_proxy.worker import Worker
from tests.conftest import PostgresServer
from tests.proxy.test_jobs import SCHEMA, order

pytestmark = pytest.mark.anyio


def config(directory: Path, database_url: str) -> Path:
    (directory / "database").write_text(database_url)
    (directory / "secret").write_text("s" * 40)
    (directory / "archive").mkdir()
    (directory / "proxy.toml").write_text(
        """
        [proxy]
        name = "local"
        database-file = "database"
        secret-file = "secret"
        manager-url = "http://127.0.0.1:1"
        [artifact-storages.archive]
        path = "archive"
        [artifact-registries.hub]
        url = "http://127.0.0.1:1"
        """
    )
    return directory / "proxy.toml"


async def until(site: Site, task_id: uuid.UUID, state: ImportState) -> None:
    async with asyncio.timeout(20):
        while (await site.jobs.report(task_id)).state is not state:
            await asyncio.sleep(0.05)


async def test_an_import_that_was_published_can_only_succeed(tmp_path: Path, proxy_database_url: str) -> None:
    await migrate_proxy(proxy_database_url, SCHEMA)
    asked, stop = order(), asyncio.Event()
    async with Site.open(load_settings(config(tmp_path, proxy_database_url))) as site:
        await site.jobs.accept(asked)
        attempt = await site.jobs.start(asked.task_id, uuid.uuid4())
        assert attempt is not None
        counted = {"files_done": 3, "bytes_done": 7, "published": True}
        await site.jobs.record(asked.task_id, attempt.fence, counted)
        # Its worker dies here. The hub and the manager are away: whoever asked them would fail the import.
        worker = asyncio.create_task(Worker(site, stop).run())
        await until(site, asked.task_id, ImportState.SUCCEEDED)
        report = await site.jobs.report(asked.task_id)
        stop.set()
        await worker
    assert (report.files_done, report.bytes_done) == (3, 7)


async def test_a_worker_goes_on_looking_for_orphans_after_a_fault(
    tmp_path: Path, proxy_database_url: str, postgres_server: PostgresServer
) -> None:
    await migrate_proxy(proxy_database_url, SCHEMA)
    database, stop = proxy_database_url.rpartition("/")[2], asyncio.Event()
    async with Site.open(load_settings(config(tmp_path, proxy_database_url))) as site:
        worker = asyncio.create_task(Worker(site, stop).run())
        async with asyncio.timeout(30):
            while not await site.jobs.live_workers(60):
                await asyncio.sleep(0.05)
            await asyncio.to_thread(
                postgres_server.execute, f"ALTER TABLE {SCHEMA}.workers RENAME TO gone", database
            )
            await asyncio.sleep(1.5)
            await asyncio.to_thread(
                postgres_server.execute, f"ALTER TABLE {SCHEMA}.gone RENAME TO workers", database
            )
            await asyncio.to_thread(postgres_server.execute, f"DELETE FROM {SCHEMA}.workers", database)
            while not await site.jobs.live_workers(60):
                await asyncio.sleep(0.05)
        stop.set()
        await worker
