"""A manager behind its HTTP door, with real PostgreSQL and a small storage proxy that speaks the wire."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import structlog
from sqlalchemy import event, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from manager.auth import new_token
from manager.db import Database
from manager.graphql.context import Services
from manager.models import (
    ApiToken,
    Artifact,
    ArtifactRegistry,
    ArtifactRevision,
    Base,
    User,
    UserRole,
    VFolder,
    VFolderOwnershipType,
)
from manager.settings import Settings
from proxy_client.wire import ImportOrder, ImportReport, ImportState

SECRET = "proxy-secret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Json = dict[str, Any]


class WireProxy:
    """Answers as a storage proxy would; `orders`, `cancelled`, `folders` and `deleted` show what it was asked."""

    def __init__(self) -> None:
        self.orders: dict[UUID, ImportOrder] = {}
        self.cancelled: list[UUID] = []
        self.folders: list[str] = []
        self.deleted: list[str] = []
        self.files: list[Json] = []
        self.models: dict[str, Json] = {}
        self.used: dict[str, int] = {}
        self.limits: dict[str, int | None] = {}
        self.decided: list[tuple[UUID, str]] = []
        self.configuration: Json = {}
        self.checks: list[Json] = []
        self.check_fault: tuple[Json, int] | None = None
        self.unpublished: list[tuple[str, Json]] = []
        self.presigned: list[tuple[str, Json]] = []
        self.kept: list[Json] = []
        self.preview: Json = {"total_bytes": 10, "missing_bytes": 10}
        self.previewed: list[Json] = []
        self.archive_kind = "vfs"
        self.down = False
        self.app = Starlette(
            routes=[
                Route("/imports", self._order, methods=["POST"]),
                Route("/imports/events", self._events),
                Route("/imports/{task:uuid}", self._report),
                Route("/imports/{task:uuid}/cancel", self._cancel, methods=["POST"]),
                Route("/imports/{task:uuid}/approve", self._decide, methods=["POST"]),
                Route("/imports/{task:uuid}/reject", self._decide, methods=["POST"]),
                Route("/configuration", self._configuration, methods=["GET", "PUT"]),
                Route("/configuration/check", self._check, methods=["POST"]),
                Route("/artifact-storages/{name}/unpublish", self._unpublish, methods=["POST"]),
                Route("/artifact-storages/{name}/presign", self._presign, methods=["POST"]),
                Route("/volumes", self._volumes),
                Route("/volumes/{v}/quota-scopes/{scope}", self._quota_scope, methods=["GET", "PUT"]),
                Route("/artifact-storages", self._storages),
                Route("/volumes/{v}/quota-scopes/{scope}/vfolders", self._make_folder, methods=["POST"]),
                Route(
                    "/volumes/{v}/quota-scopes/{scope}/vfolders/{f}", self._delete_folder, methods=["DELETE"]
                ),
                Route("/volumes/{v}/quota-scopes/{scope}/vfolders/{f}/usage", self._usage),
                Route("/volumes/{v}/quota-scopes/{scope}/vfolders/{f}/files", self._files),
                Route("/volumes/{v}/quota-scopes/{scope}/vfolders/{f}/models", self._kept),
                Route(
                    "/volumes/{v}/quota-scopes/{scope}/vfolders/{f}/preview", self._preview, methods=["POST"]
                ),
                Route("/registries/{r}/models", self._search),
                Route("/registries/{r}/models/{model:path}", self._model),
                Route("/readyz", self._ready),
            ]
        )

    @property
    def transport(self) -> httpx.AsyncBaseTransport:
        inner = httpx.ASGITransport(app=self.app)

        async def handle(request: httpx.Request) -> httpx.Response:
            if self.down:
                raise httpx.ConnectError("refused", request=request)
            assert request.headers["Authorization"] == f"Bearer {SECRET}"
            return await inner.handle_async_request(request)

        return httpx.MockTransport(handle)

    async def _order(self, request: Request) -> Response:
        order = ImportOrder.model_validate_json(await request.body())
        self.orders[order.task_id] = order
        return JSONResponse({"task_id": str(order.task_id)}, 202)

    async def _events(self, _request: Request) -> Response:
        return Response(media_type="text/event-stream")

    async def _report(self, request: Request) -> Response:
        order = self.orders.get(request.path_params["task"])
        if order is None:
            return _error("NOT_FOUND", 404)
        report = ImportReport(
            task_id=order.task_id,
            request_id=order.request_id,
            state=ImportState.PENDING,
            sequence=1,
            created_at=datetime.now(UTC),
        )
        return Response(report.model_dump_json(), media_type="application/json")

    async def _cancel(self, request: Request) -> Response:
        self.cancelled.append(request.path_params["task"])
        return Response(status_code=202)

    async def _decide(self, request: Request) -> Response:
        self.decided.append((request.path_params["task"], request.url.path.rpartition("/")[2]))
        return Response(status_code=202)

    async def _configuration(self, request: Request) -> Response:
        if request.method == "PUT":
            self.configuration = await request.json()
        return JSONResponse({"digest": None})

    async def _check(self, request: Request) -> Response:
        self.checks.append(await request.json())
        return JSONResponse(*self.check_fault) if self.check_fault else Response(status_code=204)

    async def _unpublish(self, request: Request) -> Response:
        self.unpublished.append((request.path_params["name"], await request.json()))
        return Response(status_code=204)

    async def _presign(self, request: Request) -> Response:
        order = await request.json()
        self.presigned.append((request.path_params["name"], order))
        return JSONResponse(
            {"url": f"http://s3.invalid/{order['path']}/{order['key']}", "fields": {"a": "b"}}
        )

    async def _volumes(self, _request: Request) -> Response:
        volume = {"name": "volume1", "backend": "vfs", "capabilities": ["quota"], "total_bytes": 1 << 40}
        return JSONResponse([volume])

    async def _quota_scope(self, request: Request) -> Response:
        scope = request.path_params["scope"]
        if request.method == "PUT":
            self.limits[scope] = (await request.json())["limit_bytes"]
        used, limit = self.used.get(scope, 0), self.limits.get(scope)
        return JSONResponse({"quota_scope": scope, "used_bytes": used, "limit_bytes": limit})

    async def _storages(self, _request: Request) -> Response:
        return JSONResponse([{"name": "archive", "type": self.archive_kind}])

    async def _make_folder(self, request: Request) -> Response:
        self.folders.append((await request.json())["folder"])
        return Response(status_code=201)

    async def _delete_folder(self, request: Request) -> Response:
        self.deleted.append("{v}/{scope}/{f}".format(**request.path_params))
        return Response(status_code=204)

    async def _usage(self, _request: Request) -> Response:
        return JSONResponse({"used_bytes": 5_000_000_000, "file_count": 7})

    async def _files(self, request: Request) -> Response:
        if ".." in request.query_params["path"]:
            return JSONResponse(
                {"code": "PATH_REFUSED", "message": "no '..' in a path; name it plainly"}, 422
            )
        return JSONResponse(self.files)

    async def _kept(self, _request: Request) -> Response:
        return JSONResponse(self.kept)

    async def _preview(self, request: Request) -> Response:
        self.previewed.append(await request.json())
        return JSONResponse(self.preview)

    async def _search(self, _request: Request) -> Response:
        return JSONResponse([model | {"revisions": []} for model in self.models.values()])

    async def _model(self, request: Request) -> Response:
        model = self.models.get(request.path_params["model"])
        return JSONResponse(model) if model else _error("SOURCE_NOT_FOUND", 404)

    async def _ready(self, _request: Request) -> Response:
        return Response()


def _error(code: str, status: int) -> Response:
    return JSONResponse({"code": code, "message": "there is no such thing"}, status)


@dataclass
class Person:
    """A user and a token of theirs."""

    row: User
    token: str

    @property
    def id(self) -> UUID:
        return self.row.id


@dataclass
class Manager:
    """The application as its clients see it, and the database beneath."""

    http: httpx.AsyncClient
    services: Services
    proxy: WireProxy
    admin: Person
    settings: Settings
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def database(self) -> Database:
        return self.services.database

    async def post(self, query: str, variables: Json | None = None, *, by: Person | None = None) -> Json:
        """Send an operation, the administrator's unless told otherwise; return the whole answer."""
        response = await self.http.post(
            "/graphql",
            json={"query": query, "variables": variables or {}},
            headers={"Authorization": f"Bearer {(by or self.admin).token}"},
        )
        assert response.status_code == 200, response.text
        body: Json = response.json()
        return body

    async def ask(self, query: str, variables: Json | None = None, *, by: Person | None = None) -> Json:
        """Send an operation that is expected to succeed; return its data."""
        body = await self.post(query, variables, by=by)
        assert "errors" not in body, body["errors"]
        data: Json = body["data"]
        return data

    async def refusal(self, query: str, variables: Json | None = None, *, by: Person | None = None) -> Json:
        """Send an operation that is expected to be refused; return its one error."""
        body = await self.post(query, variables, by=by)
        assert len(body["errors"]) == 1, body
        error: Json = body["errors"][0]
        return error

    async def add(self, *rows: Base) -> None:
        async with self.database.begin() as session:
            for row in rows:
                session.add(row)
                await session.flush()

    async def person(self, name: str = "somebody", role: UserRole = UserRole.USER) -> Person:
        user = User(email=f"{name}{next(self._numbers)}@example.org", role=role)
        token, hashed = new_token()
        await self.add(user, ApiToken(user=user, name="test", token_hash=hashed))
        return Person(user, token)

    async def artifact(self, name: str = "org/model", **values: Any) -> Artifact:
        artifact = Artifact(**{"registry_id": await self.registry_id(), "name": name} | values)
        await self.add(artifact)
        return artifact

    async def registry_id(self, name: str = "hub") -> UUID:
        async with self.database.read() as session:
            found = await session.scalars(select(ArtifactRegistry.id).where(ArtifactRegistry.name == name))
            return found.one()

    async def revision(self, artifact: Artifact, version: str = "main", **values: Any) -> ArtifactRevision:
        revision = ArtifactRevision(
            **{"artifact_id": artifact.id, "version": version, "digest": COMMIT, "size": 10} | values
        )
        await self.add(revision)
        return revision

    async def folder(self, owner: Person, name: str | None = None, **values: Any) -> VFolder:
        folder = VFolder(
            **{
                "name": name or f"folder{next(self._numbers)}",
                "host": "local:volume1",
                "ownership_type": VFolderOwnershipType.USER,
                "user_id": owner.id,
            }
            | values
        )
        await self.add(folder)
        return folder

    async def rows(self, table: type[Base]) -> list[Any]:
        """All rows of a table, as they are now, in a fixed order."""
        statement = table.__table__.select().order_by(*table.__table__.primary_key)
        async with self.database.read() as session:
            return [tuple(row) for row in await session.execute(statement)]

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Collect the statements of requests; what the reconciler asks beside them is left out."""
        seen: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if "request_id" in structlog.contextvars.get_contextvars():
                seen.append(statement)

        engine = self.database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(engine, "before_cursor_execute", note)


def settings_in(directory: Path, database_url: str) -> Settings:
    (directory / "database-url").write_text(database_url)
    (directory / "secret").write_text(f"{SECRET}\n")
    (directory / "key").write_text("k" * 32)
    return Settings.model_validate(
        {
            "manager": {
                "database-file": directory / "database-url",
                "database-pool": 4,
                "key-file": directory / "key",
            },
            "storage-proxies": {
                "local": {"url": "http://proxy.invalid", "secret-file": directory / "secret"}
            },
            "reservoir": {"proxy": "local", "download": "archive", "verify": "archive", "archive": "archive"},
            "artifact-registry": {"default": "hub", "proxy": "local"},
            "artifact-registries": {"hub": {"type": "huggingface", "url": "http://hub.invalid"}},
            "vfolder": {"default-host": "local:volume1"},
            # The tests ask for everything themselves: nothing is to happen beside them.
            "reconciler": {"order-interval": 3600, "reconnect-delay": 3600, "silence-limit": 3600},
        }
    )
