"""What tests of several packages share: one PostgreSQL server a session, a database of its own a test, and
embedded stacks as real processes.
"""

import asyncio
import gc
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import structlog

from stowage.data_dir import YOURS, DataDir
from stowage.embedded_postgres import EmbeddedPostgres
from tests import packing
from tests.quick import quick_directory

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.s3.server import S3Server

T = TypeVar("T")

# Hundreds of processes are started: each would compile the sources for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Thousands of connections to PostgreSQL are opened: none of its servers here speaks TLS.
os.environ["PGSSLMODE"] = "disable"
# A drawing of each logged traceback with its variables takes longer than the test that provokes it.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: archives hold times, and every worker must collect the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        packing.longest_first(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> packing.Packing | None:
    return packing.Packing(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: it stays to the end."""
    gc.freeze()


class PostgresServer:
    """The session's server; `url(database)` is `postgresql://…`."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._names = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection = self._wait(asyncpg.connect(self.url("postgres")))
        # The password is random: many rounds of hashing guard nothing and delay each connection.
        with suppress(asyncpg.UndefinedObjectError):  # before PostgreSQL 16
            self.execute("SET scram_iterations = 1")
            password = urlsplit(self.url("postgres")).password
            self.execute(f"ALTER ROLE CURRENT_USER PASSWORD '{password}'")

    def close(self) -> None:
        self._wait(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, database: str) -> str:
        return self.server.url(database)

    def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, a copy of the template when one is named; return its URL."""
        # FILE_COPY: without fsync its checkpoints are cheap, and the other way writes every page to the log.
        source = f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""
        self.execute(f'CREATE DATABASE "{name}"{source}')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, database: str = "postgres") -> None:
        async def run() -> None:
            if database == "postgres":
                await self._connection.execute(statement)
                return
            connection = await asyncpg.connect(self.url(database))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        self._wait(run())

    def fresh_name(self, purpose: str) -> str:
        return f"{purpose}_{next(self._names)}"

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def wait_for(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in an event loop of its own, whether or not one runs in this thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, coroutine).result()


class _Settling(asyncio.SelectorEventLoop):
    """Lets connections that were aborted last be closed, which the loop would do in its next round."""

    def close(self) -> None:
        if not self.is_closed() and not self.is_running():
            for _ in range(3):
                self.run_until_complete(asyncio.sleep(0))
        super().close()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": _Settling}


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with quick_directory(tmp_path_factory.mktemp("postgres")) as directory:
        server = EmbeddedPostgres(directory, durable=False)
        server.start()
        running = PostgresServer(server)
        yield running
        running.close()
        server.stop()


@pytest.fixture(scope="session")
def manager_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the manager's tables, to be copied and never written to."""
    from migrations import migrate_manager  # noqa: PLC0415 -- only tests that ask for tables need it

    wait_for(migrate_manager(postgres_server.create_database("manager_template")))
    return "manager_template"


@pytest.fixture(scope="session")
def compiled_once(manager_template: str) -> Iterator[None]:
    """Let the manager's engines share what they compile: each test makes some, and asks the same of them."""
    from manager import db  # noqa: PLC0415 -- as above

    make = db.create_async_engine
    first: dict[object, AsyncEngine] = {}

    def create(url: str, **details: Any) -> "AsyncEngine":
        engine = make(url, **details)
        other = first.setdefault(details.get("isolation_level"), engine).sync_engine
        engine.sync_engine.dialect, engine.sync_engine._compiled_cache = other.dialect, other._compiled_cache
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "create_async_engine", create)
        yield


@pytest.fixture
def manager_database_url(
    postgres_server: PostgresServer, manager_template: str, compiled_once: None
) -> Iterator[str]:
    """The URL of a fresh database with the manager's tables, empty."""
    name = postgres_server.fresh_name("manager")
    yield postgres_server.create_database(name, manager_template)
    postgres_server.drop_database(name)


@pytest.fixture
def proxy_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    name = postgres_server.fresh_name("proxy")
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["S3Server"]:
    """The session's S3 server; see `tests/s3/server.py`."""
    from tests.s3.server import running  # noqa: PLC0415 -- only tests that ask for it need it

    with quick_directory(tmp_path_factory.mktemp("s3")) as directory, running(directory) as server:
        yield server


