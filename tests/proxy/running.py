"""A storage proxy whose worker is a process of its own, with volumes, directories and buckets, and a manager that permits all."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

from proxy_client.wire import (
    ArtifactStorageImportStep,
    ImportOrder,
    ImportReport,
    ImportState,
    QuotaScopeID,
    VFolderID,
)
from storage_proxy.settings import S3StorageSection
from storage_proxy.site import Site
from storage_proxy.storages.base import PIECE
from storage_proxy.storages.object import ObjectStorage
from storage_proxy.storages.s3_signing import Credentials
from tests.e2e.world import Files, Model
from tests.faults.hub import FaultHub
from tests.faults.models import digest_tree, make_model
from tests.s3.front import Front
from tests.s3.place import Bucket

VFID = VFolderID(QuotaScopeID("user", UUID(int=0xA)), UUID("deadbeefdeadbeefdeadbeefdeadbeef"))
FOLDER = Path("volume") / VFID.quota_scope.id.hex / "de" / "ad" / "beefdeadbeefdeadbeefdeadbeef"
OPEN = {ImportState.PENDING, ImportState.RUNNING}
MIB = 1 << 20

Where = str  # the name of an artifact storage, or "folder"


class Proxy:
    """`site` is this process's own view of the same proxy; `buckets` are the object storages, by name, and past the front."""

    vfid = VFID

    def __init__(self, directory: Path, hub: FaultHub, manager: "Manager") -> None:
        self.directory = directory
        self.hub = hub
        self.manager = manager
        self.buckets: dict[str, Bucket] = {}
        self.front: Front
        self.credentials: Credentials
        self.site: Site
        self.worker: subprocess.Popen[bytes] | None = None

    # The worker.

    def start_worker(self) -> None:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("STOWAGE_", "AWS_"))
        }
        with (self.directory / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "storage_proxy.worker", "--config", self.directory / "proxy.toml"],
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill_worker(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.worker is not None:
            self.worker.send_signal(number)
            self.worker.wait(60)
            self.worker = None

    # Imports.

    def model(self, files: Files) -> Model:
        name = f"org/m{uuid4().hex[:12]}"
        return Model(self.hub, name, make_model(self.hub.directory, name, files))

    async def order(self, model: Model, download: Where, verify: Where, archive: Where, **more: Any) -> UUID:
        asked = {
            "task_id": uuid4(),
            "request_id": "request-1",
            "requested_by": UUID(int=1),
            "registry_name": "hub",
            "model": {"model_id": model.id, "revision": "main"},
            "storage_step_mappings": {
                step: _target(where)
                for step, where in (("download", download), ("verify", verify), ("archive", archive))
            },
            "path": f"{model.id}/main",
        }
        order = ImportOrder.model_validate(asked | more)
        self.site.pipeline.context(order)
        await self.site.jobs.accept(order)
        return order.task_id

    async def ended(self, task_id: UUID, within: float = 60) -> ImportReport:
        async with asyncio.timeout(within):
            while (report := await self.site.jobs.report(task_id)).state in OPEN:
                await asyncio.sleep(0.05)
        return report

    async def failed(self, task_id: UUID, code: str, within: float = 60) -> str:
        """Hold that it fails so and leaves nothing; returns the message."""
        report = await self.ended(task_id, within)
        assert report.error is not None, report
        assert (report.state, report.error.code) == (ImportState.FAILED, code), report.error
        assert await self.staged() == []
        return report.error.message

    async def succeeded(self, task_id: UUID, within: float = 60) -> ImportReport:
        report = await self.ended(task_id, within)
        assert (report.state, report.error) == (ImportState.SUCCEEDED, None), self.log()
        return report

    async def until(self, condition: Callable[[], object]) -> None:
        await asyncio.to_thread(self.hub.wait_for, condition)

    async def is_at(self, task_id: UUID, step: ArtifactStorageImportStep) -> None:
        """Wait until the import is at a step."""
        async with asyncio.timeout(60):
            while (await self.site.jobs.report(task_id)).step is not step:
                await asyncio.sleep(0.01)

    async def cancelled(self, task_id: UUID) -> None:
        """Cancel, and hold that it ends and leaves nothing."""
        await self.site.jobs.request_cancel(task_id)
        report = await self.ended(task_id)
        assert (report.state, report.error) == (ImportState.CANCELLED, None)
        assert await self.staged() == []

    def log(self) -> str:
        return (self.directory / "worker.log").read_text()[-3000:]

    # What lies where.

    def root(self, where: Where) -> Path:
        return self.directory / (FOLDER if where == "folder" else where)

    async def digests(self, where: Where, model: Model, *, finished: bool = True) -> dict[str, str]:
        """Return path and SHA-256 of what is visible of a model; when `finished`, the manifest has to be there too."""
        below = f"{model.id}/main/"
        if where in self.buckets:
            found, manifests = await asyncio.to_thread(self._digests_of_objects, self.buckets[where], below)
        else:
            found = digest_tree(self.root(where) / below)
            manifests = len(list((self.root(where) / below).glob(".stowage/*")))
        if finished:
            assert manifests == (1 if found else 0)
        return found

    @staticmethod
    def _digests_of_objects(bucket: Bucket, below: str) -> tuple[dict[str, str], int]:
        found = {
            path.removeprefix(below): content
            for path, content in bucket.look().items()
            if path.startswith(below)
        }
        manifests = [path for path in found if path.startswith(".stowage/")]
        digests = {
            path: hashlib.sha256(content).hexdigest()
            for path, content in found.items()
            if path not in manifests and isinstance(content, bytes)
        }
        return digests, len(manifests)

    async def staged(self) -> list[str]:
        """Return what is left in any staging area, uploads included; nobody may see any of it."""
        left = [str(path) for path in self.directory.rglob(".staging/*")]
        for bucket in self.buckets.values():
            left += await bucket.hidden()
        return left


async def remove_abandoned(proxy: Proxy) -> None:
    """Remove from buckets, as if its time had come, what was begun and not written down when a worker was killed."""
    for bucket in proxy.buckets.values():
        section = bucket.section.model_copy(update={"abandoned_after": -2.0})
        storage = ObjectStorage("bucket", section, lambda: proxy.credentials)
        await storage.remove_abandoned(await proxy.site.jobs.open_tasks())
        await storage.aclose()


def _target(where: Where) -> dict[str, str]:
    return {"volume_name": "one", "vfolder_id": str(VFID)} if where == "folder" else {"storage_name": where}


class Manager:
    """A manager that permits every import; `held`: it does not answer meanwhile. `asked` are the questions of imports."""

    def __init__(self) -> None:
        self.asked = 0
        self.held = False
        manager = self

        class Permit(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                manager.asked += 1
                while manager.held:
                    time.sleep(0.01)
                body = b'{"allowed": true}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):  # who asked may be gone
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Permit)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.held = False
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def write_settings(
    proxy: Proxy, database_url: str, buckets: Mapping[str, S3StorageSection], transfer: str
) -> Path:
    """Write `proxy.toml` and what it names: the directories `a` and `b`, the volume `one`, the buckets.

    transfer: further settings of that table.
    """
    directory = proxy.directory
    for name in ("a", "b", "volume"):
        (directory / name).mkdir()
    (directory / "database").write_text(database_url)
    (directory / "secret").write_text("s" * 40)
    if buckets:
        (directory / "access-key").write_text(proxy.credentials.access_key)
        (directory / "secret-key").write_text(proxy.credentials.secret_key)
    tables = ""
    for name, section in buckets.items():
        tables += f"""
[artifact-storages.{name}]
type = "s3"
endpoint = "{section.endpoint}"
region = "{section.region}"
bucket = "{section.bucket}"
prefix = "{section.prefix}"
access-key-file = "access-key"
secret-key-file = "secret-key"
part-size = {PIECE}
parallel-parts = {section.parallel_parts}
retries = 2
abandoned-after = 1.0
"""
    (directory / "proxy.toml").write_text(f"""
[proxy]
name = "local"
database-file = "database"
secret-file = "secret"
manager-url = "{proxy.manager.url}"
[worker]
lease-seconds = 2.0
[transfer]
backoff-initial = 0.05
backoff-max = 0.2
retries = 3
{transfer}
[volume.one]
path = "volume"
[artifact-storages.a]
path = "a"
[artifact-storages.b]
path = "b"
[artifact-registries.hub]
url = "{proxy.hub.url}"
{tables}""")
    return directory / "proxy.toml"
