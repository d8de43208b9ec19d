"""Stowage itself as the contender: a whole stack of its own, measured from the mutation to published files."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from websockets.sync.client import ClientConnection, connect

from benchmarks.content import Model
from benchmarks.rivals import flush
from benchmarks.sources import Source
from stowage.client import Address, StowageClient
from stowage.data_dir import DataDir
from stowage.processes import dies_with_parent, tail

_UP_WITHIN = 90.0  # seconds
_GONE_WITHIN = 60.0  # seconds
_CA_FILE = "STOWAGE_PROXY__ARTIFACT_REGISTRIES__HUGGINGFACE__CA_FILE"
_TICKS = os.sysconf("SC_CLK_TCK")
_WATCH = "subscription ($id: ID!) { importTaskUpdated(taskId: $id) { status error { code message } } }"


class StackFailed(Exception):
    """The stack did not come up, or an import did not succeed."""


@dataclass(frozen=True)
class ImportCost:
    """What one import took. cpu_seconds: of the worker and its children; peak_rss: of the same, in bytes."""

    seconds: float
    cpu_seconds: float
    peak_rss: int


class Stack:
    """A running `stowage up` with the source as its registry, fsync and all."""

    def __init__(self, directory: Path, client: StowageClient) -> None:
        self._dir = DataDir(directory)
        self._client = client

    def scan(self, model: Model) -> str:
        """Take the model into the catalogue; return its revision's id."""
        (revision,) = self._client.scan(model.id, "main")
        return revision["id"]

    def measure(self, model: Model, revision_id: str, profile: Path | None = None) -> ImportCost:
        """Import into a fresh folder, which is deleted afterwards. Raises `StackFailed`.

        profile: file for the worker's stacks and how often py-spy saw each; the import is slower for it.
        """
        folder = self._client.create_vfolder(f"bench-{uuid.uuid4().hex}", usage_mode="MODEL", host=None)
        flush(self._dir.path)
        with _watching(self._client.address) as socket:
            pid = json.loads(self._dir.state.read_text())["processes"]["worker"]
            with _profiled(pid, profile):
                worker = _Worker(pid)
                begun = time.perf_counter()
                task = self._client.import_revision(revision_id, vfolder_id=folder["id"], options={})
                if task is None:
                    raise StackFailed("the import made no task")
                _wait_for_success(socket, task["id"])
                seconds = time.perf_counter() - begun
                cost = ImportCost(seconds, worker.cpu_seconds(), worker.peak_rss())
        brought = sum(path.stat().st_size for path in self._published(model))
        if brought != model.size:
            raise StackFailed(f"{brought} of {model.size} bytes were published")
        self._client.delete_vfolder(folder["id"])
        self._wait_until_gone(model)
        return cost

    def _published(self, model: Model) -> list[Path]:
        """Return the files of the one folder there is."""
        roots = list(self._dir.volume.glob(f"*/??/??/*/{model.id}/main"))
        return [root / file.path for root in roots for file in model.files if (root / file.path).is_file()]

    def _wait_until_gone(self, model: Model) -> None:
        deadline = time.monotonic() + _GONE_WITHIN
        while self._published(model):
            if time.monotonic() > deadline:
                raise StackFailed("the folder is still there after it was deleted")
            time.sleep(0.05)
        flush(self._dir.path)


@contextmanager
def running(directory: Path, source: Source) -> Iterator[Stack]:
    """Start a stack whose state lies in a fresh directory, and stop it at the end of the block."""
    directory.mkdir(parents=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("STOWAGE_", "HF_"))
    }
    environment["HF_ENDPOINT"] = source.endpoint
    if source.ca_file:
        environment[_CA_FILE] = str(source.ca_file)
    output = directory.with_name(f"{directory.name}.log")
    with output.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "stowage", "up"),
                *("--data-dir", str(directory), "--listen", "127.0.0.1:0"),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=dies_with_parent(signal.SIGTERM),  # noqa: PLW1509 -- no thread runs yet
        )
    try:
        _wait_ready(process, output)
        data_dir = DataDir(directory)
        url, token = json.loads(data_dir.state.read_text())["url"], data_dir.admin_token.read_text().strip()
        with StowageClient(Address(url, token, "stack.json", "admin-token", "stowage up")) as client:
            yield Stack(directory, client)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + _UP_WITHIN
    while "Stowage is ready" not in output.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise StackFailed(f"the stack does not come up:\n{tail(output)}")
        time.sleep(0.1)


@contextmanager
def _watching(address: Address) -> Iterator[ClientConnection]:
    """Open a subscriber's connection, so that the end of an import is seen when it is told, without polling."""
    url = address.url.replace("http", "ws", 1) + "/graphql"
    with connect(url, subprotocols=["graphql-transport-ws"], proxy=None, max_size=None) as socket:  # type: ignore[list-item]  # its type is a bare alias of str
        payload = {"Authorization": f"Bearer {address.token}"}
        socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        if json.loads(socket.recv(30))["type"] != "connection_ack":
            raise StackFailed("the manager does not acknowledge a subscriber")
        yield socket


def _wait_for_success(socket: ClientConnection, task_id: str) -> None:
    payload = {"query": _WATCH, "variables": {"id": task_id}}
    socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
    while True:
        told = json.loads(socket.recv(3600))
        if told["type"] == "ping":
            socket.send(json.dumps({"type": "pong"}))
        elif told["type"] == "next":
            task = (told["payload"].get("data") or {}).get("importTaskUpdated")
            if task is None or task["status"] in {"FAILED", "CANCELLED", "NEEDS_APPROVAL"}:
                raise StackFailed(f"the import did not succeed: {told['payload']}")
            if task["status"] == "SUCCEEDED":
                return
        else:
            raise StackFailed(f"the manager ended the subscription: {told}")


@contextmanager
def _profiled(pid: int, file: Path | None) -> Iterator[None]:
    """Have py-spy look at the worker until the end of the block."""
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    spy = subprocess.Popen(
        [
            *("py-spy", "record", "--format", "raw", "--threads", "--subprocesses", "--rate", "200"),
            *("--nonblocking", "--duration", "3600", "--output", str(file), "--pid", str(pid)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- no thread runs
    )
    time.sleep(1)  # it reads symbols before it looks
    try:
        yield
    finally:
        spy.send_signal(signal.SIGINT)
        spy.wait(60)


class _Worker:
    """The worker's process and its children, from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        for each in self._tree():
            # proc(5): 5 resets the peak of the resident set.
            with suppress(OSError):
                Path(f"/proc/{each}/clear_refs").write_text("5")
        self._before = self._cpu()

    def cpu_seconds(self) -> float:
        return self._cpu() - self._before

    def peak_rss(self) -> int:
        peak = 0
        for pid in self._tree():
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                peak += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        return peak

    def _cpu(self) -> float:
        # utime, stime, and those of children that ended: fields 14 to 17 of proc(5), the name cut off.
        return sum(sum(map(int, stat[11:15])) for _, stat in self._stats()) / _TICKS

    def _tree(self) -> list[int]:
        return [pid for pid, _ in self._stats()]

    def _stats(self) -> list[tuple[int, list[str]]]:
        stats: dict[int, list[str]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                stats[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
        chosen = [self._pid]
        for pid in chosen:
            chosen += [child for child, stat in stats.items() if int(stat[1]) == pid]
        return [(pid, stats[pid]) for pid in chosen if pid in stats]
