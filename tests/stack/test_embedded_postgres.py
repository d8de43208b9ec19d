import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from stowage import embedded_postgres
from stowage.embedded_postgres import (
    AlreadyInUse,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    VersionMismatch,
    find_binaries,
    major_version,
)

StartServer = Callable[[], EmbeddedPostgres]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose server was started, given the table `kept` with one row, and stopped."""
    directory = tmp_path_factory.mktemp("cluster") / "postgres"
    server = EmbeddedPostgres(directory, durable=False)
    server.start()
    query(server.url(), "CREATE TABLE kept (value int)")
    query(server.url(), "INSERT INTO kept VALUES (42)")
    server.stop()
    return directory


@pytest.fixture
def directory(cluster: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cluster, tmp_path / "postgres"))


@pytest.fixture
def start_server(directory: Path) -> Iterator[StartServer]:
    servers: list[EmbeddedPostgres] = []

    def start() -> EmbeddedPostgres:
        servers.append(EmbeddedPostgres(directory, durable=False))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def query(url: str, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.02)


def test_first_start_makes_a_server_that_answers(postgres_server: Any) -> None:
    assert query(postgres_server.url("postgres"), "SELECT 1 + 1") == 2


def test_a_second_start_finds_the_rows_and_the_port_of_the_first(start_server: StartServer) -> None:
    first = start_server()
    port = first.port
    first.stop()

    second = start_server()

    assert second.port == port
    assert query(second.url(), "SELECT value FROM kept") == 42


def test_stop_ends_every_process_although_a_client_is_connected(
    start_server: StartServer, directory: Path
) -> None:
    server = start_server()
    processes = embedded_postgres._running_in(directory / "data")

    async def stop_while_connected() -> None:
        connection = await asyncpg.connect(server.url())
        server.stop()
        connection.terminate()

    asyncio.run(stop_while_connected())

    assert processes
    wait_until_gone(processes)


def test_what_was_committed_is_there_after_kill_9(start_server: StartServer, directory: Path) -> None:
    server = start_server()
    query(server.url(), "INSERT INTO kept VALUES (43)")
    for pid in embedded_postgres._running_in(directory / "data"):
        os.kill(pid, signal.SIGKILL)
    assert server._process is not None
    server._process.wait()
    server.release()

    again = start_server()

    assert query(again.url(), "SELECT sum(value) FROM kept") == 85


def test_a_second_server_on_the_same_directory_is_refused(start_server: StartServer, directory: Path) -> None:
    server = start_server()

    with pytest.raises(AlreadyInUse, match=f"another process runs PostgreSQL on {directory}"):
        EmbeddedPostgres(directory, durable=False).start()

    assert query(server.url(), "SELECT value FROM kept") == 42


def test_another_port_is_chosen_when_somebody_else_listens_on_ours(
    start_server: StartServer, directory: Path
) -> None:
    port = int((directory / "port").read_text())
    with socket.create_server(("127.0.0.1", port)):
        server = start_server()

    assert server.port != port
    assert query(server.url(), "SELECT value FROM kept") == 42


def test_data_of_another_major_version_is_refused_and_left_as_it_is(directory: Path) -> None:
    version = directory / "data" / "PG_VERSION"
    version.write_text("13\n")

    with pytest.raises(
        VersionMismatch, match=r"written by PostgreSQL 13.*nothing was changed.*pg_dump .*pg_restore "
    ):
        EmbeddedPostgres(directory).start()

    assert version.read_text() == "13\n"
    assert (directory / "data" / "pg_wal").exists()


def test_a_directory_that_is_no_cluster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")

    with pytest.raises(EmbeddedPostgresError, match="no PostgreSQL cluster"):
        EmbeddedPostgres(tmp_path).start()

    assert (tmp_path / "data" / "mine.txt").read_text() == "mine"


def test_kill_9_during_the_first_start_does_not_wedge_the_directory(tmp_path: Path) -> None:
    script = "import sys, pathlib; from stowage.embedded_postgres import EmbeddedPostgres as E; E(pathlib.Path(sys.argv[1])).start()"
    first = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    fresh = tmp_path / "data.new"
    deadline = time.monotonic() + 30
    while not (fresh / "PG_VERSION").exists():
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.005)
    first.kill()
    first.wait()
    assert not (tmp_path / "data").exists()

    server = EmbeddedPostgres(tmp_path, durable=False)
    server.start()
    try:
        assert query(server.url(), "SELECT 1") == 1
    finally:
        server.stop()
    assert not fresh.exists()


def test_the_server_ends_when_its_parent_is_killed(directory: Path) -> None:
    script = (
        "import sys, pathlib, time; from stowage.embedded_postgres import EmbeddedPostgres as E;"
        "E(pathlib.Path(sys.argv[1]), durable=False).start(); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        processes = embedded_postgres._running_in(directory / "data")
        parent.kill()

    assert processes
    wait_until_gone(processes)


def test_a_pid_file_that_names_an_unrelated_process_is_no_obstacle(
    start_server: StartServer, directory: Path
) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (directory / "data" / "postmaster.pid").write_text(
            f"{stranger.pid}\n{directory / 'data'}\n0\n1\n\n127.0.0.1\n"
        )
        server = start_server()
        stranger.kill()

    assert query(server.url(), "SELECT value FROM kept") == 42


def test_secrets_are_the_owners_alone(directory: Path) -> None:
    modes = {name: stat.S_IMODE((directory / name).stat().st_mode) for name in ("password", "url", "data")}

    assert modes == {"password": 0o600, "url": 0o600, "data": 0o700}


def test_a_wrong_password_is_refused(start_server: StartServer) -> None:
    url = start_server().url()
    password = url.split(":")[2].split("@")[0]

    with pytest.raises(asyncpg.InvalidPasswordError):
        query(url.replace(password, "wrong"), "SELECT 1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to nobody")
def test_root_without_user_namespaces_runs_the_server_as_nobody(
    start_server: StartServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres, "_USER_NAMESPACE", ("false",))
    embedded_postgres._identity.cache_clear()
    try:
        server = start_server()
        assert query(server.url(), "SELECT value FROM kept") == 42
        assert server._process is not None
        assert Path(f"/proc/{server._process.pid}").stat().st_uid == 65534
        server.stop()
    finally:
        monkeypatch.undo()
        embedded_postgres._identity.cache_clear()
    assert query(start_server().url(), "SELECT value FROM kept") == 42, "and back to the user namespace"


def test_binaries_named_by_the_environment_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.2'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("STOWAGE_POSTGRES_BIN", str(tmp_path))

    assert find_binaries() == tmp_path
    assert major_version(tmp_path) == 16


def test_a_wrong_setting_is_an_error_not_a_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOWAGE_POSTGRES_BIN", str(tmp_path))

    with pytest.raises(EmbeddedPostgresError, match="STOWAGE_POSTGRES_BIN"):
        find_binaries()


@pytest.mark.skipif(not shutil.which("postgres"), reason="needs PostgreSQL of the system")
def test_the_systems_server_serves_as_well(tmp_path: Path) -> None:
    found = shutil.which("postgres")
    assert found is not None
    server = EmbeddedPostgres(tmp_path, binaries=Path(found).resolve().parent, durable=False)
    server.start()
    try:
        assert query(server.url(), "SELECT 1") == 1
    finally:
        server.stop()
