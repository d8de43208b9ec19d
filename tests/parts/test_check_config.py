"""`--check-config`: every fault with its place and remedy, and nothing started or changed."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from migrations import migrate_proxy
from stowage.cli import main
from stowage.processes import free_port
from tests.conftest import PostgresServer

Check = Callable[..., tuple[int, list[str], str]]

PROXY = """\
[proxy]
name = "east"
database-file = "database"
secret-file = "secret"
manager-url = "http://127.0.0.1:8080"

[volume.one]
path = "one"

[artifact-storages.archive]
path = "archive"

[artifact-registries.hub]
url = "https://hub.example.org"
token-file = "token"
"""
MANAGER = """\
[manager]
database-file = "database"

[storage-proxies.east]
url = "http://127.0.0.1:6121"
secret-file = "secret"
"""


@pytest.fixture
def files(tmp_path: Path, manager_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with both files and all they name; a test spoils what it wants to."""
    asyncio.run(migrate_proxy(manager_database_url, "stowage_proxy"))
    for name, content in (
        ("storage-proxy.toml", PROXY),
        ("manager.toml", MANAGER),
        ("database", manager_database_url),
        ("secret", "shared"),
        ("token", "hf_x"),
    ):
        (tmp_path / name).write_text(content)
    (tmp_path / "one").mkdir()
    (tmp_path / "archive").mkdir()
    for name in [name for name in os.environ if name.startswith("STOWAGE_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def check(files: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run a part with --check-config; returns the exit status, the faults without the directory, and the summary."""

    def run(part: str) -> tuple[int, list[str], str]:
        file = files / ("manager.toml" if part == "manager" else "storage-proxy.toml")
        status = main([part, "--config", str(file), "--check-config"])
        told = capsys.readouterr()
        lines = told.err.replace(f"{files}/", "").splitlines()
        if lines:
            assert lines.pop() == "Error: these settings cannot be used; nothing was started or changed"
        return status, lines, told.out

    return run


def test_a_manager_without_fault_is_summed_up(check: Check) -> None:
    status, faults, out = check("manager")
    assert (status, faults) == (0, [])
    assert "listens on        127.0.0.1:8080" in out
    assert "storage proxies   east" in out
    assert ", migrated" in out


@pytest.mark.parametrize("part", ["proxy", "worker"])
def test_a_proxy_without_fault_is_summed_up(check: Check, part: str) -> None:
    status, faults, out = check(part)
    assert (status, faults) == (0, [])
    assert "volumes            one" in out
    assert ", migrated, schema stowage_proxy" in out


def test_no_secret_is_shown(check: Check, files: Path) -> None:
    password = (files / "database").read_text().split(":")[2].split("@")[0]
    for part in ("manager", "proxy"):
        assert password not in check(part)[2]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda at: (at / "one").rmdir(),
            "storage-proxy.toml:8: volume.one.path: one is no directory; mount the file system, or make the directory",
        ),
        (
            lambda at: (at / "secret").unlink(),
            "storage-proxy.toml:4: proxy.secret-file: the file cannot be read (No such file or directory); correct the path",
        ),
        (
            lambda at: (at / "token").write_text(" \n"),
            "storage-proxy.toml:15: artifact-registries.hub.token-file: the file is empty; write the value into it",
        ),
        (
            lambda at: (at / "token").write_bytes(b"\xff"),
            "storage-proxy.toml:15: artifact-registries.hub.token-file: the file cannot be read (it is no text)",
        ),
        (
            lambda at: (at / "database").write_text("postgresql://u:secret@127.0.0.1:1/x"),
            "storage-proxy.toml:3: proxy.database-file: the database x at 127.0.0.1:1 gives no answer (Connection refused)",
        ),
        (
            lambda at: (at / "database").write_text("sqlite:///x"),
            "storage-proxy.toml:3: proxy.database-file: this is no URL of a database; write postgresql://",
        ),
        (
            lambda at: (at / "database").write_text((at / "database").read_text() + "_none"),
            "storage-proxy.toml:3: proxy.database-file: the database manager_",
        ),
    ],
)
def test_each_thing_outside_the_file_is_a_fault_of_its_setting(
    check: Check, files: Path, spoil: Callable[[Path], object], told: str
) -> None:
    spoil(files)
    status, faults, out = check("proxy")
    assert (status, len(faults), out) == (2, 1, "")
    assert faults[0].startswith(told)
    assert ";" in faults[0]


def test_a_database_that_is_not_migrated_is_told_with_the_command(
    check: Check, files: Path, proxy_database_url: str
) -> None:
    (files / "database").write_text(proxy_database_url)
    (fault,) = check("proxy")[1]
    assert "lacks the migrations proxy_0001" in fault
    assert fault.endswith("; run `stowage migrate --proxy FILE`")
    assert "run `stowage migrate --manager FILE`" in check("manager")[1][0]

    async def schemas() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(proxy_database_url)
        try:
            return list(
                await connection.fetch("SELECT FROM information_schema.tables WHERE table_name = 'imports'")
            )
        finally:
            await connection.close()

    assert asyncio.run(schemas()) == []


