"""The command line's client of the manager's GraphQL API, and how it finds the manager."""

import json
import os
import re
import shlex
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast
from uuid import UUID

import httpx

from proxy_client.errors import (
    CODES,
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    StowageError,
    Unauthenticated,
    Unavailable,
    error_for,
)
from stowage import documents
from stowage.data_dir import default_data_dir
from stowage.documents import (
    ArtifactRevision,
    ArtifactSummary,
    ImportTask,
    Token,
    User,
    VFolder,
    VFolderFile,
    VFolderUsage,
    Volume,
    WholeArtifact,
    WholeRevision,
)

# A scan asks the registry for every revision of a model; everything else answers from the database or one proxy.
ANSWER_TIMEOUT = 120.0
CONNECT_TIMEOUT = 5.0
PAGE = 100

# What the API calls an input, and what the command line does.
_INPUTS = {
    "input.options.path": "--path",
    "input.options.onConflict": "--on-conflict",
    "input.options.force": "--force",
    "input.expiresAt": "--expires",
    "input.keepUntil": "--keep",
    "input.email": "ADDRESS",
    "input.limitBytes": "LIMIT",
    "input.host": "--host",
    "input.vfolderId": "FOLDER",
    "input.models": "ORG/NAME[@REVISION]",
    "input.artifactRevisionIds": "ORG/NAME[@REVISION]",
}

_BYTE_SIZES = frozenset(
    {
        "size",
        "bytesDone",
        "bytesTotal",
        "usedBytes",
        "limitBytes",
        "totalBytes",
        "reservedBytes",
        "availableBytes",
    }
)


@dataclass(frozen=True)
class Address:
    """Where the manager answers and with which token, and where both were found (for messages)."""

    url: str
    token: str = field(repr=False)
    url_source: str
    token_source: str
    start_with: str | None = None

    @property
    def embedded(self) -> bool:
        """Whether this is the stack that `stowage up` runs on this machine."""
        return self.start_with is not None


def find_stack(environment: Mapping[str, str] = os.environ) -> Address:
    """Return the manager that `STOWAGE_URL` and `STOWAGE_TOKEN` name, else the stack that `stowage up` runs here.

    The administrator's token of the stack here is sent to that stack alone, never to a `STOWAGE_URL`. Raises
    `Unavailable` if nothing runs here, `Unauthenticated` if there is no token, `BadRequest` if a value is no address.
    """
    url, token = environment.get("STOWAGE_URL", ""), environment.get("STOWAGE_TOKEN", "")
    if url:
        if not token:
            raise Unauthenticated(f"there is no token for {url}; set STOWAGE_TOKEN to one of yours")
        return Address(_base_url(url), token, "STOWAGE_URL", "STOWAGE_TOKEN")
    data_dir, start_with = _data_dir(environment)
    url_source = str(data_dir / "stack.json")
    try:
        url = json.loads((data_dir / "stack.json").read_text())["url"]
    except FileNotFoundError as exc:
        raise Unavailable(
            f"no Stowage runs on this machine (there is no {url_source}); start one with `{start_with}`,"
            " or name another one with STOWAGE_URL and STOWAGE_TOKEN"
        ) from exc
    except OSError as exc:
        raise Forbidden(
            f"{url_source} cannot be read ({exc.strerror}); set STOWAGE_URL and STOWAGE_TOKEN"
        ) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise Unavailable(
            f"{url_source} does not say where the stack is; start it again: `{start_with}`"
        ) from exc
    if token:
        return Address(_base_url(str(url)), token, url_source, "STOWAGE_TOKEN", start_with)
    token_file = data_dir / "admin-token"
    try:
        token = token_file.read_text().strip()
    except FileNotFoundError as exc:
        raise Unavailable(
            _starting(data_dir)
            or f"the stack has no {token_file} yet; wait until it is ready, or start it again: `{start_with}`"
        ) from exc
    except OSError as exc:
        raise Forbidden(
            f"{token_file} cannot be read ({exc.strerror}); set STOWAGE_TOKEN to a token of yours"
        ) from exc
    return Address(_base_url(str(url)), token, url_source, str(token_file), start_with)


