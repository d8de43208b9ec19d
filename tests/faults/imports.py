"""Imports into folders of a stack whose parts are killed, and what has to hold of every one of them."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import asyncpg
import httpx

from tests.conftest import RunningStack
from tests.e2e.world import OPEN, Files, Folder, Model, Person, World, manifest
from tests.faults.hub import FaultHub, Rule, SeenRequest
from tests.faults.models import digest_tree
from tests.patience import until

LOST = 8 << 20  # bytes of one connection that a kill may cost
LEASE = 2.0  # seconds
ATTEMPTS = 4
CONNECTIONS = 16  # worker.connections-per-host, as it is without a setting
SETTINGS = f"""
[transfer]
backoff-initial = 0.05
backoff-max = 0.2
stall-timeout = 20.0
retries = 3
[worker]
lease-seconds = {LEASE}
max-attempts = {ATTEMPTS}
"""
PROXY_SCHEMA = "stowage_proxy"


@dataclass(eq=False)
class Import:
    """An import of a model to a path where nothing is yet."""

    task_id: str
    model: Model
    folder: Folder
    path: str

    @property
    def destination(self) -> Path:
        return self.folder.path / self.path.strip("/")

    @property
    def staging(self) -> Path:
        return self.folder.path.parents[2] / ".staging" / self.task_id

    def insist_on_nothing(self) -> None:
        """Nothing of it is there, visible or not."""
        assert not self.destination.exists()
        assert not self._staged()

    def insist_on_all(self) -> None:
        """It is there, exactly and with one manifest, and nothing of it is left in the staging."""
        assert digest_tree(self.destination) == self.model.digests
        found = manifest(self.destination)
        assert found["task_id"] == self.task_id
        assert {file["path"]: file["sha256"] for file in found["files"]} == self.model.digests
        assert not self._staged()

    def _staged(self) -> list[Path]:
        return list(self.staging.parent.glob(f"{self.task_id}*"))


class Site(World):
    """A world whose parts are killed: with more workers than the stack's own, and a look at what the proxy knows."""

    def __init__(self, data_dir: Path, hub: FaultHub) -> None:
        self._data_dir = data_dir
        self._workers: list[subprocess.Popen[bytes]] = []
        super().__init__(self._start(hub), hub, hub, data_dir / "none")
        self.registries["mirror"] = self.registries["huggingface"]  # one hub is both

    def _start(self, hub: FaultHub) -> RunningStack:
        return RunningStack(self._data_dir, hf_endpoint=hub.url, proxy_settings=SETTINGS)

    def start_again(self) -> None:
        """Start the stack again on its directory, once it is down."""
        self.stack.stop()
        self.stack = self._start(self.hub)

    def is_whole(self) -> bool:
        """Say whether each part of the stack runs: one that was killed starts again after a pause."""
        return all(Path(f"/proc/{pid}").exists() for pid in self.stack.pids.values())

    def stop(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()
        self.stack.stop()

    # Imports.

    def start(
        self,
        files: Files,
        *rules: Rule,
        folder: Folder | None = None,
        path: str | None = None,
        by: Person | None = None,
    ) -> Import:
        """Order the import of a new model into a folder, a new one unless told, by rules that hold once it is scanned."""
        model = self.model(files)
        folder = folder or self.folder(by)
        revision = self.scan(model)["id"]
        self.hub.forget()
        self.hub.set(*rules)
        return self.order_one(model, revision, folder, path=path, by=by)

    def order_one(
        self,
        model: Model,
        revision: str,
        folder: Folder,
        *,
        path: str | None = None,
        by: Person | None = None,
    ) -> Import:
        (task_id,) = self.order([revision], folder, by=by, **({"path": path} if path else {}))
        assert task_id is not None
        return Import(task_id, model, folder, path or f"{model.id}/main")

    def wait(self, imported: Import, within: float = 60) -> dict[str, Any]:
        """Wait for its end, through restarts of the manager and the database; returns the task."""
        ended: dict[str, Any] = {}

        def has_ended() -> bool:
            with suppress(httpx.HTTPError, AssertionError, ValueError):
                task = self.task(imported.task_id)
                if task["status"] not in OPEN:
                    ended.update(task)
            return bool(ended)

        until(has_ended, lambda: f"{imported.task_id} does not end", within)
        return ended

    def insist_on_success(self, imported: Import, within: float = 60) -> None:
        """Wait for its success and look at what it left."""
        task = self.wait(imported, within)
        assert (task["status"], task["error"]) == ("SUCCEEDED", None), task
        assert task["filesDone"] == task["filesTotal"] == len(imported.model.digests)
        assert task["bytesDone"] == task["bytesTotal"]
        imported.insist_on_all()

    def insist_on_failure(self, imported: Import, code: str, within: float = 60) -> None:
        """Wait for its failure; nothing of it may be left."""
        task = self.wait(imported, within)
        assert (task["status"], (task["error"] or {}).get("code")) == ("FAILED", code), task
        imported.insist_on_nothing()

    def until(self, condition: Callable[[], object], within: float = 60) -> None:
        self.hub.wait_for(condition, within)

    def until_stalled(self, count: int = 1) -> None:
        """Wait until the hub holds so many downloads for good, and whoever reads them has all that it sent."""
        self.until(lambda: self.hub.open_downloads >= count)
        seen = -1
        while seen != self.hub.sent():
            seen = self.hub.sent()
            time.sleep(0.3)
        assert self.hub.open_downloads >= count

    # What the proxy knows.

    def record(self, imported: Import) -> dict[str, Any]:
        """Return the proxy's record of it; empty before it was ordered."""
        found = self.rows(f"SELECT * FROM {PROXY_SCHEMA}.imports WHERE task_id = $1", UUID(imported.task_id))
        return dict(found[0]) if found else {}

    def holder(self, imported: Import) -> int:
        """Return the process id of the worker that runs it, once there is one."""
        self.until(lambda: self._held_by(imported))
        return self._held_by(imported)[0]

    def _held_by(self, imported: Import) -> list[int]:
        statement = f"""SELECT pid FROM {PROXY_SCHEMA}.imports AS import
            JOIN {PROXY_SCHEMA}.workers AS worker ON worker.id = import.held_by WHERE task_id = $1"""
        return [row["pid"] for row in self.rows(statement, UUID(imported.task_id))]

    def kill_holder(self, imported: Import, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill the worker that runs it, once there is one; nobody if it has come to its end."""
        self.until(lambda: self._held_by(imported) or self.record(imported)["finished_at"])
        for pid in self._held_by(imported):
            kill(pid, number)

    def more_workers(self, count: int = 1) -> list[int]:
        """Let so many workers run beside the stack's own; returns their process ids."""
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < count:
            with (self.stack.dir.logs / "more-workers.log").open("ab") as log:
                config = str(self.stack.dir.proxy_config)
                command = [sys.executable, "-m", "storage_proxy.worker", "--config", config]
                worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self._workers.append(worker)
        pids = [worker.pid for worker in self._workers]
        self.until(lambda: all(map(self.is_alive, pids)))
        return pids

    def no_more_workers(self) -> None:
        """End those beside the stack's own."""
        for worker in self._workers:
            worker.kill()
            worker.wait()
        self._workers.clear()

    def is_alive(self, worker: int) -> bool:
        """Whether a worker has told so."""
        return bool(self.rows(f"SELECT FROM {PROXY_SCHEMA}.workers WHERE pid = $1", worker))

    @contextmanager
    def held_at(self, change: str) -> Iterator[Callable[[], bool]]:
        """Hold whoever writes this change of an import, SQL about OLD and NEW, until the context ends.

        Yields whether somebody is held.
        """
        # The lock is freed before the trigger is dropped, since whoever is held has the table.
        with self._session(
            f"""SET search_path = {PROXY_SCHEMA};
            SELECT pg_advisory_lock(4711);
            CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$;
            CREATE TRIGGER hold BEFORE UPDATE ON imports FOR EACH ROW WHEN ({change}) EXECUTE FUNCTION hold()""",
            "SELECT pg_advisory_unlock(4711)",
            "SET lock_timeout = '30s'; DROP TRIGGER hold ON imports",
        ):
            waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
            yield lambda: bool(self.rows(waiting))

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Let nobody read a table."""
        with self._session(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", "COMMIT"):
            yield

    @contextmanager
    def _session(self, begin: str, *ends: str) -> Iterator[None]:
        """Hold a connection to the database between statements."""
        url = (self.stack.dir.secrets / "database-url").read_text()
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(url))
            try:
                runner.run(connection.execute(begin))
                try:
                    yield
                finally:
                    for end in ends:
                        runner.run(connection.execute(end))
            finally:
                runner.run(connection.close())

    @contextmanager
    def kept_down(self, part: str) -> Iterator[None]:
        """Kill a part, and keep what would start it again from doing so."""
        with self.frozen("supervisor"):
            self.stack.kill(part)
            yield

    @contextmanager
    def frozen(self, *parts: str) -> Iterator[None]:
        """Let parts stand still with their connections open."""
        pids = [self.stack.pids[part] for part in parts]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


class Witness:
    """Looks at a destination all the time: it has to be absent, and then whole for good."""

    def __init__(self, imported: Import) -> None:
        self._import = imported
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._over = threading.Event()
        self._looks = 0
        self._wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _look(self) -> None:
        there = False
        while True:
            over = self._over.wait(0.003)
            if not self._import.destination.exists():
                if there:
                    self._wrong.append("it went away again")
            elif not there:
                there = True
                if digest_tree(self._import.destination) != self._import.model.digests:
                    self._wrong.append("it was there before it was whole")
            self._looks += 1
            if over:
                return

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            assert self._looks
            assert not self._wrong


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def fetched_again(requests: Sequence[SeenRequest]) -> dict[str, int]:
    """Return by path how many bytes were sent again although an earlier answer had brought them."""
    again: dict[str, int] = {}
    had: dict[str, list[tuple[int, int]]] = {}
    for request in requests:
        start = request.range_start
        stop, spans = start + request.sent, had.setdefault(request.path, [])
        twice = sum(max(0, min(stop, end) - max(start, begin)) for begin, end in spans)
        again[request.path] = again.get(request.path, 0) + twice
        spans.append((start, stop))
    return again
