"""`stowage migrate`, and what the parts say when they cannot start."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import migrations
from stowage.cli import main
from tests.conftest import PostgresServer
from tests.parts.installation import Installation, environment

PARTS = ["manager", "proxy", "worker", "migrate"]
# They refuse settings before they change anything of the process, as the manager does with its log.
IN_THIS_PROCESS = [["proxy"], ["worker"]]


@pytest.fixture
def site(tmp_path: Path, proxy_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Installation:
    for name in [name for name in os.environ if name.startswith("STOWAGE_")]:
        monkeypatch.delenv(name)
    return Installation(tmp_path, proxy_database_url, "http://127.0.0.1:1", ("east", "west"))


@pytest.fixture
def migrate(site: Installation, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["migrate", *(argument.replace("@", f"{site.directory}/") for argument in arguments)])
        told = capsys.readouterr()
        return status, told.out.replace(f"{site.directory}/", ""), told.err.replace(f"{site.directory}/", "")

    return run


Migrate = Callable[..., tuple[int, str, str]]


def test_migrate_makes_what_the_files_name_and_nothing_else(site: Installation, migrate: Migrate) -> None:
    lacking = asyncio.run(migrations.pending_proxy(site.database_url, "east"))
    assert lacking[0] == "proxy_0001"
    status, out, _err = migrate("--proxy", "@east.toml")
    assert status == 0
    assert out.startswith("east.toml: ")
    assert out.endswith(f": migrated by {', '.join(lacking)}, schema east\n")
    assert asyncio.run(migrations.pending_proxy(site.database_url, "east")) == []
    assert asyncio.run(migrations.pending_proxy(site.database_url, "west"))
    assert asyncio.run(migrations.pending_manager(site.database_url))


def test_migrate_may_be_repeated(migrate: Migrate) -> None:
    everything = ("--manager", "@manager.toml", "--proxy", "@east.toml", "--proxy", "@west.toml")
    assert migrate(*everything)[0] == 0
    status, out, _err = migrate(*everything)
    assert status == 0
    assert [line.partition(": ")[0] for line in out.splitlines()] == [
        "manager.toml",
        "east.toml",
        "west.toml",
    ]
    assert out.count(": nothing to do") == 3


def test_several_at_once_do_no_harm(site: Installation) -> None:
    started = [site.migrate() for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0], site.log("migrate")
    assert asyncio.run(migrations.pending_proxy(site.database_url, "west")) == []
    assert asyncio.run(migrations.pending_manager(site.database_url)) == []


def test_a_migration_can_be_looked_at_before(site: Installation, migrate: Migrate) -> None:
    status, out, _err = migrate("--proxy", "@east.toml", "--check-config")
    assert status == 0
    assert "lacks proxy_0001" in out
    assert ", schema east" in out
    assert asyncio.run(migrations.pending_proxy(site.database_url, "east"))


def test_migrate_without_a_file_says_what_to_name(migrate: Migrate) -> None:
    status, _out, err = migrate()
    assert status == 2
    assert "--manager manager.toml, --proxy storage-proxy.toml" in err


def test_a_database_that_gives_no_answer_is_told_with_its_setting(
    site: Installation, migrate: Migrate
) -> None:
    (site.directory / "database-url").write_text("postgresql://u:very-secret@127.0.0.1:1/x")
    status, _out, err = migrate("--proxy", "@east.toml")
    assert status == 3
    assert err.startswith(
        "Error: east.toml:5: proxy.database-file: the database x at 127.0.0.1:1 gives no answer (Connection refused);"
    )
    assert "very-secret" not in err


def test_a_wrong_password_is_told_as_such(site: Installation, migrate: Migrate) -> None:
    (site.directory / "database-url").write_text(site.database_url.replace("@", "x@", 1))
    status, _out, err = migrate("--manager", "@manager.toml")
    assert status == 3
    assert "refuses: password authentication failed" in err


def test_a_role_that_may_not_make_tables_is_told_so(
    site: Installation, migrate: Migrate, postgres_server: PostgresServer
) -> None:
    postgres_server.execute("DROP ROLE IF EXISTS reader")
    postgres_server.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    host = site.database_url.partition("@")[2]
    (site.directory / "database-url").write_text(f"postgresql://reader:reader@{host}")
    try:
        status, _out, err = migrate("--proxy", "@east.toml")
    finally:
        postgres_server.execute("DROP ROLE reader")
    assert status == 3
    assert "refuses: permission denied for database" in err


def test_a_newer_database_is_left_alone(
    site: Installation, migrate: Migrate, postgres_server: PostgresServer
) -> None:
    assert migrate("--proxy", "@east.toml")[0] == 0
    database = site.database_url.rpartition("/")[2]
    postgres_server.execute("UPDATE east.alembic_version SET version_num = 'proxy_9999'", database)
    status, _out, err = migrate("--proxy", "@east.toml")
    assert status == 2
    assert err.startswith(
        "Error: east.toml:5: proxy.database-file: the database's tables are of a newer Stowage"
    )


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], Path], tuple[int, list[str]]]:
    """Start a part that cannot run: its exit status and what it told, line by line."""

    def run(door: list[str], file: Path) -> tuple[int, list[str]]:
        if door in IN_THIS_PROCESS:
            return main([*door, "--config", str(file)]), capsys.readouterr().err.splitlines()
        command = [sys.executable, "-m", *door, "--config", file]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        return done.returncode, done.stderr.splitlines()

    return run


Ended = Callable[[list[str], Path], tuple[int, list[str]]]


@pytest.mark.parametrize(
    "door", [*IN_THIS_PROCESS, ["storage_proxy"], ["storage_proxy.worker"]], ids=" ".join
)
def test_a_part_with_wrong_settings_ends_with_a_line_for_each(
    site: Installation, ended: Ended, door: list[str]
) -> None:
    file = site.config("east")
    file.write_text(file.read_text().replace("east:", "") + "[volume.v]\n[worker]\nconcurrency = 'x'\n")
    status, (first, second) = ended(door, file)
    assert status == 2
    count = len(file.read_text().splitlines())
    assert first.startswith(f"{file}:{count}: worker.concurrency: input should be a valid integer")
    assert second.startswith(f"{file}:{count - 2}: volume.v.path: is missing; add it")


@pytest.mark.parametrize(
    ("door", "setting"),
    [
        (["stowage", "manager"], "secret-file"),
        (["proxy"], "secret-file"),
        (["worker"], "secret-file"),
        (["worker"], "token-file"),
    ],
    ids=["manager", "proxy", "worker", "the worker's registry"],
)
def test_a_part_without_its_secret_ends_with_the_setting(
    site: Installation, ended: Ended, door: list[str], setting: str
) -> None:
    file = site.config("manager" if "manager" in door else "east")
    if setting == "token-file":
        file.write_text(file.read_text() + 'token-file = "none"\n')
    else:
        (site.directory / "east" / "secret").unlink()
    status, (line,) = ended(door, file)
    assert status == 2
    assert f"{setting}: " in line
    assert "cannot be read" in line


@pytest.mark.parametrize("part", PARTS)
def test_help_teaches_by_examples_within_the_page(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([part, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    examples = [line for line in lines if line.startswith("    $ ")]
    assert f"stowage {part} --" in examples[0]
    assert max(map(len, lines)) <= 92