def test_all_faults_outside_the_file_are_told_at_once(check: Check, files: Path) -> None:
    (files / "one").rmdir()
    (files / "archive").rmdir()
    (files / "archive").write_text("")
    (files / "secret").unlink()
    (files / "database").unlink()
    lines = [line.split(":")[1] for line in check("worker")[1]]
    assert lines == ["3", "4", "8", "11"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_takes_no_files_is_a_fault(check: Check, files: Path) -> None:
    (files / "one").chmod(0o500)
    assert "is not writable for user" in check("proxy")[1][0]


def test_the_administrators_token_file_is_looked_at_too(
    check: Check, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAGE_ADMIN_TOKEN_FILE", str(files / "none"))
    status, faults, _out = check("manager")
    assert status == 2
    (fault,) = faults
    assert fault.startswith(
        "environment: STOWAGE_ADMIN_TOKEN_FILE: the file cannot be read (No such file or directory);"
    )


def test_the_environment_is_looked_at_too(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOWAGE_PROXY__VOLUME__ONE__PATH", "/nowhere")
    assert check("proxy")[1] == [
        "environment: STOWAGE_PROXY__VOLUME__ONE__PATH: /nowhere is no directory; mount the file system, or make the directory"
    ]


def test_a_file_with_faults_of_its_own_is_told_by_line(check: Check, files: Path) -> None:
    (files / "manager.toml").write_text(MANAGER + "[vfolder]\ndefault-host = 'west:v'\n")
    status, faults, _out = check("manager")
    assert status == 2
    assert faults == [
        "manager.toml:8: vfolder.default-host: names the storage proxy 'west'; add [storage-proxies.west] or correct it"
    ]


def test_a_terminal_is_not_steered_by_a_file(check: Check, files: Path) -> None:
    (files / "manager.toml").write_text('"\\u001b[2J" = 1\n' + MANAGER)
    _status, (fault,), _out = check("manager")
    assert fault.startswith("manager.toml:1: \\x1b[2J: is not a setting")


def test_a_database_of_a_newer_version_is_refused(
    check: Check, files: Path, postgres_server: PostgresServer
) -> None:
    database = (files / "database").read_text().rpartition("/")[2]
    postgres_server.execute("UPDATE alembic_version SET version_num = 'manager_9999'", database)
    _status, (fault,), _out = check("manager")
    assert fault.startswith(
        "manager.toml:2: manager.database-file: the database's tables are of a newer Stowage"
    )


def test_a_verifier_that_nobody_has_is_a_fault(check: Check, files: Path) -> None:
    (files / "storage-proxy.toml").write_text(f'[verification]\nrequired = ["integrety"]\n{PROXY}')
    status, lines, _ = check("proxy")

    assert status == 2
    assert lines[0].startswith("storage-proxy.toml:1: verification: integrety: there is no such verifier")


BUCKET = """
[artifact-storages.bucket]
type = "s3"
endpoint = "http://127.0.0.1:1"
bucket = "models"
access-key-file = "token"
secret-key-file = "token"
"""
RESERVOIR = """
[reservoir]
proxy = "east"
download = "archive"
verify = "bucket"
archive = "bucket"
"""
NO_FILES = (
    "manager.toml:11: reservoir.verify: bucket is an object storage, and verifiers need a file system; "
    "name an artifact storage of type vfs"
)


@pytest.mark.parametrize("options", [["--check-config"], []], ids=["check", "migrate"])
def test_a_bucket_as_the_storage_of_verify_is_told_before_anything_is_done(
    files: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    (files / "storage-proxy.toml").write_text(PROXY + BUCKET)
    (files / "manager.toml").write_text(MANAGER + RESERVOIR)
    both = ["--manager", str(files / "manager.toml"), "--proxy", str(files / "storage-proxy.toml")]

    assert main(["migrate", *both, *options]) != 0

    assert NO_FILES in capsys.readouterr().err.replace(f"{files}/", "")
    (files / "manager.toml").write_text(
        MANAGER + RESERVOIR.replace('verify = "bucket"', 'verify = "archive"')
    )
    assert main(["migrate", *both, *options]) == 0


def test_a_manager_asks_its_proxy_if_that_runs(check: Check, files: Path) -> None:
    (files / "storage-proxy.toml").write_text(PROXY + BUCKET)
    port = free_port()
    (files / "manager.toml").write_text(MANAGER.replace("6121", str(port)) + RESERVOIR)
    assert check("manager")[0] == 0
    listen = {"STOWAGE_PROXY__PROXY__LISTEN": f"127.0.0.1:{port}"}
    command = [sys.executable, "-m", "storage_proxy", "--config", str(files / "storage-proxy.toml")]
    with subprocess.Popen(command, env=os.environ | listen, stderr=subprocess.DEVNULL) as proxy:
        try:
            deadline = time.monotonic() + 30
            while check("manager")[1] != [NO_FILES]:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            proxy.terminate()
