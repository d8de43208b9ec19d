"""Two managers on one database before one storage proxy: what their subscribers see, and what it costs upstream."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from stowage.processes import free_port
from tests.conftest import PostgresServer
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import make_model
from tests.graphql.sockets import PROTOCOL, WATCH, SocketClient
from tests.parts.installation import Installation, wait_until

SUBSCRIBERS = 200
CONNECTIONS = 10
BIG = 400_000

# What the proxy's own process finds before anything else: one of its doors is broken as a bug would break it.
PLANTED = """
import storage_proxy.api

async def vfolder_files(*_):
    raise RuntimeError("a planted fault in /srv/secret")

storage_proxy.api.vfolder_files = vfolder_files
"""


class Tap:
    """Forwards TCP to a port of this machine, and counts the event streams that are asked for through it."""

    def __init__(self, port: int, to: int) -> None:
        self._ports = (port, to)
        self.asked = 0
        self.open = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._forward, "127.0.0.1", self._ports[0]):
            self._started.set()
            await self._end.wait()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams = 0
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", self._ports[1])
            answers = asyncio.create_task(self._copy(inner, writer))
            try:
                while data := await reader.read(1 << 16):
                    found = data.count(b"GET /imports/events ")
                    streams += found
                    self.asked += found
                    self.open += found
                    outer.write(data)
            finally:
                answers.cancel()
                outer.close()
        except OSError:
            pass
        finally:
            self.open -= streams
            writer.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultHub]:
    with FaultHub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


class Pair(Installation):
    """Managers `manager` and `second`, whose way to the proxy leads through a tap."""

    tap: Tap
    second_url: str

    def prepare(self) -> None:
        told = self.config("manager").read_text()
        (proxy,) = re.findall(r'\[storage-proxies.east\]\nurl = "http://127.0.0.1:(\d+)"', told)
        tapped, port = free_port(), free_port()
        self.tap = Tap(tapped, int(proxy))
        told = told.replace(f":{proxy}", f":{tapped}")
        self.config("manager").write_text(told)
        self.second_url = f"http://127.0.0.1:{port}"
        # Whoever may die is not the one that the proxy asks whether an import may still write.
        asks = self.config("east").read_text().replace(self.url, self.second_url)
        self.config("east").write_text(asks)
        self.config("second").write_text(told.replace(self.url.removeprefix("http://"), f"127.0.0.1:{port}"))


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, hub: FaultHub
) -> Iterator[Pair]:
    url = postgres_server.create_database(postgres_server.fresh_name("live"))
    directory = tmp_path_factory.mktemp("live")
    site = Pair(directory, url, hub.url, ("east",))
    site.prepare()
    (directory / "planted").mkdir()
    (directory / "planted" / "sitecustomize.py").write_text(PLANTED)
    with site.tap:
        site.make_tables()
        site.start("east", "proxy", "east", PYTHONPATH=str(directory / "planted"))
        site.start("worker", "worker", "east")
        site.start("manager", "manager", "manager")
        try:
            site.wait_ready()
            # It leads from now on: the second one stands by.
            wait_until(lambda: site.tap.open == 1, "nobody follows the proxy")
            site.start("second", "manager", "second")
            wait_until(lambda: ready(site.second_url), "the second manager is not ready")
            yield site
        finally:
            site.stop()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@pytest.fixture
def task(site: Pair, hub: FaultHub) -> Iterator[str]:
    """An import whose bytes stop half-way until the hub's rule is cleared."""
    name = f"org/{uuid4().hex}"
    make_model(hub.directory, name, {"config.json": b"{}", "big.bin": BIG})
    hub.set(Rule(path=f"{name}/resolve/.*big.bin", stall_after=BIG // 2))
    task_id = site.order(name, site.folder("east:volume1"))
    wait_until(lambda: site.status(task_id) == "RUNNING", "the import does not run")
    yield task_id
    hub.clear()
    site.finished(task_id)


@asynccontextmanager
async def connected(url: str, token: str) -> AsyncIterator[SocketClient]:
    address = f"{url.replace('http:', 'ws:')}/graphql"
    async with connect(address, subprotocols=[Subprotocol(PROTOCOL)], proxy=None) as connection:
        client = SocketClient(connection)
        await client.init({"Authorization": f"Bearer {token}"})
        yield client


async def subscribed(client: SocketClient, task_id: str, number: int) -> None:
    """Subscribe so often, and wait for the first result of each."""
    for key in range(number):
        await client.subscribe(str(key), WATCH, task=task_id)
    for key in range(number):
        assert status(await client.next(str(key))) == "RUNNING"


async def to_the_end(client: SocketClient, number: int = 1) -> list[str]:
    """Return the last status that each subscription told before it was complete."""
    last = dict.fromkeys(map(str, range(number)), "nothing")
    ended: set[str] = set()
    while len(ended) < number:
        message = await client.receive()
        if message["type"] == "complete":
            ended.add(message["id"])
        else:
            assert message["type"] == "next", message
            last[message["id"]] = status(message["payload"]["data"])
    return list(last.values())


def status(data: dict[str, Any]) -> str:
    return str(data["importTaskUpdated"]["status"])


def test_many_subscribers_of_two_managers_cost_one_stream(site: Pair, hub: FaultHub, task: str) -> None:
    before = site.tap.asked
    each = SUBSCRIBERS // CONNECTIONS

    async def run() -> list[list[str]]:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connected(url, site.token))
                for url in (site.url, site.second_url) * (CONNECTIONS // 2)
            ]
            for client in clients:
                await subscribed(client, task, each)
            assert site.tap.open == 1
            hub.clear()
            return [await to_the_end(client, each) for client in clients]

    # The second manager follows nothing itself, and tells its subscribers all the same.
    assert asyncio.run(run()) == [["SUCCEEDED"] * each] * CONNECTIONS
    assert (site.tap.open, site.tap.asked) == (1, before)


def test_a_subscriber_of_a_manager_that_dies_loses_nothing_that_matters(
    site: Pair, hub: FaultHub, task: str
) -> None:
    async def run() -> tuple[list[str], list[str]]:
        async with connected(site.second_url, site.token) as other:
            await subscribed(other, task, 1)
            async with connected(site.url, site.token) as client:
                await subscribed(client, task, 1)
                site.kill("manager")
                await client.closed()
            # The outcome comes while the second manager is alone: it follows the proxy from now on.
            hub.clear()
            there = await to_the_end(other)
        site.start("manager", "manager", "manager")
        await asyncio.to_thread(site.wait_ready)
        async with connected(site.url, site.token) as client:
            await client.subscribe("0", WATCH, task=task)
            return there, await to_the_end(client)

    assert asyncio.run(run()) == (["SUCCEEDED"], ["SUCCEEDED"])
    wait_until(lambda: site.tap.open == 1, "not one manager follows the proxy")


def test_a_fault_of_the_inside_is_in_both_logs_by_its_request_id(site: Pair) -> None:
    folder = site.folder("east:volume1")
    query = "query ($folder: ID!) { vfolderFiles(vfolderId: $folder) { path } }"
    answer = httpx.post(
        f"{site.second_url}/graphql",
        json={"query": query, "variables": {"folder": folder}},
        headers={"Authorization": f"Bearer {site.token}"},
        trust_env=False,
    )
    request_id = answer.headers["X-Request-Id"]
    (error,) = answer.json()["errors"]
    assert error["message"] == f"internal error, request id {request_id}"
    assert error["extensions"] == {"code": "INTERNAL"}
    assert "planted" not in answer.text
    for part in ("second", "east"):
        told = [line for line in records(site.log(part)) if line.get("request_id") == request_id]
        assert told, part
        assert any("exception" in line for line in told), part
    assert "a planted fault" in site.log("east")
    assert "planted" not in site.log("second")


def records(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def test_the_logs_of_an_import_have_the_request_that_asked_for_it(
    site: Pair, hub: FaultHub, task: str
) -> None:
    hub.clear()
    site.finished(task)
    (row,) = site.rows("SELECT request_id FROM import_tasks WHERE id::text = $1", task)
    for part in ("manager", "worker"):
        assert [line for line in records(site.log(part)) if line.get("request_id") == row["request_id"]], part
