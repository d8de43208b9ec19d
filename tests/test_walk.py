"""One id, from the mutation to bytes, through the files that the README names, in that order."""

import asyncio
import contextlib
import re
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from manager import settings as manager_settings
from manager.app import create_app as create_manager
from migrations import migrate_proxy
from storage_proxy import settings as proxy_settings
from storage_proxy.app import create_app as create_proxy
from storage_proxy.site import Site
from storage_proxy.worker import Worker
from tests.faults.hub import FaultHub
from tests.faults.models import digest_tree, make_model

ROOT = Path(__file__).parent.parent
WALK = [
    ("manager/graphql/artifacts.py", "import_artifacts"),
    ("manager/imports.py", "import_revisions"),
    ("proxy_client/client.py", "start_import"),
    ("storage_proxy/api.py", "start_import"),
    ("storage_proxy/imports/jobs.py", "accept"),
    ("storage_proxy/worker.py", "_handle"),
    ("storage_proxy/imports/pipeline.py", "run"),
    ("storage_proxy/volumes/vfs.py", "stage"),
]
pytestmark = pytest.mark.anyio


class Footprints:
    """Which functions of the walk were entered, in order, and what their variables held."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self._wanted = {(str(ROOT / file), name): file for file, name in WALK}

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        file = self._wanted.get((frame.f_code.co_filename, frame.f_code.co_name))
        if event == "call" and file:
            self.seen.append((file, frame.f_code.co_name, repr(frame.f_locals)))


@contextlib.asynccontextmanager
async def served(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


def bound() -> tuple[socket.socket, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


async def ask(http: httpx.AsyncClient, query: str, **variables: Any) -> Any:
    answer = (await http.post("/graphql", json={"query": query, "variables": variables})).json()
    assert "errors" not in answer, answer
    return answer["data"]


async def test_one_id_walks_through_eight_files(
    tmp_path: Path, manager_database_url: str, proxy_database_url: str
) -> None:
    make_model(tmp_path / "hub", "org/name", {"config.json": b"{}", "model.bin": 1 << 20})
    await migrate_proxy(proxy_database_url, "stowage_proxy")
    manager_listener, manager_url = bound()
    proxy_listener, proxy_url = bound()
    volume = tmp_path / "volume"
    for name, text in {
        "secret": "s" * 40,
        "token": "stw_" + "t" * 40,
        "manager-database": manager_database_url,
        "proxy-database": proxy_database_url,
        "manager.toml": f"""
            [manager]
            database-file = "{tmp_path}/manager-database"
            [storage-proxies.local]
            url = "{proxy_url}"
            secret-file = "{tmp_path}/secret"
            [artifact-registry]
            default = "hub"
            proxy = "local"
            [artifact-registries.hub]
            url = "http://hub"
            [vfolder]
            default-host = "local:volume1"
        """,
        "proxy.toml": f"""
            [proxy]
            name = "local"
            database-file = "{tmp_path}/proxy-database"
            secret-file = "{tmp_path}/secret"
            manager-url = "{manager_url}"
            [volume.volume1]
            path = "{volume}"
            [artifact-registries.hub]
            url = "HUB"
        """,
    }.items():
        (tmp_path / name).write_text(text)
    volume.mkdir()
    with FaultHub(tmp_path / "hub") as hub:
        (tmp_path / "proxy.toml").write_text((tmp_path / "proxy.toml").read_text().replace("HUB", hub.url))
        settings = proxy_settings.load_settings(tmp_path / "proxy.toml")
        manager = create_manager(
            manager_settings.load_settings(tmp_path / "manager.toml"), admin_token_file=tmp_path / "token"
        )
        stop, footprints = asyncio.Event(), Footprints()
        headers = {"Authorization": f"Bearer stw_{'t' * 40}"}
        async with (
            served(manager, manager_listener),
            served(create_proxy(settings), proxy_listener),
            Site.open(settings) as site,
            httpx.AsyncClient(base_url=manager_url, headers=headers, timeout=20) as http,
        ):
            worker = asyncio.create_task(Worker(site, stop).run())
            scanned = await ask(
                http,
                """mutation { scanArtifactModels(input: {models: [{modelId: "org/name", revision: "main"}]}) {
                     artifactRevision { edges { node { id } } } } }""",
            )
            revision = scanned["scanArtifactModels"]["artifactRevision"]["edges"][0]["node"]["id"]
            made = await ask(http, 'mutation { createVfolder(input: {name: "mine"}) { vfolder { id } } }')
            folder = made["createVfolder"]["vfolder"]["id"]
            sys.setprofile(footprints)
            try:
                started = await ask(
                    http,
                    """mutation ($r: [ID!]!, $f: ID!) {
                         importArtifacts(input: {artifactRevisionIds: $r, vfolderId: $f}) { tasks { taskId } } }""",
                    r=[revision],
                    f=folder,
                )
                task_id = started["importArtifacts"]["tasks"][0]["taskId"]
                status = "PENDING"
                while status in {"PENDING", "RUNNING"}:
                    await asyncio.sleep(0.05)
                    task = await ask(http, "query ($t: ID!) { importTask(id: $t) { status } }", t=task_id)
                    status = task["importTask"]["status"]
            finally:
                sys.setprofile(None)
                stop.set()
                await worker
    assert status == "SUCCEEDED"
    (root,) = volume.glob("*/??/??/*")
    assert digest_tree(root / "org/name/main") == digest_tree(tmp_path / "hub/org/name")
    first = list(dict.fromkeys((file, name) for file, name, _ in footprints.seen))
    assert first == WALK
    # The service chooses the id; from the order on, everybody on the way has it.
    assert uuid.UUID(task_id)
    told = {file for file, _, variables in footprints.seen if task_id in variables}
    assert told >= {file for file, _ in WALK[2:]}


def test_the_readme_names_the_files_of_the_walk() -> None:
    readme = (ROOT / "README.md").read_text()
    walk = readme[readme.index("## The walk") : readme.index("## Commands")]
    named = [file for file in re.findall(r"`([a-z_/]+\.py)`", walk) if not file.startswith("tests/")]
    assert named == [*(file for file, _ in WALK), "storage_proxy/storages/vfs.py"]
