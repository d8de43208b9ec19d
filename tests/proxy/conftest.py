from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from migrations import migrate_proxy
from storage_proxy.settings import load_settings
from storage_proxy.site import Site
from storage_proxy.storages.object import ObjectStorage
from tests.conftest import PostgresServer
from tests.faults.hub import FaultHub
from tests.proxy.running import Manager, Proxy, write_settings
from tests.proxy.test_jobs import SCHEMA
from tests.s3.front import front_of
from tests.s3.place import Bucket, bucket_of
from tests.s3.server import S3Server

BUCKETS = ("bucket", "other-bucket")


@pytest.fixture(scope="module")
async def running_proxy(
    request: pytest.FixtureRequest,
    anyio_backend: object,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
) -> AsyncIterator[Proxy]:
    """A module may have `TRANSFER`, further settings of the table [transfer], and `BUCKETS`, to be without."""
    directory = tmp_path_factory.mktemp("proxy")
    (directory / "hub").mkdir()
    name = postgres_server.fresh_name("proxy")
    url = postgres_server.create_database(name)
    await migrate_proxy(url, SCHEMA)
    with ExitStack() as stack:
        hub = stack.enter_context(FaultHub(directory / "hub"))
        manager = stack.enter_context(Manager())
        proxy = Proxy(directory, hub, manager)
        behind = {}
        if names := getattr(request.module, "BUCKETS", BUCKETS):
            server: S3Server = request.getfixturevalue("s3_server")
            proxy.front = stack.enter_context(front_of(server.endpoint))
            proxy.credentials = server.credentials
            whole = stack.enter_context(bucket_of(server, parallel_parts=2))
            for bucket in names:
                section = whole.section.model_copy(update={"prefix": f"{bucket}/ü b"})
                storage = ObjectStorage(bucket, section, lambda: server.credentials)
                stack.callback(storage.client.close)
                proxy.buckets[bucket] = Bucket(storage, whole.client, section.prefix, section)
                behind[bucket] = section.model_copy(update={"endpoint": proxy.front.url})
        config = write_settings(proxy, url, behind, getattr(request.module, "TRANSFER", ""))
        async with Site.open(load_settings(config)) as proxy.site:
            await proxy.site.volume_pool.get_volume("one").create_vfolder(proxy.vfid)
            proxy.start_worker()
            try:
                yield proxy
            finally:
                proxy.kill_worker()
    postgres_server.drop_database(name)


@pytest.fixture
def proxy(running_proxy: Proxy) -> Iterator[Proxy]:
    """The module's proxy, with a worker, a good hub and a quick front."""
    running_proxy.hub.forget()
    if running_proxy.worker is None:
        running_proxy.start_worker()
    yield running_proxy
    running_proxy.hub.clear()
    running_proxy.manager.held = False
    if running_proxy.buckets:
        running_proxy.front.held, running_proxy.front.rate = False, None
