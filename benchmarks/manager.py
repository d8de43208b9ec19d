"""What the manager adds to its database: a mutation beside its own SQL, requests per second, pages of a long list."""

import itertools
import json
import os
import secrets
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks import hostile, load
from benchmarks.sources import running, wait_for
from manager.app import create_app
from manager.settings import load_settings
from migrations import migrate_manager
from proxy_client import logs
from stowage.embedded_postgres import EmbeddedPostgres
from stowage.processes import free_port

ARTIFACTS = 100_000
BATCHES = (1, 500)
CLIENTS = 50
_PAGE = 10
_PAGES = (1, 5_000, 10_000)

Json = dict[str, Any]
Ask = Callable[[str, Json], Awaitable[Json]]
Send = Callable[..., Awaitable[Json]]

_CONFIGURATION = """
[manager]
database-file = "{directory}/database-url"
listen = "127.0.0.1:{manager}"
[storage-proxies.local]
url = "http://127.0.0.1:{proxy}"
secret-file = "{directory}/secret"
[artifact-registry]
default = "hub"
proxy = "local"
[artifact-registries.hub]
url = "http://127.0.0.1:9"
[vfolder]
default-host = "local:volume1"
# Nothing is to happen beside what is measured.
[reconciler]
order-interval = 3600
reconnect-delay = 3600
silence-limit = 3600
"""
_ROWS = (
    """INSERT INTO artifacts (id, registry_id, name, type, described, readonly, scanned_at, updated_at, availability)
       SELECT md5('artifact' || n)::uuid, id, 'org' || n % 97 || '/model-' || lpad(n::text, 6, '0'),
              'MODEL', false, true, now(), now(), 'ALIVE'
         FROM generate_series(1, $1::int) n, artifact_registries WHERE artifact_registries.name = 'hub'""",
    """INSERT INTO artifact_revisions (id, artifact_id, version, status, size, digest, created_at, updated_at)
       SELECT md5('revision' || n)::uuid, md5('artifact' || n)::uuid, 'main', 'SCANNED', 1000,
              md5('commit' || n) || '01234567', now(), now()
         FROM generate_series(1, $1::int) n""",
)
_IMPORT = """mutation ($revisions: [ID!]!, $folder: ID!) {
  importArtifacts(input: {artifactRevisionIds: $revisions, vfolderId: $folder}) { tasks { taskId } } }"""
_FOLDER = 'mutation { createVfolder(input: {name: "bench"}) { vfolder { id } } }'
_ARTIFACTS = """query ($first: Int, $after: String, $limit: Int, $offset: Int) {
  artifacts(first: $first, after: $after, limit: $limit, offset: $offset) {
    edges { cursor node { id name } } pageInfo { hasNextPage } } }"""
_REVISION = """query ($id: ID!) { artifactRevision(id: $id) {
  id version status size digest artifact { id name } } }"""
_FORGET = "DELETE FROM import_tasks; DELETE FROM audit_log"
_ME = "{ me { email } }"


@dataclass(frozen=True)
class Mutation:
    """An import of so many revisions; medians in seconds.

    sql: its statements by asyncpg, on a connection of the same pool. committed: until its tasks are durable.
    answered: until the answer, with every order placed at a storage proxy (another process) that accepts at once.
    """

    revisions: int
    statements: int
    sql: float
    committed: float
    answered: float


@dataclass(frozen=True)
class Page:
    """A page of the catalogue; medians in seconds."""

    number: int
    by_cursor: float
    by_offset: float


@dataclass
class _Recorder:
    """The statements of requests, with the beginnings and ends of their transactions."""

    statements: list[tuple[str, Sequence[Any]]] = field(default_factory=list)
    first_commit: float = 0.0

    def attach(self, engine: AsyncEngine) -> None:
        def note(text: str, values: Sequence[Any] = ()) -> None:
            # What the manager does beside requests has no request id.
            if "request_id" in structlog.contextvars.get_contextvars():
                self.statements.append((text, values))

        def statement(_connection: Any, _cursor: Any, text: str, values: Any, *_rest: Any) -> None:
            note(text, values)

        def commit(_connection: Any) -> None:
            note("COMMIT")
            self.first_commit = self.first_commit or time.perf_counter()

        event.listen(engine.sync_engine, "before_cursor_execute", statement)
        event.listen(engine.sync_engine, "begin", lambda _connection: note("BEGIN"))
        event.listen(engine.sync_engine, "commit", commit)
        event.listen(engine.sync_engine, "rollback", lambda _connection: note("ROLLBACK"))

    def clear(self) -> None:
        self.statements, self.first_commit = [], 0.0