class RunningStack:
    """`stowage up` as a process on a port of its own, ready; its directory outlives it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        hf_endpoint: str | None = None,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        proxy_settings: str = "",
        manager_settings: str = "",
    ) -> None:
        """Start it and wait until imports can be ordered.

        hf_endpoint: the registry; None starts the sample hub. proxy_settings, manager_settings: further TOML tables,
        such as `[transfer]`, for a first start.
        """
        self.dir = DataDir(data_dir)
        self.output = data_dir.with_name(f"{data_dir.name}.out")
        data_dir.mkdir(parents=True, exist_ok=True)
        for path, settings in (
            (self.dir.proxy_config, proxy_settings),
            (self.dir.manager_config, manager_settings),
        ):
            if settings:
                path.write_text(f"{YOURS}\n{settings}\n")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("STOWAGE_", "HF_"))}
        registry = {"HF_ENDPOINT": hf_endpoint} if hf_endpoint else {}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "stowage", "up", "--data-dir", str(data_dir)),
                    *("--listen", "127.0.0.1:0", *arguments, *([] if hf_endpoint else ["--sample-hub"])),
                ],
                env=kept | {"STOWAGE_FSYNC": "off"} | registry | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._client = httpx.Client(trust_env=False, timeout=30)
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def state(self) -> dict[str, Any]:
        """What `stack.json` says now."""
        state = json.loads(self.dir.state.read_text())
        assert isinstance(state, dict)
        return state

    @property
    def url(self) -> str:
        return str(self.state["url"])

    @property
    def token(self) -> str:
        return self.dir.admin_token.read_text().strip()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by part: hub (sample hub only), postgres, proxy, worker, manager; and the supervisor."""
        return {"supervisor": self.process.pid, **self.state["processes"]}

    @property
    def volume(self) -> Path:
        """Where the folders of `local:volume1` lie."""
        return self.dir.volume

    def log(self, part: str) -> str:
        return (self.dir.logs / f"{part}.log").read_text()

    def post(
        self, query: str, variables: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> dict[str, Any]:
        """Send a GraphQL request as the administrator, or with another token; return the whole answer."""
        answer = self._client.post(
            f"{self.url}/graphql",
            json={"query": query, "variables": dict(variables or {})},
            headers={"Authorization": f"Bearer {token or self.token}"},
        )
        body = answer.json()
        assert isinstance(body, dict)
        return body

    def graphql(
        self, query: str, variables: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> dict[str, Any]:
        """Send a GraphQL request that is expected to succeed; return its data."""
        body = self.post(query, variables, token=token)
        assert not body.get("errors"), body["errors"]
        data = body["data"]
        assert isinstance(data, dict)
        return data

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a part a signal, kill -9 unless told otherwise; return the process id that it had."""
        pid = self.pids[part]
        os.kill(pid, number)
        return pid

    def kill_all(self) -> None:
        """Kill -9 every process at once."""
        for pid in self.pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def is_ready(self) -> bool:
        try:
            # Costs less than a request that is refused, while the parts need all there is.
            socket.create_connection(("127.0.0.1", self.state["ports"]["manager"])).close()
            return self._client.get(f"{self.url}/readyz").status_code == httpx.codes.OK
        except (httpx.HTTPError, OSError, ValueError):
            return False

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until this process (not a predecessor) supervises a stack that is ready."""
        deadline = time.monotonic() + timeout
        while not (self._is_ours() and self.is_ready()):
            told = self.output.read_text()
            assert self.process.poll() is None, f"up ended with {self.process.returncode}:\n{told}"
            assert time.monotonic() < deadline, f"not ready in time:\n{told}"
            time.sleep(0.05)

    def _is_ours(self) -> bool:
        try:
            return bool(self.state["pid"] == self.process.pid)
        except (OSError, ValueError):
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it as a person would, if it runs; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self._client.close()
        return self.process.wait()


@pytest.fixture
def start_stack() -> Iterator[Callable[..., RunningStack]]:
    """Start stacks (see `RunningStack`) that end with the test: `start_stack(tmp_path / "data", hf_endpoint=…)`."""
    stacks: list[RunningStack] = []

    def start(data_dir: Path, **details: Any) -> RunningStack:
        stacks.append(RunningStack(data_dir, **details))
        return stacks[-1]

    yield start
    for stack in stacks:
        stack.stop()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The session's stack, with the sample hub. Kill nothing of it: use `start_stack` for that."""
    stack = RunningStack(tmp_path_factory.mktemp("stack") / "data")
    yield stack
    stack.stop()
