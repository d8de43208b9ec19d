"""The hub's HTTP doors."""

import hmac
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy_client.errors import BadRequest
from stowage.hub.answers import FileAnswer
from stowage.hub.content import ServedFile
from stowage.hub.errors import AccessRefused, EntryNotFound, HubError
from stowage.hub.layout import Model
from stowage.hub.library import Library, Revision
from stowage.hub.paging import Key, link_to_next, page_of

PAGE_SIZE = 1000
RECHECK_SECONDS = 1.0


def create_app(
    directory: Path,
    *,
    page_size: int = PAGE_SIZE,
    recheck_seconds: float = RECHECK_SECONDS,
    tokens: Collection[str] = (),
) -> Starlette:
    """Make the hub of a directory; its layout stands in this package's docstring.

    `page_size` is the longest page of trees and searches, in entries. Files are resolved against what was read of
    the model up to `recheck_seconds` ago, where the file itself is unchanged; everything else is looked up anew.
    Where `tokens` are given, all but `/healthz` wants one of them. Raises `BadRequest` for a missing directory.
    """
    if not directory.is_dir():
        raise BadRequest(
            f"{directory}: is no directory; name the one that holds org/name/…", field="directory"
        )
    hub = _Hub(Library(directory), page_size, recheck_seconds, restricted=bool(tokens))
    model = "/{org}/{name}"
    return Starlette(
        routes=[
            Route("/healthz", _healthz),
            Route("/api/whoami-v2", hub.whoami),
            Route("/api/models", hub.search),
            Route(f"/api/models{model}", hub.info),
            Route(f"/api/models{model}/revision/{{rest:path}}", hub.info),
            Route(f"/api/models{model}/tree/{{rest:path}}", hub.tree),
            Route(f"/api/models{model}/refs", hub.refs),
            Route(f"{model}/resolve/{{rest:path}}", hub.resolve),
            Route(f"{model}/raw/{{rest:path}}", hub.raw),
        ],
        middleware=[Middleware(_RequireToken, tokens=frozenset(tokens))] if tokens else [],
        exception_handlers={HubError: _refusal, HTTPException: _http_error},
    )


@dataclass(frozen=True, slots=True)
class _Hub:
    library: Library
    page_size: int
    recheck: float
    restricted: bool

    async def whoami(self, _request: Request) -> Response:
        """Say who the caller is: the one reader of a hub with tokens, else nobody."""
        if self.restricted:
            return JSONResponse({"type": "user", "name": "reader", "fullname": "Reader", "orgs": []})
        return JSONResponse({"error": "Invalid username or password."}, 401)

    async def info(self, request: Request) -> Response:
        """Describe a model at a revision; `blobs` adds sizes and digests."""
        name = "/".join(_segments(request, after=5)) or "main"
        revision = await self.library.revision(_model_id(request), name, since=time.monotonic())
        body = _describe(revision.model) | _describe_content(revision, blobs=_flag(request, "blobs"))
        return JSONResponse(body, headers=revision.headers)

    async def tree(self, request: Request) -> Response:
        """List a folder of a revision, or with `recursive` everything below it."""
        model_id, asked = _model_id(request), time.monotonic()
        model = await self.library.model(model_id, since=asked)
        name, rest = _split(model, _segments(request, after=5))
        folder = "/".join(rest)
        revision = await self.library.revision(model_id, name, since=asked)
        content = revision.content
        if folder and folder not in content.folders:
            raise EntryNotFound(f"{folder[:200]} does not exist at this revision", revision.headers)
        recursive, inside = _flag(request, "recursive"), f"{folder}/" if folder else ""
        paths = [
            path
            for path in (*content.files, *content.folders)
            if path.startswith(inside) and (recursive or "/" not in path[len(inside) :])
        ]
        page, last = page_of(paths, lambda path: [path], request, size=self.page_size)
        # The next page is linked by commit: a change in between ends the listing instead of mixing two.
        at = quote("/".join([content.commit, folder] if folder else [content.commit]))
        link = link_to_next(request, f"/api/models/{model_id}/tree/{at}", last)
        expand = _flag(request, "expand")
        return JSONResponse(
            [_tree_entry(revision, path, expand=expand) for path in page], headers=revision.headers | link
        )

    async def refs(self, request: Request) -> Response:
        """List branches and tags with their commits."""
        asked = time.monotonic()
        model = await self.library.model(_model_id(request), since=asked)

        async def describe(refs: dict[str, str], kind: str) -> list[dict[str, str]]:
            return [
                {
                    "name": name,
                    "ref": f"refs/{kind}/{name}",
                    "targetCommit": (await self.library.content(model, folder, since=asked)).commit,
                }
                for name, folder in sorted(refs.items())
            ]

        body: dict[str, Any] = {
            "branches": await describe(model.branches, "heads"),
            "converts": [],
            "tags": await describe(model.tags, "tags"),
        }
        if _flag(request, "include_prs"):
            body["pullRequests"] = []
        return JSONResponse(body)

    async def search(self, request: Request) -> Response:
        """Find models whose id contains `search`; those with a wrong layout are left out."""
        asked, query = time.monotonic(), request.query_params
        words, author, labels = query.get("search", "").lower(), query.get("author"), query.getlist("filter")
        sort = query.get("sort", "id")
        models: list[tuple[Key, Model]] = []
        for model_id in await self.library.model_ids():
            if words in model_id.lower() and author in {None, model_id.partition("/")[0]}:
                try:
                    model = await self.library.model(model_id, since=asked)
                    if set(labels) <= set(model.manifest.labels):
                        models.append((await self._sort_key(model, sort), model))
                except HubError:
                    continue
        descending = sort != "id" and query.get("direction", "-1") != "1"
        page, last = page_of(
            models, lambda found: found[0], request, size=self.page_size, descending=descending
        )
        body = []
        for _, model in page:
            entry = _describe(model)
            if _flag(request, "full") or "expand" in query:
                content = await self.library.content(model, model.branches["main"], since=asked)
                entry |= _describe_content(Revision(model, content), blobs=False)
            body.append(entry)
        return JSONResponse(body, headers=link_to_next(request, "/api/models", last))

    async def resolve(self, request: Request) -> Response:
        """Send a file's bytes."""
        return await self._send_file(request, pointers=False)

    async def raw(self, request: Request) -> Response:
        """Send what Git holds of a file: for an LFS file that is its pointer."""
        return await self._send_file(request, pointers=True)

    async def _send_file(self, request: Request, *, pointers: bool) -> Response:
        model_id, since = _model_id(request), time.monotonic() - self.recheck
        model = await self.library.model(model_id, since=since)
        name, rest = _split(model, _segments(request, after=3))
        revision, file, descriptor = await self.library.open(model_id, name, "/".join(rest), since=since)
        answer = FileAnswer(file, descriptor, request.headers, revision.headers)
        if pointers and (pointer := file.pointer) is not None:
            answer.close()
            return PlainTextResponse(pointer, headers=revision.headers | {"ETag": f'"{file.digest.blob_id}"'})
        return answer

    async def _sort_key(self, model: Model, sort: str) -> Key:
        if sort in {"downloads", "likes"}:
            return [model.manifest.downloads if sort == "downloads" else model.manifest.likes, model.id]
        if sort in {"lastModified", "createdAt"}:
            listing = await self.library.listing(model, model.branches["main"])
            return [listing.modified_ns if sort == "lastModified" else listing.created_ns, model.id]
        return [model.id]