async def measure(directory: Path, *, quick: bool, say: Callable[[str], None]) -> Json:
    """Return everything measured, as JSON values. The directory is empty, and removed afterwards."""
    try:
        with ExitStack() as stack:
            url = stack.enter_context(_postgres(directory))
            ports = {"manager": free_port(), "proxy": free_port()}
            (directory / "database-url").write_text(url)
            (directory / "secret").write_text(secrets.token_urlsafe(32))
            (directory / "token").write_text(f"stw_{secrets.token_urlsafe(32)}")
            (directory / "manager.toml").write_text(_CONFIGURATION.format(directory=directory, **ports))
            await migrate_manager(url)
            proxy = [sys.executable, "-m", "benchmarks.stand_in", str(ports["proxy"])]
            stack.enter_context(running(proxy, directory / "proxy.log"))
            wait_for(ports["proxy"], directory / "proxy.log")
            async with _manager(directory) as (send, recorder, engine):
                ask = _insisting(send)
                say(f"Making a catalogue of {ARTIFACTS:,} artifacts")
                await _fill(url)
                folder = (await ask(_FOLDER, {}))["createVfolder"]["vfolder"]["id"]
                say("Measuring importArtifacts beside its SQL")
                mutations = [
                    await _mutation(ask, recorder, engine, url, folder, count, 5 if quick else 25)
                    for count in BATCHES
                ]
                say("Measuring pages of the catalogue")
                pages = [await _page(ask, number, 5 if quick else 50) for number in _PAGES]
                say("Measuring documents that are written to cost much")
                refusals = await hostile.measure(send, 3 if quick else 10)
            say(f"Measuring requests per second of {CLIENTS} clients")
            rates = await _rates(directory, ports["manager"], folder, 1.5 if quick else 8.0)
        return {
            "artifacts": ARTIFACTS,
            "importArtifacts": [asdict(each) for each in mutations],
            "pages": [asdict(each) for each in pages],
            "hostile": [asdict(each) for each in refusals],
            "rates": {name: asdict(each) for name, each in rates.items()},
        }
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _postgres(directory: Path) -> Iterator[str]:
    server = EmbeddedPostgres(directory / "postgres")
    server.start()
    try:
        yield server.url()
    finally:
        server.stop()


@asynccontextmanager
async def _manager(directory: Path) -> AsyncIterator[tuple[Send, _Recorder, AsyncEngine]]:
    """Run the manager in this process; yields how to send it a document, what it asks its database, and the latter's engine."""
    # It logs as ever, where it disturbs nobody; what logs is what stderr is now.
    with (directory / "log").open("w") as log:
        with redirect_stderr(log):
            logs.configure("manager")
        async with _asked(directory) as asked:
            yield asked


@asynccontextmanager
async def _asked(directory: Path) -> AsyncIterator[tuple[Send, _Recorder, AsyncEngine]]:
    app = create_app(load_settings(directory / "manager.toml"), admin_token_file=directory / "token")
    headers = {"Authorization": f"Bearer {(directory / 'token').read_text()}"}
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://manager", headers=headers) as http,
    ):

        async def send(query: str, variables: Json | None = None) -> Json:
            answer = await http.post("/graphql", json={"query": query, "variables": variables})
            return cast("Json", answer.json())

        engine = app.state.services.database.engine
        recorder = _Recorder()
        recorder.attach(engine)
        yield send, recorder, engine


