"""A storage proxy that stands in for the real one: it speaks the wire on a real socket and does what a test says."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from proxy_client import errors, wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import StowageError

SECRET = "secret-of-the-test"
Answer = Callable[[Request], Awaitable[Response]]


class StandInProxy:
    """Records what it is asked. `refuse` holds errors by method name, `refuse_model` by model id for orders,
    `refuse_task` by task for questions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.orders: dict[UUID, wire.ImportOrder] = {}
        self.received: list[UUID] = []
        self.reports: dict[UUID, wire.ImportReport] = {}
        self.cancels: list[UUID] = []
        self.followed: list[int] = []
        self.vfolders: set[str] = set()
        self.limits: dict[str, int | None] = {}
        self.used: dict[str, int | None] = {}
        self.before_limit: Callable[[], Awaitable[None]] | None = None
        self.models: dict[str, wire.RegistryModel] = {}
        self.asked_models: list[tuple[str, str | None]] = []
        self.refuse: dict[str, StowageError] = {}
        self.refuse_model: dict[str, StowageError] = {}
        self.refuse_task: dict[UUID, StowageError] = {}
        self.asked: list[UUID] = []
        self.decided: list[tuple[UUID, str]] = []
        self.configuration: wire.ProxyConfiguration | None = None
        self.handed_over = 0
        self.checks: list[wire.ConfigurationCheck] = []
        self.unpublished: list[tuple[str, wire.StoredArtifact]] = []
        self.presigned: list[tuple[str, wire.PresignOrder]] = []
        self.before_order: Callable[[wire.ImportOrder], Awaitable[None]] | None = None
        self.sequence = 0
        self._changed = asyncio.Condition()
        self._socket = _bound(0)
        self._port = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self.client = StorageProxyClient(name, f"http://127.0.0.1:{self._port}", SECRET)

    # Its life.

    async def start(self) -> None:
        if self._socket.fileno() < 0:
            self._socket = _bound(self._port)
        config = uvicorn.Config(
            self._app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        config.load()
        # Without its main loop, which handles signals and looks for them every 0.1 s.
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[self._socket])

    async def stop(self) -> None:
        """Go down: whoever calls finds the port closed. May be repeated."""
        server, self._server = self._server, None
        if server is not None:
            async with self._changed:
                self._changed.notify_all()
            await server.shutdown(sockets=[self._socket])
        self._socket.close()

    def lose_database(self) -> None:
        self.orders.clear()
        self.reports.clear()
        self.sequence = 0

    # What it says.

    async def report(self, task_id: UUID, state: str = "running", **values: Any) -> wire.ImportReport:
        """Change the state of an import; whoever follows hears of it."""
        self.sequence += 1
        now = "2026-11-22T12:00:00Z"
        report = wire.ImportReport.model_validate(
            {"request_id": "r", "created_at": now, "started_at": now, "sequence": self.sequence}
            | ({"finished_at": now} if wire.ImportState(state).terminal else {})
            | values
            | {"task_id": task_id, "state": state}
        )
        async with self._changed:
            self.reports[task_id] = report
            self._changed.notify_all()
        return report

    def _app(self) -> Starlette:
        scope = "/volumes/{volume}/quota-scopes/{scope}/vfolders"
        return Starlette(
            routes=[
                Route("/imports", self._guard(self.start_import), methods=["POST"]),
                Route("/imports/events", self._guard(self.import_events)),
                Route("/imports/{task_id:uuid}", self._guard(self.get_import)),
                Route("/imports/{task_id:uuid}/cancel", self._guard(self.cancel_import), methods=["POST"]),
                Route("/imports/{task_id:uuid}/approve", self._guard(self.approve_import), methods=["POST"]),
                Route("/imports/{task_id:uuid}/reject", self._guard(self.reject_import), methods=["POST"]),
                Route("/configuration", self._guard(self.get_configuration), methods=["GET"]),
                Route("/configuration", self._guard(self.put_configuration), methods=["PUT"]),
                Route("/configuration/check", self._guard(self.check_configuration), methods=["POST"]),
                Route("/artifact-storages/{name}/unpublish", self._guard(self.unpublish), methods=["POST"]),
                Route("/artifact-storages/{name}/presign", self._guard(self.presign), methods=["POST"]),
                Route("/volumes", self._guard(self.volumes)),
                Route(scope.removesuffix("/vfolders"), self._guard(self.quota_scope), methods=["GET", "PUT"]),
                Route("/artifact-storages", self._guard(self.artifact_storages)),
                Route(scope, self._guard(self.create_vfolder), methods=["POST"]),
                Route(scope + "/{folder}", self._guard(self.delete_vfolder), methods=["DELETE"]),
                Route(scope + "/{folder}/files", self._guard(self.vfolder_files)),
                Route(scope + "/{folder}/usage", self._guard(self.vfolder_usage)),
                Route("/registries/{registry}/models", self._guard(self.search_models)),
                Route("/registries/{registry}/models/{org}/{name}", self._guard(self.get_model)),
            ]
        )

    def _guard(self, answer: Answer) -> Answer:
        async def guarded(request: Request) -> Response:
            try:
                if request.headers.get("Authorization") != f"Bearer {SECRET}":
                    raise errors.Unauthenticated("wrong secret")
                if (refusal := self.refuse.get(answer.__name__)) is not None:
                    raise refusal
                return await answer(request)
            except StowageError as exc:
                return JSONResponse(
                    {"code": exc.code, "message": exc.message, "field": exc.field}, exc.status
                )

        return guarded

    async def start_import(self, request: Request) -> Response:
        order = wire.ImportOrder.model_validate_json(await request.body())
        if self.before_order is not None:
            await self.before_order(order)
        self.received.append(order.task_id)
        if (refusal := self.refuse_model.get(order.model.model_id)) is not None:
            raise refusal
        if self.orders.setdefault(order.task_id, order) != order:
            raise errors.Conflict("another body")
        if order.task_id not in self.reports:
            await self.report(order.task_id, "pending")
        return JSONResponse({"task_id": str(order.task_id)}, 202)

    async def get_import(self, request: Request) -> Response:
        task_id = request.path_params["task_id"]
        if (refusal := self.refuse_task.get(task_id)) is not None:
            raise refusal
        self.asked.append(task_id)
        if (report := self.reports.get(task_id)) is None:
            raise errors.NotFound("no such import")
        return _json(report)

    async def cancel_import(self, request: Request) -> Response:
        task_id = request.path_params["task_id"]
        self.cancels.append(task_id)
        if task_id not in self.reports:
            raise errors.NotFound("no such import")
        return Response(status_code=202)

    async def approve_import(self, request: Request) -> Response:
        self.decided.append((request.path_params["task_id"], "approve"))
        return Response(status_code=202)

    async def reject_import(self, request: Request) -> Response:
        rejection = wire.ImportRejection.model_validate_json(await request.body())
        self.decided.append((request.path_params["task_id"], f"reject: {rejection.reason}"))
        return Response(status_code=202)

    async def get_configuration(self, _request: Request) -> Response:
        return JSONResponse({"digest": self.configuration.digest if self.configuration else None})

    async def put_configuration(self, request: Request) -> Response:
        self.configuration = wire.ProxyConfiguration.model_validate_json(await request.body())
        self.handed_over += 1
        return JSONResponse({"digest": self.configuration.digest})

    async def check_configuration(self, request: Request) -> Response:
        self.checks.append(wire.ConfigurationCheck.model_validate_json(await request.body()))
        return Response(status_code=204)

    async def unpublish(self, request: Request) -> Response:
        stored = wire.StoredArtifact.model_validate_json(await request.body())
        self.unpublished.append((request.path_params["name"], stored))
        return Response(status_code=204)

    async def presign(self, request: Request) -> Response:
        order = wire.PresignOrder.model_validate_json(await request.body())
        self.presigned.append((request.path_params["name"], order))
        return JSONResponse({"url": f"http://storage.invalid/{order.path}/{order.key}", "fields": {"a": "b"}})

    async def import_events(self, request: Request) -> Response:
        last = int(request.headers["Last-Event-ID"])
        self.followed.append(last)
        return StreamingResponse(
            self._events(last if last <= self.sequence else 0), media_type="text/event-stream"
        )

    async def _events(self, last: int) -> AsyncIterator[str]:
        yield ": hello\n\n"
        while self._server is not None:
            for report in sorted(self.reports.values(), key=lambda report: report.sequence):
                if report.sequence > last:
                    last = report.sequence
                    yield f"id: {last}\ndata: {report.model_dump_json()}\n\n"
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.2)

    async def quota_scope(self, request: Request) -> Response:
        key = "{volume}/{scope}".format(**request.path_params)
        if request.method == "PUT":
            if self.before_limit is not None:
                await self.before_limit()
            self.limits[key] = wire.QuotaScopeUpdate.model_validate_json(await request.body()).limit_bytes
        scope = wire.QuotaScopeID.parse(request.path_params["scope"])
        used, limit = self.used.get(key) or 0, self.limits.get(key)
        return _json(wire.QuotaScope(quota_scope=scope, used_bytes=used, limit_bytes=limit))

    async def artifact_storages(self, _request: Request) -> Response:
        found = [{"name": n, "type": "vfs", "used_bytes": self.used.get(n)} for n in ("archive", "scratch")]
        return JSONResponse(found)

    async def volumes(self, _request: Request) -> Response:
        return JSONResponse([{"name": "volume1", "backend": "vfs", "capabilities": []}])

    async def create_vfolder(self, request: Request) -> Response:
        body = wire.VFolderCreate.model_validate_json(await request.body())
        self.vfolders.add(f"{request.path_params['scope']}/{body.folder.hex}")
        return Response(status_code=201)

    async def delete_vfolder(self, request: Request) -> Response:
        self.vfolders.discard(f"{request.path_params['scope']}/{request.path_params['folder']}")
        return Response(status_code=204)

    async def vfolder_files(self, request: Request) -> Response:
        path = request.query_params["path"]
        if ".." in path:
            raise errors.PathRefused("no", field="path")
        modified = "2026-11-22T12:00:00Z"
        return JSONResponse(
            [{"path": f"{path}a.bin", "size": 3, "is_directory": False, "modified_at": modified}]
        )

    async def vfolder_usage(self, _request: Request) -> Response:
        return JSONResponse({"used_bytes": 3, "file_count": 1})

    async def search_models(self, request: Request) -> Response:
        found = [name for name in self.models if request.query_params.get("search", "") in name]
        hits = [self.models[name].model_copy(update={"revisions": []}) for name in found]
        return JSONResponse(
            [hit.model_dump(mode="json") for hit in hits[: int(request.query_params["limit"])]]
        )

    async def get_model(self, request: Request) -> Response:
        name = f"{request.path_params['org']}/{request.path_params['name']}"
        revision = request.query_params.get("revision")
        self.asked_models.append((name, revision))
        if (refusal := self.refuse_model.get(name)) is not None:
            raise refusal
        if (model := self.models.get(name)) is None:
            raise errors.SourceNotFound(f"no model {name}")
        if revision is not None:
            chosen = [found for found in model.revisions if found.name == revision]
            if not chosen:
                raise errors.SourceNotFound(f"no revision {revision}")
            model = model.model_copy(update={"revisions": chosen})
        if request.query_params.get("details") == "false":
            plain = {"size": None, "readme": None, "described": False}
            undescribed = [found.model_copy(update=plain) for found in model.revisions]
            model = model.model_copy(update={"revisions": undescribed})
        return _json(model)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _json(model: wire.ImportReport | wire.RegistryModel | wire.QuotaScope) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


async def until(condition: Callable[[], Awaitable[bool] | bool], seconds: float = 15.0) -> None:
    """Wait until a condition holds; fails the test when it does not within the time."""
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if isinstance(holds, Awaitable):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.01)