def _starting(data_dir: Path) -> str | None:
    """Say that the stack is starting, if the process that supervises it lives; call it where nothing answers."""
    try:
        pid = int(json.loads((data_dir / "stack.json").read_text())["pid"])
        # After a power cut the number may be another program's.
        if b"stowage" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"Stowage is starting (process {pid}); try again in a moment"


def _data_dir(environment: Mapping[str, str]) -> tuple[Path, str]:
    if named := environment.get("STOWAGE_DATA_DIR"):
        return Path(named), f"stowage up --data-dir {shlex.quote(named)}"
    return default_data_dir(), "stowage up"


def _base_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise BadRequest(
            f"{text!r} is no address ({exc}); write http://HOST:PORT", field="STOWAGE_URL"
        ) from exc
    if url.scheme not in {"http", "https"} or not url.host:
        raise BadRequest(f"{text!r} is no address; write http://HOST:PORT", field="STOWAGE_URL")
    if url.userinfo:
        raise BadRequest("an address holds no password; set STOWAGE_TOKEN", field="STOWAGE_URL")
    return str(url.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/graphql")


class StowageClient:
    """One manager, asked over GraphQL.

    Every method raises the `StowageError` that the manager answered, `Unauthenticated` for a token that it refuses,
    or `Unavailable` if it gives no answer. In what they return, ids are plain UUIDs and sizes are integers of bytes.
    """

    def __init__(self, address: Address, *, timeout: float = ANSWER_TIMEOUT) -> None:
        self.address = address
        if not re.fullmatch(r"[\x21-\x7e]+", address.token):
            raise Unauthenticated(f"what {address.token_source} holds is no token; put the token there alone")
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {address.token}"},
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            trust_env=not address.embedded,  # a proxy of the environment does not lead to this machine's own stack
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    # The catalogue.

    def find_revisions(self, model: str, version: str) -> list[ArtifactRevision]:
        """Return this version of the model from the catalogue, one for each registry that has it."""
        data = self.execute(documents.FIND_REVISION, {"name": model, "version": version})
        return [
            cast("ArtifactRevision", revision | {"artifact": artifact})
            for artifact in _nodes(data["artifacts"])
            for revision in _nodes(artifact.pop("revisions"))
        ]

    def scan(self, model: str, version: str | None) -> list[ArtifactRevision]:
        """Ask the default registry for the model and take it into the catalogue; None takes every branch and tag."""
        data = self.execute(documents.SCAN_MODEL, {"model": model, "version": version})
        return cast("list[ArtifactRevision]", _nodes(data["scanArtifactModels"]["artifactRevision"]))

    def artifacts(
        self, *, search: str | None, registry: str | None, status: list[str] | None
    ) -> Iterator[ArtifactSummary]:
        """Yield the models of the catalogue by name, page by page; with `status` those with a revision that stands there."""
        wanted: dict[str, object] = {"availability": ["ALIVE"]}
        if search:
            wanted["name"] = {"iContains": search}
        if registry:
            wanted["registry"] = {"equals": registry}
        for found in self.pages(documents.ARTIFACTS, "artifacts", filter=wanted, status=status or None):
            if found["matching"]["count"] or not status:
                yield cast("ArtifactSummary", found)

    def artifact(self, model: str, registry: str | None, version: str | None) -> WholeArtifact:
        """Return a model with its revisions, or with one of them.

        Raises `NotFound`, and `Conflict` if several registries have the model and none was named.
        """
        variables = {"name": model, "registry": {"equals": registry} if registry else None}
        found = _nodes(self.execute(documents.FIND_ARTIFACT, variables)["artifacts"])
        if not found:
            raise NotFound(
                f"there is no {model} in the catalogue; `stowage artifact list` shows what there is, "
                f"`stowage scan {model}` takes it in"
            )
        if len(found) > 1:
            names = ", ".join(str(artifact["registry"]["name"]) for artifact in found)
            raise Conflict(f"several registries have {model} ({names}); choose one with --registry")
        (artifact,) = found
        revisions = list(
            self.pages(
                documents.REVISIONS,
                "artifactRevisions",
                artifactId=artifact["id"],
                version={"equals": version} if version else None,
            )
        )
        if version and not revisions:
            raise NotFound(
                f"there is no {model}@{version} in the catalogue; `stowage artifact show {model}` shows its "
                f"revisions, `stowage scan {model}@{version}` takes it in"
            )
        return cast(
            "WholeArtifact", artifact | {"revisions": [cast("WholeRevision", each) for each in revisions]}
        )

    # Imports.

    def import_revision(
        self, revision_id: str, *, vfolder_id: str | None, options: dict[str, object]
    ) -> ImportTask | None:
        """Order an import; None if the artifact storage holds that commit already."""
        variables = {"revisionId": revision_id, "vfolderId": vfolder_id, "options": options}
        data = self.execute(documents.IMPORT_REVISION, variables)
        return cast("ImportTask | None", data["importArtifacts"]["tasks"][0]["task"])

    def import_task(self, task_id: str) -> ImportTask:
        """Return one import with its verification. Raises `NotFound` for a task that is not there or not the caller's."""
        task = self.execute(documents.IMPORT_TASK, {"id": task_id})["importTask"]
        if task is None:
            raise NotFound(f"there is no import {task_id}; `stowage task list` shows yours")
        return cast("ImportTask", task)

    def import_tasks(
        self, *, status: list[str] | None, vfolder_id: str | None, limit: int
    ) -> tuple[list[ImportTask], int]:
        """Return the newest imports that the caller may see, newest first, and how many there are in all."""
        variables = {"status": status or None, "vfolderId": vfolder_id, "first": limit}
        found = self.execute(documents.IMPORT_TASKS, variables)["importTasks"]
        return cast("list[ImportTask]", _nodes(found)), found["count"]

    def cancel(self, task_id: str) -> ImportTask:
        """Ask for a cancel; the task says how far it is. One that ended stays as it is."""
        data = self.execute(documents.CANCEL_IMPORT_TASK, {"id": task_id})
        return cast("ImportTask", data["cancelImportTask"]["task"])

    def retry(self, task_id: str) -> ImportTask:
        """Order again what an import that failed or was cancelled was to bring; returns the new import."""
        data = self.execute(documents.RETRY_IMPORT_TASK, {"id": task_id})
        return cast("ImportTask", data["retryImportTask"]["task"])

    # Folders.

    def vfolders(self, *, search: str | None = None, writable: bool = False) -> Iterator[VFolder]:
        """Yield every folder that the caller may see, page by page."""
        for found in self.pages(documents.VFOLDERS, "vfolders", search=search, writable=writable):
            yield cast("VFolder", found)

    def find_vfolder(self, folder: str) -> VFolder | None:
        """Return the folder with this id or exact name, None if there is none.

        Raises `Conflict` if several have the name: among them one that is not being deleted, then one that the
        caller may write to, is preferred.
        """
        if is_uuid(folder) and (found := self.execute(documents.VFOLDER, {"id": folder})["vfolder"]):
            return cast("VFolder", found)
        named = [vfolder for vfolder in self.vfolders(search=folder) if vfolder["name"] == folder]
        if len(named) > 1:
            named = [vfolder for vfolder in named if not vfolder["status"].startswith("DELETE")] or named
        if len(named) > 1:
            named = [vfolder for vfolder in named if vfolder["permission"] != "READ_ONLY"] or named
        if len(named) > 1:
            ids = ", ".join(f"{vfolder['id']} on {vfolder['host']}" for vfolder in named)
            raise Conflict(f"several folders are called {folder}; give the id of one of them: {ids}")
        return named[0] if named else None

    def vfolder(self, folder: str) -> VFolder:
        """Return the folder with this id or exact name; raises `NotFound` and `Conflict` as `find_vfolder` says."""
        if (found := self.find_vfolder(folder)) is None:
            raise NotFound(f"there is no folder {folder}; `stowage folder list` shows yours")
        return found

    def create_vfolder(
        self, name: str, *, usage_mode: str, host: str | None, project_id: str | None = None
    ) -> VFolder:
        """Make a folder of the caller's own, or of a project's; without host it lies on the default one."""
        variables = {"name": name, "usageMode": usage_mode, "host": host, "projectId": project_id}
        return cast("VFolder", self.execute(documents.CREATE_VFOLDER, variables)["createVfolder"]["vfolder"])

    def delete_vfolder(self, vfolder_id: str) -> VFolder:
        """Delete a folder with everything in it; its status tells whether its proxy has done so."""
        data = self.execute(documents.DELETE_VFOLDER, {"id": vfolder_id})
        return cast("VFolder", data["deleteVfolder"]["vfolder"])

    def vfolder_usage(self, vfolder_id: str) -> VFolderUsage | None:
        """Return what a folder holds, None where its proxy does not tell."""
        found = self.execute(documents.VFOLDER_USAGE, {"id": vfolder_id})["vfolder"]
        return cast("VFolderUsage | None", found and found["usage"])

    def volumes(self) -> list[Volume]:
        """Return the volumes that the caller may make folders on."""
        return cast("list[Volume]", self.execute(documents.VOLUMES, {})["volumes"])

    def vfolder_files(self, vfolder_id: str, path: str | None) -> list[VFolderFile]:
        """Return the entries directly in a directory of the folder, sorted by path."""
        found = self.execute(documents.VFOLDER_FILES, {"id": vfolder_id, "path": path or None})[
            "vfolderFiles"
        ]
        return sorted(cast("list[VFolderFile]", found), key=lambda entry: entry["path"])

    def vfolder_tree(self, vfolder_id: str, path: str | None) -> list[VFolderFile]:
        """Return every file below a directory of the folder, sorted by path; our own manifests are left out."""
        files: list[VFolderFile] = []
        seen: set[str] = set()
        waiting: list[str | None] = [path]
        while waiting:
            for entry in self.vfolder_files(vfolder_id, waiting.pop()):
                if not entry["isDirectory"]:
                    files.append(entry)
                elif entry["path"] not in seen and entry["path"].rsplit("/", 1)[-1] != ".stowage":
                    seen.add(entry["path"])
                    waiting.append(entry["path"])
        return sorted(files, key=lambda entry: entry["path"])

    # Users and tokens.

    def users(self, *, search: str | None = None) -> Iterator[User]:
        """Yield every user by address, page by page. For administrators."""
        for found in self.pages(documents.USERS, "users", search=search):
            yield cast("User", found)

    def user_id(self, user: str) -> str:
        """Return the id of the user with this id or address. Raises `NotFound` and, for others' addresses, `Forbidden`."""
        if is_uuid(user):
            return user
        address = user.lower()
        me = self.execute(documents.ME, {})["me"]
        for found in [me] if me["email"] == address else self.users(search=address):
            if found["email"] == address:
                return str(found["id"])
        raise NotFound(f"there is no user {user}; `stowage user list` shows all")

    def create_user(self, email: str, *, role: str) -> User:
        """Make a user. For administrators."""
        data = self.execute(documents.CREATE_USER, {"email": email, "role": role})
        return cast("User", data["createUser"]["user"])

    def set_user_status(self, user_id: str, status: str) -> User:
        """Let a user in (ACTIVE) or keep the user out (INACTIVE). For administrators."""
        data = self.execute(documents.SET_USER_STATUS, {"id": user_id, "status": status})
        return cast("User", data["setUserStatus"]["user"])

    def tokens(self, user_id: str | None, *, active: bool) -> Iterator[Token]:
        """Yield a user's tokens, the newest first; one's own where `user_id` is None. `active` leaves out what is ended."""
        for found in self.pages(documents.TOKENS, "tokens", userId=user_id, activeOnly=active):
            yield cast("Token", found)

    def create_token(self, name: str, *, user_id: str | None, expires_at: str | None) -> tuple[str, str]:
        """Make a token; returns its id and the token, which can be read this once."""
        variables = {"name": name, "userId": user_id, "expiresAt": expires_at}
        made = self.execute(documents.CREATE_TOKEN, variables)["createToken"]
        return made["id"], made["token"]

    def revoke_token(self, token_id: str) -> None:
        """End a token; may be repeated."""
        self.execute(documents.REVOKE_TOKEN, {"id": token_id})

    # The wire.

    def pages(self, document: str, field: str, **variables: object) -> Iterator[dict[str, Any]]:
        """Yield every node of a connection; each page is asked for when the one before is read."""
        after = None
        while True:
            found = self.execute(document, variables | {"first": PAGE, "after": after})[field]
            yield from _nodes(found)
            if not found["pageInfo"]["hasNextPage"]:
                return
            after = found["pageInfo"]["endCursor"]

    def execute(self, document: str, variables: Mapping[str, object]) -> dict[str, Any]:
        """Send one GraphQL document and return its data."""
        body = {"query": document, "variables": variables}
        try:
            response = self._http.post(f"{self.address.url}/graphql", json=body)
        except httpx.TimeoutException as exc:
            raise Unavailable(
                f"{self.address.url} gave no answer in time; it may be too busy, try again"
            ) from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise Unavailable(self._unreachable(re.sub(r"^\[Errno -?\d+\] ", "", str(exc)))) from exc
        try:
            answer = response.json()
            errors, data = answer.get("errors"), answer.get("data")
        except (ValueError, AttributeError) as exc:
            raise self._not_graphql(response.status_code) from exc
        if errors:
            raise self._error(errors)
        if not isinstance(data, dict):
            raise self._not_graphql(response.status_code)
        return cast("dict[str, Any]", _plain_values(data))

    def _unreachable(self, reason: str) -> str:
        if self.address.embedded:
            return _starting(Path(self.address.url_source).parent) or (
                f"no Stowage answers at {self.address.url}, which {self.address.url_source} names ({reason});"
                f" start it with `{self.address.start_with}`"
            )
        return f"{self.address.url} cannot be reached ({reason}); check STOWAGE_URL and that the manager runs"

    def _not_graphql(self, status: int) -> StowageError:
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            return Unauthenticated(self._refused("the token was refused"))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return Unavailable(f"{self.address.url} answers with status {status}; try again later")
        return Unavailable(
            f"{self.address.url} is no Stowage: /graphql answers with status {status} and no GraphQL;"
            f" check {self.address.url_source}"
        )

    def _error(self, errors: object) -> StowageError:
        try:
            first = cast("list[dict[str, Any]]", errors)[0]
            message, extensions = str(first["message"]), first.get("extensions") or {}
            code, at = str(extensions.get("code") or ""), extensions.get("field")
        except (TypeError, LookupError, AttributeError):
            return Unavailable(f"{self.address.url} answers with an error that cannot be read")
        if code == Unauthenticated.code:
            message = self._refused(message)
        if code and code not in CODES:
            message = (
                f"{message} [{code}]"  # a newer manager's; the class that stands for it has another code
            )
        return error_for(code, for_commands(message), field=None if at is None else _input_name(str(at)))

    def _refused(self, message: str) -> str:
        return f"{message.rstrip('.')}; the token came from {self.address.token_source}"


def connect() -> StowageClient:
    """Open the manager that `find_stack` finds."""
    return StowageClient(find_stack())


def for_commands(message: str) -> str:
    """Write a message of the API with the options of the command line."""
    return re.sub(
        r"\bonConflict:? (OVERWRITE|FAIL)\b", lambda found: f"--on-conflict {found[1].lower()}", message
    )


def _input_name(field: str) -> str:
    known = re.sub(r"\[\d+\].*", "", field)
    return _INPUTS.get(known) or field.removeprefix("input.")


def plain_id(node_id: str) -> str:
    """Return the UUID in a node's global id; a plain UUID, or what is neither, comes back as it is."""
    if is_uuid(node_id):
        return node_id
    try:
        _kind, _colon, inner = b64decode(node_id, validate=True).decode().rpartition(":")
    except (NotBase64, UnicodeDecodeError, ValueError):
        return node_id
    return inner if is_uuid(inner) else node_id


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _plain_values(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain_values(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _plain_value(key, item) for key, item in value.items()}


def _plain_value(key: str, value: Any) -> Any:
    if key == "id" and isinstance(value, str):
        return plain_id(value)
    if key in _BYTE_SIZES and isinstance(value, str) and value.isdecimal():
        return int(value)
    return _plain_values(value)


def _nodes(connection: dict[str, Any] | None) -> list[Any]:
    return [edge["node"] for edge in connection["edges"]] if connection else []
