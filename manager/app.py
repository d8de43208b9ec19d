"""The manager as an ASGI application: routes, what it does at its start, and when it is ready."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import structlog
from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manager.access import authorize_import
from manager.db import Database
from manager.graphql.context import Services
from manager.graphql.endpoint import graphql
from manager.graphql.limits import MAX_BODY_BYTES
from manager.graphql.socket import graphql_socket
from manager.hosts import HOST_PERMISSIONS
from manager.models import (
    Base,
    HostPermission,
    ImportTask,
    StorageProxy,
)
from manager.reconciler import Reconciler
from manager.registries import declare_registries
from manager.scanner import Scanner
from manager.session import session_routes
from manager.settings import Settings
from manager.users import Users
from manager.webui.pages import graphiql_routes, page_routes
from proxy_client.client import StorageProxyClient
from proxy_client.configuration import read_value
from proxy_client.errors import BadRequest, Internal, NotFound, StowageError, Unavailable
from proxy_client.wire import REQUEST_ID_HEADER, REQUEST_ID_PATTERN

ADMIN_EMAIL = "admin@localhost"
READINESS_TIMEOUT = 5.0
# A WebSocket's message holds one operation, as a request's body does; the server enforces it.
MAX_MESSAGE_BYTES = MAX_BODY_BYTES
RETRY_DELAY = 1.0

log = structlog.get_logger()


def create_app(
    settings: Settings,
    *,
    admin_token_file: Path | None = None,
    proxy_transports: Mapping[str, httpx.AsyncBaseTransport] | None = None,
) -> Starlette:
    """Make the application; its lifespan opens and closes what it needs.

    The token in `admin_token_file` becomes one of the administrator admin@localhost. `proxy_transports` replaces
    the network to the storage proxies that it names. Raises `Unavailable` for a file of the settings that cannot
    be read.
    """
    secrets = {name: _secret(name, settings) for name in settings.storage_proxies}
    database_url = settings.database_url
    _ = settings.keys
    admin_token = read_value(admin_token_file, "STOWAGE_ADMIN_TOKEN_FILE") if admin_token_file else None

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            database = Database(database_url, pool_size=settings.manager.database_pool)
            stack.push_async_callback(database.close)
            proxies: dict[str, StorageProxyClient] = {}
            for name, section in settings.storage_proxies.items():
                transport = (proxy_transports or {}).get(name)
                proxies[name] = StorageProxyClient(name, section.url, secrets[name], transport=transport)
                stack.push_async_callback(proxies[name].aclose)
            app.state.settings = settings
            app.state.services = Services(database, settings, proxies)
            app.state.proxies = proxies
            app.state.not_prepared = await _prepare(database, settings, admin_token)
            parts: dict[str, Callable[[], Awaitable[None]]] = {
                "reconciler": lambda: Reconciler(database, settings, proxies).run(),
                "changes": app.state.services.changes.run,
                "scanner": Scanner(database, settings, proxies).run,
                "quotas": app.state.services.quotas.follow,
            }
            running = asyncio.create_task(_run(app, database, settings, admin_token, parts))
            stack.push_async_callback(_stop, running)
            yield

    return Starlette(
        lifespan=lifespan,
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=settings.manager.allowed_origins,
                allow_methods=["POST"],
                allow_headers=["Authorization", REQUEST_ID_HEADER],
                expose_headers=[REQUEST_ID_HEADER],
            ),
            Middleware(RequestScope),
        ],
        exception_handlers={StowageError: _stowage_error, HTTPException: _http_error},
        routes=[
            Route("/graphql", graphql, methods=["POST"]),
            WebSocketRoute("/graphql", graphql_socket),
            *((*session_routes(), *page_routes()) if settings.manager.page else ()),
            *(graphiql_routes() if settings.manager.graphiql else ()),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
            Route("/internal/imports/{task_id:uuid}/authorize", authorize, methods=["POST"]),
        ],
    )


def _secret(name: str, settings: Settings) -> str:
    setting = f"storage-proxies.{name}.secret-file"
    return read_value(settings.storage_proxies[name].secret_file, setting).split()[0]


# The start.


async def _prepare(database: Database, settings: Settings, admin_token: str | None) -> str | None:
    """Write the rows that the settings speak of; returns why that could not be done yet."""
    try:
        async with database.read() as session:
            for table in Base.metadata.sorted_tables:
                await session.execute(select(table).limit(0))
    except Unavailable as exc:
        return exc.message
    except SQLAlchemyError:
        return "the database's tables are not those of this version; migrate it"
    try:
        async with database.begin() as session:
            for name in settings.storage_proxies:
                await session.execute(insert(StorageProxy).values(name=name).on_conflict_do_nothing())
            await declare_registries(session, settings)
            if settings.vfolder is not None:
                host = settings.vfolder.default_host
                if not await session.scalar(select(exists().where(HostPermission.host == host))):
                    await session.execute(
                        insert(HostPermission)
                        .values(id=uuid4(), host=host, permissions=list(HOST_PERMISSIONS))
                        .on_conflict_do_nothing()
                    )
        if admin_token is not None:
            await Users(database).ensure_admin(ADMIN_EMAIL, admin_token)
    except Unavailable as exc:
        return exc.message
    return None


async def _run(
    app: Starlette,
    database: Database,
    settings: Settings,
    admin_token: str | None,
    parts: Mapping[str, Callable[[], Awaitable[None]]],
) -> None:
    while app.state.not_prepared:
        log.warning("waiting for the database", reason=app.state.not_prepared)
        await asyncio.sleep(RETRY_DELAY)
        app.state.not_prepared = await _prepare(database, settings, admin_token)
    log.info("manager started")
    if fault := await _reservoir_fault(settings, app.state.proxies):
        log.error("a setting cannot be used", reason=fault)
    # Not gather: cancelled, it ends with the first part that does and leaves the others at the database.
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for name, run in parts.items():
            group.create_task(_forever(name, run, stopping))
        try:
            await asyncio.Event().wait()
        finally:
            # A part whose group ends with a fault gets that in place of the cancel.
            stopping.set()


async def _forever(name: str, run: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            await run()
        except Exception:  # a run ends here; without the next one no import would ever be followed again
            log.exception("a part of the manager failed", part=name)
        await asyncio.sleep(RETRY_DELAY)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


# The routes beside GraphQL.


async def healthz(_request: Request) -> Response:
    """Answer 200 while the process runs."""
    return JSONResponse({"healthy": True})


async def readyz(request: Request) -> Response:
    """Answer 200 when imports can be ordered, else 503 with the reasons."""
    state = request.app.state
    reasons = [state.not_prepared] if state.not_prepared else await _database_reasons(state.services.database)
    found = await asyncio.gather(*(_proxy_reason(proxy) for proxy in state.proxies.values()))
    reasons += [reason for reason in found if reason]
    if not reasons and (fault := await _reservoir_fault(state.settings, state.proxies)):
        reasons.append(fault)
    if reasons:
        return JSONResponse({"ready": False, "reasons": reasons}, 503)
    return JSONResponse({"ready": True})


async def _database_reasons(database: Database) -> list[str]:
    try:
        async with database.read() as session:
            await session.execute(select(ImportTask.id).limit(1))
    except StowageError as exc:
        return [exc.message]
    return []


async def _proxy_reason(proxy: StorageProxyClient) -> str | None:
    try:
        async with asyncio.timeout(READINESS_TIMEOUT):
            await proxy.ready()
    except TimeoutError:
        return f"storage proxy {proxy.name} gives no answer"
    except StowageError as exc:
        return f"storage proxy {proxy.name}: {exc.message}"
    return None


async def _reservoir_fault(settings: Settings, proxies: Mapping[str, StorageProxyClient]) -> str | None:
    """Say which storage of [reservoir] its proxy cannot use so; None also for a proxy that gives no answer."""
    if (reservoir := settings.reservoir) is None:
        return None
    try:
        async with asyncio.timeout(READINESS_TIMEOUT):
            found = await proxies[reservoir.proxy].artifact_storages()
    except (TimeoutError, StowageError):
        return None
    fault = reservoir.fault({storage.name: storage.type for storage in found})
    return None if fault is None else f"reservoir.verify: {fault.message}"


async def authorize(request: Request) -> Response:
    """Answer a storage proxy whether an import's requester may still write to its destination."""
    task_id: UUID = request.path_params["task_id"]
    state = request.app.state
    answer = await authorize_import(
        state.services.database, state.settings, task_id, request.headers.get("Authorization")
    )
    return JSONResponse(answer.model_dump(mode="json"))


