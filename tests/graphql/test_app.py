"""The application around the schema: its start, its readiness, what proxies ask, and its process."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import update
from starlette.types import Message

from manager.app import create_app
from manager.hosts import HOST_PERMISSIONS
from manager.models import ArtifactRegistry, HostPermission, StorageProxy, User, UserStatus
from manager.scanner import Scanner
from manager.settings import Settings
from migrations import migrate_manager
from proxy_client.errors import Internal, Unavailable
from tests.conftest import PostgresServer
from tests.graphql.served import SECRET, Manager, WireProxy, settings_in

pytestmark = pytest.mark.anyio

IMPORT = """mutation($input: ImportArtifactsInput!) { importArtifacts(input: $input) { tasks { taskId } } }"""


@asynccontextmanager
async def started(settings: Settings, proxy: WireProxy) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, proxy_transports={"local": proxy.transport})
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://manager") as http,
    ):
        yield http


async def test_the_start_writes_what_the_settings_speak_of_once(manager: Manager) -> None:
    for _ in range(2):
        async with started(manager.settings, manager.proxy):
            pass
    ((_, name, kind, url, *_),) = await manager.rows(ArtifactRegistry)
    assert (name, kind, url) == ("hub", "HUGGINGFACE", "http://hub.invalid")
    assert [row[0] for row in await manager.rows(StorageProxy)] == ["local"]
    ((_, host, user, project, permissions),) = await manager.rows(HostPermission)
    assert (host, user, project) == ("local:volume1", None, None)
    assert permissions == list(HOST_PERMISSIONS)
    assert [row[1:3] for row in await manager.rows(User)] == [("admin@localhost", "ADMIN")]


async def test_a_caller_that_goes_away_amid_its_request_is_no_error(
    manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a browser does that is sent elsewhere."""
    transport = manager.http._transport
    assert isinstance(transport, httpx.ASGITransport)
    told: list[Message] = [
        {"type": "http.request", "body": b'{"query"', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return told.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/graphql",
        "raw_path": b"/graphql",
        "query_string": b"",
        "root_path": "",
        "server": ("manager", 80),
        "client": ("127.0.0.1", 1),
        "headers": [
            (b"host", b"manager"),
            (b"content-type", b"application/json"),
            (b"authorization", f"Bearer {manager.admin.token}".encode()),
        ],
    }
    await transport.app(scope, receive, send)
    assert sent == []
    logged = capsys.readouterr().out
    assert "the caller went away" in logged
    assert "Traceback" not in logged


async def test_a_stop_leaves_nothing_running_whenever_it_comes(
    manager_database_url: str, tmp_path: Path
) -> None:
    settings, before = settings_in(tmp_path, manager_database_url), asyncio.all_tasks()
    for rounds in range(0, 320, 40):  # of the loop, in which the parts open their connections
        async with started(settings, WireProxy()):
            for _ in range(rounds):
                await asyncio.sleep(0)
        assert asyncio.all_tasks() == before, rounds


async def test_a_part_that_fails_while_it_is_stopped_stops_all_the_same(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def failing(*_arguments: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise Internal("a fault in the same moment")

    monkeypatch.setattr(Scanner, "run", failing)
    async with asyncio.timeout(20), started(manager.settings, manager.proxy):
        await begun.wait()


async def test_a_registry_follows_its_settings(manager: Manager) -> None:
    registry = manager.settings.artifact_registries["hub"].model_copy(update={"url": "http://new.invalid"})
    settings = manager.settings.model_copy(update={"artifact_registries": {"hub": registry}})
    async with started(settings, manager.proxy):
        pass
    assert [row[3] for row in await manager.rows(ArtifactRegistry)] == ["http://new.invalid"]


async def test_permissions_that_somebody_set_are_left_alone(manager: Manager) -> None:
    async with manager.database.begin() as session:
        await session.execute(update(HostPermission).values(permissions=["upload-file"]))
    async with started(manager.settings, manager.proxy):
        pass
    assert [row[4] for row in await manager.rows(HostPermission)] == [["upload-file"]]


async def test_health_needs_no_token(manager: Manager) -> None:
    assert (await manager.http.get("/healthz")).status_code == 200


async def test_readiness_says_which_proxy_is_missing(manager: Manager) -> None:
    ready = await manager.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True})
    manager.proxy.down = True
    unready = await manager.http.get("/readyz")
    assert unready.status_code == 503
    (reason,) = unready.json()["reasons"]
    assert "local" in reason


async def test_readiness_says_that_verify_cannot_use_a_bucket(manager: Manager) -> None:
    manager.proxy.archive_kind = "s3"
    unready = await manager.http.get("/readyz")
    assert unready.status_code == 503
    assert unready.json()["reasons"] == [
        (
            "reservoir.verify: archive is an object storage, and verifiers need a file system; "
            "name an artifact storage of type vfs"
        )
    ]


async def test_a_database_that_is_migrated_later_is_waited_for(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.app.RETRY_DELAY", 0.05)
    name = postgres_server.fresh_name("empty")
    url = postgres_server.create_database(name)
    async with started(settings_in(tmp_path, url), WireProxy()) as http:
        unready = await http.get("/readyz")
        assert unready.status_code == 503
        assert unready.json()["reasons"] == [
            "the database's tables are not those of this version; migrate it"
        ]
        assert (await http.get("/healthz")).status_code == 200
        await migrate_manager(url)
        for _ in range(400):
            if (await http.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.05)
        assert (await http.get("/readyz")).status_code == 200
    postgres_server.drop_database(name)


async def test_a_database_that_is_down_is_no_end(tmp_path: Path) -> None:
    url = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none"
    async with started(settings_in(tmp_path, url), WireProxy()) as http:
        unready = await http.get("/readyz")
        assert (unready.status_code, unready.json()["ready"]) == (503, False)
        headers = {"Authorization": "Bearer stw_x", "X-Request-Id": "r"}
        answer = await http.post("/graphql", json={"query": "{ me { id } }"}, headers=headers)
        assert answer.status_code == 503
        (error,) = answer.json()["errors"]
        assert error["extensions"] == {"code": "UNAVAILABLE"}
        assert "secret" not in answer.text


async def test_a_file_of_the_settings_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "postgresql://x")
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(Unavailable, match=r"storage-proxies\.local\.secret-file"):
        create_app(settings)
    (tmp_path / "database-url").unlink()
    with pytest.raises(Unavailable) as refused:
        create_app(settings)
    assert refused.value.field in {"manager.database-file", "storage-proxies.local.secret-file"}


async def test_a_proxy_asks_whether_an_import_may_still_write(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact())
    person = await manager.person()
    folder = await manager.folder(person)
    asked = {"artifactRevisionIds": [str(revision.id)], "vfolderId": str(folder.id)}
    data = await manager.ask(IMPORT, {"input": asked}, by=person)
    task_id = UUID(data["importArtifacts"]["tasks"][0]["taskId"])

    async def answer(key: UUID, secret: str = SECRET) -> httpx.Response:
        return await manager.http.post(
            f"/internal/imports/{key}/authorize", headers={"Authorization": f"Bearer {secret}"}
        )

    assert (await answer(task_id)).json()["allowed"] is True
    unknown = await answer(uuid4())
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
    for secret in ("wrong", person.token, ""):
        refused = await answer(task_id, secret)
        assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED")
    async with manager.database.begin() as session:
        await session.execute(update(User).where(User.id == person.id).values(status=UserStatus.INACTIVE))
    assert (await answer(task_id)).json()["allowed"] is False


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def manager_toml(directory: Path, database_url: str, port: int) -> Path:
    (directory / "database-url").write_text(database_url)
    (directory / "secret").write_text("secret\n")
    (directory / "token").write_text("stw_of-the-file\n")
    (directory / "manager.toml").write_text(
        f"""
        [manager]
        listen = "127.0.0.1:{port}"
        database-file = "{directory / "database-url"}"
        [storage-proxies.local]
        url = "http://127.0.0.1:{free_port()}"
        secret-file = "{directory / "secret"}"
        """
    )
    return directory / "manager.toml"


def test_the_process_serves_until_it_is_asked_to_stop(manager_database_url: str, tmp_path: Path) -> None:
    port = free_port()
    config = manager_toml(tmp_path, manager_database_url, port)
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "manager", "--config", config],
            stdout=output,
            stderr=output,
            env=os.environ | {"STOWAGE_ADMIN_TOKEN_FILE": str(tmp_path / "token")},
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            while True:
                assert process.poll() is None, log.read_text()
                try:
                    assert http.get("/healthz").status_code == 200
                    break
                except httpx.ConnectError:
                    time.sleep(0.05)
            headers = {"Authorization": "Bearer stw_of-the-file"}
            answer = http.post("/graphql", json={"query": "{ me { email } }"}, headers=headers)
            assert answer.json() == {"data": {"me": {"email": "admin@localhost"}}}
            assert "server" not in answer.headers
            assert http.get("/readyz").status_code == 503  # no proxy listens there
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in {0, -signal.SIGTERM}
    finally:
        process.kill()
        process.wait()
    written = log.read_text()
    assert "Traceback" not in written
    assert all(line.startswith("{") for line in written.splitlines()), written
    assert "stw_of-the-file" not in written


def test_a_process_with_wrong_settings_says_what_to_change(tmp_path: Path) -> None:
    config = manager_toml(tmp_path, "postgresql://x", 8080)
    config.write_text(config.read_text().replace("127.0.0.1:8080", "nowhere"))
    ended = subprocess.run(
        [sys.executable, "-m", "manager", "--config", config], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "manager.listen" in ended.stderr
    assert "HOST:PORT" in ended.stderr
    assert "Traceback" not in ended.stderr