class _RequireToken:
    def __init__(self, app: ASGIApp, tokens: frozenset[str]) -> None:
        self.app = app
        self.tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self.app(scope, receive, send)
            return
        shown = Headers(scope=scope).get("authorization", "")
        token = shown.removeprefix("Bearer ").strip().encode() if shown.startswith("Bearer ") else b""
        # Every token is compared, so that the time tells nothing about which one was nearly right.
        if any([hmac.compare_digest(token, known) for known in self.tokens]):  # noqa: C419 -- no early end
            await self.app(scope, receive, send)
            return
        message = (
            "Invalid credentials in Authorization header"
            if shown
            else "Access to this hub is restricted. Please log in."
        )
        await _refuse(AccessRefused(message, {"WWW-Authenticate": "Bearer"}))(scope, receive, send)


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok")


def _refuse(error: HubError) -> Response:
    headers = {
        "X-Error-Code": error.code,
        "X-Error-Message": error.message.encode("ascii", "backslashreplace").decode(),
    }
    return JSONResponse({"error": error.message}, error.status, error.headers | headers)


async def _refusal(_request: Request, error: Exception) -> Response:
    return _refuse(error if isinstance(error, HubError) else HubError("Internal error"))


async def _http_error(_request: Request, error: Exception) -> Response:
    status, detail = (
        (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "Internal error")
    )
    return JSONResponse({"error": detail}, status)


def _model_id(request: Request) -> str:
    return f"{request.path_params['org']}/{request.path_params['name']}"


def _segments(request: Request, *, after: int) -> list[str]:
    """Return the path's segments behind the first ones, decoded one by one: `%2F` is no separator."""
    raw: bytes = request.scope["raw_path"]
    segments = raw.decode("ascii", "replace").lstrip("/").split("/")[after:]
    return [unquote(segment) for segment in segments]


def _split(model: Model, segments: list[str]) -> tuple[str, list[str]]:
    """Tell the revision from the path: a branch `a/b` may be written `a%2Fb` or `a/b`."""
    for length in range(1, len(segments) + 1):
        if model.folder_of(name := "/".join(segments[:length])) is not None:
            return name, segments[length:]
    return segments[0], segments[1:]


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in {"1", "true"}


def _describe(model: Model) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "_id": model.id,
        "id": model.id,
        "modelId": model.id,
        "author": model.author,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": manifest.downloads,
        "likes": manifest.likes,
        "tags": manifest.labels,
        **({"description": manifest.description} if manifest.description is not None else {}),
    }


def _describe_content(revision: Revision, *, blobs: bool) -> dict[str, Any]:
    content = revision.content
    return {
        "sha": content.commit,
        "lastModified": _time(content.listing.modified_ns),
        "createdAt": _time(content.listing.created_ns),
        "usedStorage": sum(file.size for file in content.files.values()),
        "siblings": [
            {"rfilename": path} | (_blob(file) if blobs else {}) for path, file in content.files.items()
        ],
    }


def _blob(file: ServedFile) -> dict[str, Any]:
    described: dict[str, Any] = {"blobId": file.digest.blob_id, "size": file.size}
    if (pointer := file.pointer) is not None:
        described["lfs"] = {"sha256": file.digest.sha256, "size": file.size, "pointerSize": len(pointer)}
    return described


def _tree_entry(revision: Revision, path: str, *, expand: bool) -> dict[str, Any]:
    content = revision.content
    entry: dict[str, Any]
    if (file := content.files.get(path)) is None:
        entry = {"type": "directory", "oid": content.folders[path], "size": 0, "path": path}
        changed = content.listing.modified_ns
    else:
        entry = {"type": "file", "oid": file.digest.blob_id, "size": file.size, "path": path}
        changed = file.identity.mtime_ns
        if (pointer := file.pointer) is not None:
            entry["lfs"] = {"oid": file.digest.sha256, "size": file.size, "pointerSize": len(pointer)}
    if expand:
        entry["lastCommit"] = {"id": content.commit, "title": "Present content", "date": _time(changed)}
    return entry


def _time(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
