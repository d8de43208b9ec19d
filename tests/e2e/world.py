"""What the acceptance tests share: a running stack, its hubs, and short words for what its clients do."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from proxy_client.wire import QuotaScopeID, VFolderID
from tests.conftest import RunningStack
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import digest_tree, make_model
from tests.patience import until
from tests.rows import Rows

Files = dict[str, bytes | int]

OPEN = {"PENDING", "RUNNING", "NEEDS_APPROVAL"}
ROWS = Rows()

_numbers = itertools.count(1)  # of all worlds, since they share the hubs

_TASK = """
  id status step path commit filesDone filesTotal bytesDone bytesTotal requestId createdAt startedAt finishedAt
  error { code message step } requestedBy { id }
  artifactRevision { id status digest version verificationResult { verifiers { name result { success } } } }
  destination {
    ... on VFolderDestination { vfolder { id name } }
    ... on ArtifactStorageDestination { storageName }
  }
  verificationResult { verifiers { name result { success scannedCount } } }
"""
_SCAN = """
mutation ($model: String!, $revision: String, $registry: UUID) {
  scanArtifactModels(input: {models: [{modelId: $model, revision: $revision}], registryId: $registry}) {
    artifactRevision { edges { node { id version status digest size readme artifact { name registry { name url } } } } }
  }
}"""
IMPORT = f"""
mutation ($input: ImportArtifactsInput!) {{
  importArtifacts(input: $input) {{
    artifactRevisions {{ edges {{ node {{ id status }} }} }}
    tasks {{ taskId artifactRevision {{ id }} task {{ {_TASK} }} }}
  }}
}}"""


@dataclass(frozen=True)
class Person:
    id: str
    token: str


@dataclass(frozen=True)
class Folder:
    """A vfolder; `path` is where it lies on this machine's disk."""

    id: str
    path: Path
    vfid: VFolderID
    owner: Person

    def digests(self, below: str = "") -> dict[str, str]:
        return digest_tree(self.path / below)

    def everything(self) -> dict[str, Any]:
        return tree(self.path)


@dataclass
class Model:
    """A model at a hub; `digests` are those of its files as it is there now."""

    hub: FaultHub
    id: str
    digests: dict[str, str]

    @property
    def path(self) -> Path:
        return self.hub.directory / self.id

    def becomes(self, files: Files) -> None:
        """Let the source have other files, all at once."""
        shutil.rmtree(self.path)
        self.digests = make_model(self.hub.directory, self.id, files)

    def file(self, path: str) -> bytes:
        return (self.path / path).read_bytes()