def _insisting(send: Send) -> Ask:
    """Return how to ask for data: an answer with errors is raised."""

    async def ask(query: str, variables: Json) -> Json:
        answer = await send(query, variables)
        if "errors" in answer:
            raise load.RequestFailed(json.dumps(answer["errors"]))
        return cast("Json", answer["data"])

    return ask


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in _ROWS:
            await connection.execute(statement, ARTIFACTS)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def _mutation(
    ask: Ask, recorder: _Recorder, engine: AsyncEngine, url: str, folder: str, count: int, rounds: int
) -> Mutation:
    cleaner = await asyncpg.connect(url)
    rows = await cleaner.fetch("SELECT id::text FROM artifact_revisions ORDER BY id LIMIT $1", count)
    variables = {"revisions": [row["id"] for row in rows], "folder": folder}
    sql, committed, answered = [], [], []
    try:
        for number in range(rounds + 1):
            await cleaner.execute(_FORGET)
            recorder.clear()
            begun = time.perf_counter()
            await ask(_IMPORT, variables)
            told = time.perf_counter()
            statements, first_commit = recorder.statements, recorder.first_commit
            await cleaner.execute(_FORGET)
            async with engine.connect() as connection:
                pooled = (await connection.get_raw_connection()).driver_connection
                seconds = await _replay(cast("asyncpg.Connection[Any]", pooled), statements)
            if number:  # the first round fills caches
                sql.append(seconds)
                committed.append(first_commit - begun)
                answered.append(told - begun)
        made = await cleaner.fetchval("SELECT count(*) FROM import_tasks")
        if made != count:
            raise load.RequestFailed(f"the statements made {made} tasks instead of {count}")
        await cleaner.execute(_FORGET)
    finally:
        await cleaner.close()
    return Mutation(count, len(statements), *(statistics.median(each) for each in (sql, committed, answered)))


async def _replay(connection: "asyncpg.Connection[Any]", statements: Sequence[tuple[str, Any]]) -> float:
    begun = time.perf_counter()
    for text, values in statements:
        if values:
            await connection.fetch(text, *values)
        else:
            await connection.execute(text)
    return time.perf_counter() - begun


async def _page(ask: Ask, number: int, rounds: int) -> Page:
    before = (number - 1) * _PAGE
    after = None
    if before:
        found = await ask(_ARTIFACTS, {"limit": 1, "offset": before - 1})
        after = found["artifacts"]["edges"][0]["cursor"]
    by_cursor: Json = {"first": _PAGE, "after": after}
    by_offset: Json = {"limit": _PAGE, "offset": before}
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        pages = []
        for variables, took in zip((by_cursor, by_offset), seconds, strict=True):
            begun = time.perf_counter()
            pages.append([edge["node"] for edge in (await ask(_ARTIFACTS, variables))["artifacts"]["edges"]])
            took.append(time.perf_counter() - begun)
        if pages[0] != pages[1] or len(pages[0]) != _PAGE:
            raise load.RequestFailed(f"page {number} by cursor is not that by offset")
    return Page(number, *map(statistics.median, seconds))


async def _rates(directory: Path, port: int, folder: str, seconds: float) -> dict[str, load.Rate]:
    """Measure one manager process over TCP."""
    token = (directory / "token").read_text()
    connection = await asyncpg.connect((directory / "database-url").read_text())
    ids = [row["id"] for row in await connection.fetch("SELECT id::text FROM artifact_revisions ORDER BY id")]
    await connection.close()
    empty: Json = {}
    first: Json = {"first": _PAGE}
    revisions: Iterator[Json] = ({"id": each} for each in itertools.cycle(ids))
    imports: Iterator[Json] = ({"revisions": [each], "folder": folder} for each in ids)
    asked = {
        "me": (_ME, itertools.repeat(empty)),
        "artifacts, a page of 10": (_ARTIFACTS, itertools.repeat(first)),
        "one revision with its artifact": (_REVISION, revisions),
        "importArtifacts, one revision": (_IMPORT, imports),
    }
    environment = os.environ | {"STOWAGE_ADMIN_TOKEN_FILE": str(directory / "token")}
    manager = [sys.executable, "-m", "manager", "--config", str(directory / "manager.toml")]
    log = directory / "manager.log"
    with running(manager, log, environment):
        wait_for(port, log)
        return {
            name: await load.rate(
                port, load.requests(port, token, query, variables), clients=CLIENTS, seconds=seconds
            )
            for name, (query, variables) in asked.items()
        }