# Every request.


class RequestScope:
    """Gives each request its id, in the answer, in the log and in `request.state`; and no fault leaves it raw."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if re.fullmatch(REQUEST_ID_PATTERN, given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except ClientDisconnect:  # a browser that is sent elsewhere: nobody is there to be answered
                log.info("the caller went away", path=scope["path"])
            except Exception:  # a request ends here: its caller learns the request id and nothing else
                log.exception("request failed", path=scope["path"])
                if started:
                    raise
                answer = _answer(Internal(f"internal error, request id {request_id}"), request_id)
                await answer(scope, receive, send_with_id)


async def _stowage_error(request: Request, exc: Exception) -> Response:
    error = exc if isinstance(exc, StowageError) else Internal("internal error")
    return _answer(error, request.state.request_id)


async def _http_error(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    headers = exc.headers if isinstance(exc, HTTPException) else None
    kind = NotFound if status == NotFound.status else BadRequest
    error = kind(f"{request.method} {request.url.path} is nothing that the manager answers")
    return _answer(error, request.state.request_id, status, headers)


def _answer(
    error: StowageError, request_id: str, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    body: dict[str, Any] = {"code": error.code, "message": error.message, "request_id": request_id}
    return JSONResponse(body | {"field": error.field}, status or error.status, headers)