class World:
    """The public doors of one stack, with a hub and a mirror behind it and a look at its disks and tables."""

    def __init__(
        self,
        stack: RunningStack,
        hub: FaultHub,
        mirror: FaultHub,
        small: Path,
        *,
        closed: Path | None = None,
    ) -> None:
        self.stack = stack
        self.hub = hub
        self.mirror = mirror
        self.small = small
        self.mounts = {None: stack.volume, "local:small": small}
        if closed is not None:
            self.mounts["local:closed"] = closed
        self.registries = {row["name"]: row["id"] for row in self.rows("SELECT * FROM artifact_registries")}
        self.admin = Person(
            id=stack.graphql("{ me { id } }")["me"]["id"],
            token=stack.token,
        )

    # Things to work with.

    def model(
        self,
        files: Files,
        *,
        branches: Mapping[str, Files] | None = None,
        hub: FaultHub | None = None,
    ) -> Model:
        """Put a model that nobody has seen yet at a hub."""
        hub = hub or self.hub
        name = f"org/m{next(_numbers)}"
        digests = make_model(hub.directory, name, files)
        for branch, content in (branches or {}).items():
            make_model(hub.directory, name, content, branch=branch)
        return Model(hub, name, digests)

    def person(self) -> Person:
        """Make a user with a token."""
        email = f"user{next(_numbers)}@example.org"
        made = self.stack.graphql(
            "mutation ($email: String!) { createUser(input: {email: $email}) { user { id } } }",
            {"email": email},
        )["createUser"]["user"]["id"]
        token = self.stack.graphql(
            'mutation ($id: ID!) { createToken(input: {userId: $id, name: "test"}) { token } }', {"id": made}
        )["createToken"]["token"]
        return Person(made, token)

    def folder(
        self, owner: Person | None = None, *, host: str | None = None, project: str | None = None
    ) -> Folder:
        """Make a vfolder, the administrator's unless told otherwise; with `project` it is the project's."""
        owner = owner or self.admin
        made = self.stack.graphql(
            """mutation ($name: String!, $host: String, $project: ID) {
                 createVfolder(input: {name: $name, usageMode: MODEL, host: $host, projectId: $project}) {
                   vfolder { id quotaScopeId } } }""",
            {"name": f"folder{next(_numbers)}", "host": host, "project": project},
            token=owner.token,
        )["createVfolder"]["vfolder"]
        (row,) = self.rows("SELECT id FROM vfolders ORDER BY created_at DESC LIMIT 1")
        folder, scope = row["id"], QuotaScopeID.parse(made["quotaScopeId"])
        path = self.mounts[host] / scope.id.hex / folder.hex[:2] / folder.hex[2:4] / folder.hex[4:]
        assert path.is_dir()
        return Folder(made["id"], path, VFolderID(scope, folder), owner)

    def grant(self, folder: Folder, guest: Person, permission: str) -> None:
        """Share a folder, as an accepted invitation does."""
        self.rows(
            """INSERT INTO vfolder_permissions (vfolder_id, user_id, permission)
               SELECT $1, user_id, $2 FROM api_tokens WHERE token_hash = encode(sha256($3), 'hex')""",
            folder.vfid.folder,
            permission,
            guest.token.encode(),
        )

    # What clients do.

    def scan(self, model: Model, revision: str = "main") -> dict[str, Any]:
        """Look a model up in the registry of its hub; returns the revision."""
        registry = str(self.registries["mirror"]) if model.hub is self.mirror else None
        variables = {"model": model.id, "revision": revision, "registry": registry}
        found = self.stack.graphql(_SCAN, variables)["scanArtifactModels"]["artifactRevision"]["edges"]
        (edge,) = found
        node = edge["node"]
        assert isinstance(node, dict)
        return node

    def request(
        self,
        revisions: list[str],
        folder: Folder | str | None = None,
        *,
        by: Person | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Send an import that may be refused; returns the whole answer."""
        wanted: dict[str, Any] = {"artifactRevisionIds": revisions, "options": options}
        if folder is not None:
            wanted["vfolderId"] = folder.id if isinstance(folder, Folder) else folder
        return self.stack.post(IMPORT, {"input": wanted}, token=(by or self.admin).token)

    def order(self, revisions: list[str], folder: Folder | None = None, **details: Any) -> list[str | None]:
        """Order an import; returns the task ids."""
        answer = self.request(revisions, folder, **details)
        assert not answer.get("errors"), answer["errors"]
        entries = answer["data"]["importArtifacts"]["tasks"]
        assert [entry["artifactRevision"]["id"] for entry in entries] == revisions
        return [entry["taskId"] for entry in entries]

    def begin(self, model: Model, folder: Folder | None = None, *, at: str = "main", **details: Any) -> str:
        """Scan a model and order its import; returns the task's id."""
        (task_id,) = self.order([self.scan(model, at)["id"]], folder, **details)
        assert task_id is not None
        return task_id

    def bring(
        self, model: Model, folder: Folder | None = None, *, at: str = "main", **details: Any
    ) -> dict[str, Any]:
        """Scan a model, import it and wait for the end; returns the task."""
        return self.finished(self.begin(model, folder, at=at, **details))

    def task(self, task_id: str) -> dict[str, Any]:
        """Ask for a task; its `id` is the plain one."""
        found = self.stack.graphql(
            f"query ($id: ID!) {{ importTask(id: $id) {{ {_TASK} }} }}", {"id": task_id}
        )
        task = found["importTask"]
        assert isinstance(task, dict)
        return {**task, "id": task_id}

    def finished(self, task_id: str, *, within: float = 60) -> dict[str, Any]:
        """Wait for a task's end."""
        wait_until(lambda: self.task(task_id)["status"] not in OPEN, f"{task_id} does not end", within)
        return self.task(task_id)

    def revision(self, revision_id: str) -> dict[str, Any]:
        found = self.stack.graphql(
            """query ($id: ID!) { artifactRevision(id: $id) {
                 status digest readme verificationResult { verifiers { name result { success } } } } }""",
            {"id": revision_id},
        )["artifactRevision"]
        assert isinstance(found, dict)
        return found

    def cancel(self, task_id: str) -> dict[str, Any]:
        answer = self.stack.graphql(
            "mutation ($id: ID!) { cancelImportTask(input: {taskId: $id}) { task { status } } }",
            {"id": task_id},
        )
        task = answer["cancelImportTask"]["task"]
        assert isinstance(task, dict)
        return task

    # What lies behind the doors.

    def proxy(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Speak to the storage proxy as the manager does."""
        port = self.stack.state["ports"]["proxy"]
        secret = (self.stack.dir.secrets / "proxy").read_text().strip()
        with httpx.Client(trust_env=False, timeout=10) as client:
            return client.request(
                method,
                f"http://127.0.0.1:{port}{path}",
                **({"content": body} if isinstance(body, str) else {"json": body}),
                headers={"Authorization": f"Bearer {secret}"},
            )

    def rows(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement on the stack's database."""
        url = (self.stack.dir.secrets / "database-url").read_text().strip()
        return ROWS.fetch(url, statement, *arguments)

    def unchanged(self) -> dict[str, list[str]]:
        """Return what a refused request must leave as it is."""
        statements = {
            "tasks": "SELECT * FROM import_tasks ORDER BY id",
            "imports": "SELECT task_id::text FROM stowage_proxy.imports ORDER BY task_id",
            "revisions": "SELECT id, status, digest, updated_at FROM artifact_revisions ORDER BY id",
        }
        return {name: [str(dict(row)) for row in self.rows(text)] for name, text in statements.items()}

    def staged(self, task_id: str) -> list[Path]:
        """Return what is left in any file system of a task's staging."""
        UUID(task_id)  # another form of the id would find nothing
        roots = [*self.mounts.values(), *self.storages()]
        return [path for root in roots for path in root.rglob(f".staging/{task_id}*")]

    def storages(self) -> list[Path]:
        return sorted(path for path in self.stack.dir.path.glob("artifact-storage*") if path.is_dir())

    def insist_on_nothing_left(self, task: dict[str, Any], folder: Folder) -> None:
        """Hold that an import left nothing: not in the folder, not in the staging, no file open in the worker."""
        assert folder.everything() == {}
        assert self.staged(task["id"]) == []
        below = f"/{folder.vfid.quota_scope.id.hex}/"
        opened = [str(path) for path in self.open_files() if below in str(path)]
        assert not opened, opened

    def open_files(self) -> list[Path]:
        """Return what the worker holds open."""
        found = []
        for entry in Path(f"/proc/{self.stack.pids['worker']}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(entry.readlink())
        return found

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Let another import, of another registry, be under way all the time; in the end it must arrive whole."""
        model = self.model({"other.bin": 10_000_000, "other.json": b"{}"}, hub=self.mirror)
        folder = self.folder(self.person())
        # Slow, but above the minimum rate: it lasts longer than any failure takes.
        self.mirror.set(Rule(path=f"{model.id}/resolve/.*other.bin", rate=150_000))
        task_id = self.begin(model, folder, by=folder.owner)
        self.bytes_flow(model, 100_000)
        yield
        assert self.task(task_id)["status"] == "RUNNING"
        self.mirror.clear()
        assert self.finished(task_id)["status"] == "SUCCEEDED"
        assert folder.digests(f"{model.id}/main") == model.digests

    def bytes_flow(self, model: Model, least: int = 1) -> None:
        """Wait until bytes of a model's files are on their way."""
        model.hub.wait_for(lambda: model.hub.sent(f"{model.id}/resolve") >= least)


def wait_until(condition: Callable[[], object], what: str, within: float = 60) -> None:
    until(condition, lambda: what, within)


def tree(root: Path) -> dict[str, Any]:
    """Return everything beneath a folder: content and modification time of files, None for folders."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        if path.is_file()
        else None
        for path in sorted(root.rglob("*"))
    }


def manifest(folder: Path) -> dict[str, Any]:
    """Read the only manifest of a filled directory."""
    (file,) = (folder / ".stowage").iterdir()
    found = json.loads(file.read_text())
    assert isinstance(found, dict)
    return {"file": file.name, **found}
