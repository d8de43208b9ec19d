"""An installation of single parts as real processes: one manager, storage proxies, workers, one database for all."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from migrations import migrate_manager, migrate_proxy
from stowage.processes import free_port
from tests.conftest import wait_for
from tests.faults.models import digest_tree
from tests.patience import until

OPEN = {"PENDING", "RUNNING", "NEEDS_APPROVAL"}
EVERYTHING = ["create-vfolder", "upload-file", "download-file", "delete-vfolder"]
PATIENCE = """
[transfer]
backoff-initial = 0.05
backoff-max = 0.2
stall-timeout = 60.0
"""


def environment() -> dict[str, str]:
    """Return this process's environment without settings of Stowage's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("STOWAGE_", "HF_"))}


class Installation:
    """Proxies by name, each with volume1 and archive; the manager's own archive is that of the first one."""

    def __init__(self, directory: Path, database_url: str, hub_url: str, proxies: tuple[str, ...]) -> None:
        self.directory = directory
        self.database_url = database_url
        self.proxies = proxies
        self.url = f"http://127.0.0.1:{free_port()}"
        self.token = f"stw_{secrets.token_urlsafe(32)}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._http = httpx.Client(trust_env=False, timeout=30)
        self._write(hub_url)

    def _write(self, hub_url: str) -> None:
        (self.directory / "database-url").write_text(self.database_url)
        (self.directory / "token").write_text(self.token)
        registry = f'[artifact-registries.hub]\nurl = "{hub_url}"\n'
        first = self.proxies[0]
        manager = f"""
[manager]
listen = "{self.url.removeprefix("http://")}"
database-file = "database-url"
[reservoir]
proxy = "{first}"
download = "archive"
verify = "archive"
archive = "archive"
[artifact-registry]
default = "hub"
proxy = "{first}"
[vfolder]
default-host = "{first}:volume1"
[reconciler]
order-interval = 0.2
{registry}"""
        for name in self.proxies:
            (self.directory / name / "volume1").mkdir(parents=True)
            (self.directory / name / "archive").mkdir()
            (self.directory / name / "secret").write_text(secrets.token_urlsafe(32))
            listen = f"127.0.0.1:{free_port()}"
            manager += f'[storage-proxies.{name}]\nurl = "http://{listen}"\nsecret-file = "{name}/secret"\n'
            self.config(name).write_text(
                f"""
[proxy]
name = "{name}"
listen = "{listen}"
database-file = "database-url"
database-schema = "{name}"
secret-file = "{name}/secret"
manager-url = "{self.url}"
[volume.volume1]
path = "{name}/volume1"
[artifact-storages.archive]
path = "{name}/archive"
{PATIENCE}{registry}"""
            )
        self.config("manager").write_text(manager)

    def config(self, part: str) -> Path:
        return self.directory / f"{part}.toml"

    def make_tables(self) -> None:
        """Make the tables of everything, without a process of its own as in `migrate`."""
        wait_for(migrate_manager(self.database_url))
        for name in self.proxies:
            wait_for(migrate_proxy(self.database_url, name))

    # Processes.

    def migrate(self) -> subprocess.Popen[bytes]:
        """Start `stowage migrate` for everything."""
        files = [word for name in self.proxies for word in ("--proxy", str(self.config(name)))]
        return self._spawn("migrate", "migrate", "--manager", str(self.config("manager")), *files)

    def start(self, name: str, part: str, config: str, **variables: str) -> None:
        """Start one part, known by a name of its own from then on; `variables` are in its environment."""
        self.processes[name] = self._spawn(name, part, "--config", str(self.config(config)), **variables)

    def _spawn(self, name: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "stowage", *arguments],
                env=environment() | variables | {"STOWAGE_ADMIN_TOKEN_FILE": str(self.directory / "token")},
                # Relative paths are relative to the files, wherever a part is started.
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def wait_ready(self) -> None:
        def ready() -> bool:
            for name, process in self.processes.items():
                assert process.poll() is None, self.log(name)
            try:
                return self._http.get(f"{self.url}/readyz").status_code == httpx.codes.OK
            except httpx.HTTPError:
                return False

        wait_until(ready, f"not ready:\n{self.directory}", within=60)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes.pop(name).wait()

    def stop(self) -> dict[str, int]:
        """Stop everything as a supervisor would; returns how each part ended."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        try:
            return {name: process.wait(20) for name, process in self.processes.items()}
        finally:
            for process in self.processes.values():
                process.kill()
                process.wait()
            self._http.close()

    # What clients do.

    def graphql(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        answer = self._http.post(
            f"{self.url}/graphql",
            json={"query": query, "variables": dict(variables or {})},
            headers={"Authorization": f"Bearer {self.token}"},
        )
        body = answer.json()
        assert not body.get("errors"), body["errors"]
        data = body["data"]
        assert isinstance(data, dict)
        return data

    def permit(self, host: str) -> None:
        """Permit everybody everything on a host, as an administrator would."""
        self.rows(
            "INSERT INTO host_permissions (id, host, permissions) VALUES (gen_random_uuid(), $1, $2) ON CONFLICT DO NOTHING",
            host,
            EVERYTHING,
        )

    def folder(self, host: str) -> str:
        made = self.graphql(
            """mutation ($name: String!, $host: String) {
                 createVfolder(input: {name: $name, usageMode: MODEL, host: $host}) { vfolder { id } } }""",
            {"name": f"f{secrets.token_hex(6)}", "host": host},
        )
        return str(made["createVfolder"]["vfolder"]["id"])

    def order(self, model: str, folder: str | None) -> str:
        """Scan a model and order its import; returns the task's id."""
        found = self.graphql(
            """mutation ($model: String!) {
                 scanArtifactModels(input: {models: [{modelId: $model}]}) { artifactRevision { edges { node { id } } } } }""",
            {"model": model},
        )["scanArtifactModels"]["artifactRevision"]["edges"][0]["node"]["id"]
        started = self.graphql(
            """mutation ($revision: ID!, $folder: ID) {
                 importArtifacts(input: {artifactRevisionIds: [$revision], vfolderId: $folder}) { tasks { taskId } } }""",
            {"revision": found, "folder": folder},
        )
        return str(started["importArtifacts"]["tasks"][0]["taskId"])

    def cancel(self, task_id: str) -> None:
        self.graphql(
            "mutation ($id: ID!) { cancelImportTask(input: {taskId: $id}) { task { id } } }", {"id": task_id}
        )

    def status(self, task_id: str) -> str:
        found = self.graphql("query ($id: ID!) { importTask(id: $id) { status } }", {"id": task_id})
        return str(found["importTask"]["status"])

    def finished(self, task_id: str) -> str:
        wait_until(lambda: self.status(task_id) not in OPEN, f"{task_id} does not end", within=40)
        return self.status(task_id)

    # What lies behind.

    def rows(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.database_url)
            try:
                return list(await connection.fetch(statement, *arguments))
            finally:
                await connection.close()

        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(asyncio.run, run()).result()

    def imports(self, proxy: str) -> dict[str, asyncpg.Record]:
        """Return a proxy's imports by task."""
        rows = self.rows(f"SELECT task_id::text AS task, * FROM {proxy}.imports")
        return {row["task"]: row for row in rows}

    def digests(self, proxy: str, model: str) -> dict[str, str]:
        """Return what a proxy's folders hold of a model."""
        found: dict[str, str] = {}
        for path in (self.directory / proxy / "volume1").glob(f"*/??/??/*/{model}/main"):
            found |= digest_tree(path)
        return found

    def runner(self, proxy: str, task_id: str) -> str:
        """Return the name of the process that runs an import now."""
        held = (
            f"SELECT pid FROM {proxy}.workers JOIN {proxy}.imports ON held_by = workers.id WHERE task_id = $1"
        )
        wait_until(lambda: self.rows(held, UUID(task_id)), f"nobody runs {task_id}")
        (row,) = self.rows(held, UUID(task_id))
        (name,) = [name for name, process in self.processes.items() if process.pid == row["pid"]]
        return name


def wait_until(condition: Callable[[], object], what: str, within: float = 30) -> None:
    until(condition, lambda: what, within)
