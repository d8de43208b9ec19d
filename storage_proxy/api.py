"""The wire contract over HTTP: decode, one call, encode."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from proxy_client.errors import BadRequest, Internal, SourceUnavailable, StowageError, Unavailable
from proxy_client.paths import MODEL_ID_PATTERN
from proxy_client.wire import (
    ArtifactStorageInfo,
    ConfigurationCheck,
    ErrorBody,
    ImportAccepted,
    ImportOrder,
    ImportPreviewOrder,
    ImportRejection,
    PresignedURL,
    PresignOrder,
    ProxyConfiguration,
    QuotaScopeID,
    QuotaScopeUpdate,
    StoredArtifact,
    VFolderCreate,
    VFolderID,
)
from storage_proxy import trial
from storage_proxy.auth import check_secret
from storage_proxy.imports.jobs import PAGE
from storage_proxy.registries.base import AbstractRegistry
from storage_proxy.site import Site
from storage_proxy.storages.base import AbstractStorage, ImportPlan
from storage_proxy.volumes.base import AbstractVolume
from storage_proxy.volumes.paths import check_destination, join

log = structlog.get_logger()

MAX_BODY_BYTES = 1 << 20
KEEPALIVE_SECONDS = 10.0
WORKER_SILENCE_SECONDS = 10.0
MAX_SEARCH_LIMIT = 100
# Below the 30 seconds that the manager waits.
INTERACTIVE_SECONDS = 20.0
_NUMBER = re.compile(r"[0-9]{1,18}")

B = TypeVar("B", bound=BaseModel)
Endpoint = Callable[[Site, Request], Awaitable[Response]]


# Imports.


async def start_import(site: Site, request: Request) -> Response:
    """`POST /imports`: record the import durably, then answer 202."""
    order = await _decode(request, ImportOrder)
    check_destination(order.path)
    await site.entered.refresh()
    site.pipeline.context(order)
    await site.jobs.accept(order)
    return _encode(ImportAccepted(task_id=order.task_id), status=202)


async def get_import(site: Site, request: Request) -> Response:
    """`GET /imports/{task_id}`."""
    return _encode(await site.jobs.report(_uuid(request, "task_id")))


async def cancel_import(site: Site, request: Request) -> Response:
    """`POST /imports/{task_id}/cancel`: the outcome comes as an event."""
    task_id = _uuid(request, "task_id")
    await site.jobs.request_cancel(task_id)
    return _encode(ImportAccepted(task_id=task_id), status=202)


async def approve_import(site: Site, request: Request) -> Response:
    """`POST /imports/{task_id}/approve`: the outcome comes as an event."""
    task_id = _uuid(request, "task_id")
    await site.approvals.approve(task_id)
    return _encode(ImportAccepted(task_id=task_id), status=202)


async def reject_import(site: Site, request: Request) -> Response:
    """`POST /imports/{task_id}/reject`: the outcome comes as an event."""
    task_id = _uuid(request, "task_id")
    rejection = await _decode(request, ImportRejection)
    await site.approvals.reject(task_id, rejection.reason)
    return _encode(ImportAccepted(task_id=task_id), status=202)


async def import_events(site: Site, request: Request) -> Response:
    """`GET /imports/events`: server-sent events (WHATWG HTML, 9.2), resumable with Last-Event-ID.

    An event is the present state of one import; states in between may be left out, the last one never is.
    """
    last = request.headers.get("last-event-id", "0")
    if not _NUMBER.fullmatch(last):
        raise BadRequest(
            "Last-Event-ID is the number of the last event that was received", field="Last-Event-ID"
        )
    # A number from the future is that of another database: everything is new then.
    sequence = int(last) if int(last) <= await site.jobs.newest() else 0
    return StreamingResponse(_events(site, sequence), media_type="text/event-stream")


async def _events(site: Site, sequence: int) -> AsyncIterator[str]:
    yield ": follows every import of this storage proxy\n\n"
    signal = await site.jobs.listen()
    clock = asyncio.get_running_loop().time
    due = clock() + KEEPALIVE_SECONDS
    try:
        while True:
            reports = await site.jobs.changes_after(sequence)
            for report in reports:
                yield f"id: {report.sequence}\nevent: import\ndata: {report.model_dump_json()}\n\n"
                sequence = report.sequence
                due = clock() + KEEPALIVE_SECONDS
            if len(reports) < PAGE:
                await signal.wait(max(0.0, due - clock()))
                # Whoever is woken for nothing, again and again, has said nothing all the same.
                if clock() >= due:
                    yield ": still here\n\n"
                    due = clock() + KEEPALIVE_SECONDS
    except Unavailable:
        log.warning("an event stream ends: the database is away")
    finally:
        signal.close()


# Volumes and vfolders.


async def list_volumes(site: Site, _request: Request) -> Response:
    """`GET /volumes`."""
    return _encode([await volume.info() for volume in site.volume_pool])


async def get_volume(site: Site, request: Request) -> Response:
    """`GET /volumes/{volume}`."""
    return _encode(await _volume(site, request).info())


async def get_quota_scope(site: Site, request: Request) -> Response:
    """`GET /volumes/{volume}/quota-scopes/{scope}`."""
    return _encode(await _volume(site, request).get_quota_scope(_scope(request)))


async def put_quota_scope(site: Site, request: Request) -> Response:
    """`PUT /volumes/{volume}/quota-scopes/{scope}`."""
    update = await _decode(request, QuotaScopeUpdate)
    return _encode(await _volume(site, request).set_quota_scope(_scope(request), update.limit_bytes))


async def create_vfolder(site: Site, request: Request) -> Response:
    """`POST /volumes/{volume}/quota-scopes/{scope}/vfolders`; may be repeated."""
    body = await _decode(request, VFolderCreate)
    await _volume(site, request).create_vfolder(VFolderID(_scope(request), body.folder))
    return _encode(body, status=201)


async def delete_vfolder(site: Site, request: Request) -> Response:
    """`DELETE …/vfolders/{folder}`; may be repeated."""
    await _volume(site, request).delete_vfolder(_vfid(request))
    return Response(status_code=204)


async def vfolder_usage(site: Site, request: Request) -> Response:
    """`GET …/vfolders/{folder}/usage`."""
    return _encode(await _volume(site, request).vfolder_usage(_vfid(request)))


async def vfolder_files(site: Site, request: Request) -> Response:
    """`GET …/vfolders/{folder}/files?path=`."""
    path = request.query_params.get("path", "")
    return _encode(await _volume(site, request).list_files(_vfid(request), path))


async def vfolder_models(site: Site, request: Request) -> Response:
    """`GET …/vfolders/{folder}/models`."""
    return _encode(await _volume(site, request).list_models(_vfid(request)))


async def preview_import(site: Site, request: Request) -> Response:
    """`POST …/vfolders/{folder}/preview`: what an import would bring and meet."""
    volume, vfid = _volume(site, request), _vfid(request)
    order = await _decode(request, ImportPreviewOrder)
    check_destination(order.path)
    registry = await _registry(site, order.registry_name)
    model = order.model
    async with _answered_in_time():
        commit = model.commit or await registry.resolve(model.model_id, model.revision)
        files = await registry.list_files(model.model_id, commit)
    plan = ImportPlan(
        # Of no import: nothing is staged under it.
        task_id=uuid.uuid4(),
        requested_by=uuid.UUID(int=0),
        registry=order.registry_name,
        model_id=model.model_id,
        revision=model.revision,
        commit=commit,
        path=order.path,
        files=tuple(files),
    )
    return _encode(await volume.preview(vfid, plan))


# Artifact storages and registries.


async def list_artifact_storages(site: Site, _request: Request) -> Response:
    """`GET /artifact-storages`."""
    await site.entered.refresh()
    return _encode(
        [ArtifactStorageInfo(name=storage.name, type=storage.kind) for storage in site.storage_pool]
    )


async def unpublish(site: Site, request: Request) -> Response:
    """`POST /artifact-storages/{storage}/unpublish`: remove what an import published there; may be repeated."""
    stored = await _decode(request, StoredArtifact)
    storage = await _artifact_storage(site, request)
    manifest = await storage.unpublish(stored.path, stored.model_id, stored.revision)
    if manifest is not None:
        paths = [join(stored.path, file.path) for file in manifest.files]
        await site.pipeline.holdings.forget_all(storage.name, paths)
    return Response(status_code=204)


async def presign(site: Site, request: Request) -> Response:
    """`POST /artifact-storages/{storage}/presign`."""
    order = await _decode(request, PresignOrder)
    storage = await _artifact_storage(site, request)
    url = await storage.presign(order.method, order.path, order.key, order.expires_seconds)
    return _encode(PresignedURL(url=url))


async def _registry(site: Site, name: str) -> AbstractRegistry:
    await site.entered.refresh()
    return site.pipeline.registry(name)


async def _artifact_storage(site: Site, request: Request) -> AbstractStorage:
    await site.entered.refresh()
    return site.storage_pool.get_storage(request.path_params["storage"])


async def search_models(site: Site, request: Request) -> Response:
    """`GET /registries/{registry}/models?search=&limit=&sort=`."""
    registry = await _registry(site, request.path_params["registry"])
    limit = request.query_params.get("limit", "20")
    if not _NUMBER.fullmatch(limit) or not 1 <= int(limit) <= MAX_SEARCH_LIMIT:
        raise BadRequest(f"limit is a number from 1 to {MAX_SEARCH_LIMIT}", field="limit")
    search, sort = request.query_params.get("search"), request.query_params.get("sort")
    async with _answered_in_time():
        return _encode(await registry.search(search, limit=int(limit), sort=sort))


async def get_model(site: Site, request: Request) -> Response:
    """`GET /registries/{registry}/models/{org}/{name}?revision=&details=`."""
    registry = await _registry(site, request.path_params["registry"])
    model_id = f"{request.path_params['org']}/{request.path_params['name']}"
    revision = request.query_params.get("revision")
    # Names that a URL would resolve to another place of the registry, where our token goes along.
    if not re.fullmatch(MODEL_ID_PATTERN, model_id):
        raise BadRequest(
            "a model's name is ORG/NAME, each of letters, digits, '.', '_' and '-'", field="model_id"
        )
    if revision is not None and (revision in {"", ".", ".."} or not revision.isprintable()):
        raise BadRequest("a revision is the name of a branch or tag, or a commit", field="revision")
    details = request.query_params.get("details", "true")
    if details not in {"true", "false"}:
        raise BadRequest("details is true or false", field="details")
    async with _answered_in_time():
        return _encode(await registry.get_model(model_id, revision, details=details == "true"))


@contextlib.asynccontextmanager
async def _answered_in_time() -> AsyncIterator[None]:
    """Blame the registry before the manager, who waits for this answer, blames the proxy."""
    try:
        async with asyncio.timeout(INTERACTIVE_SECONDS):
            yield
    except TimeoutError as exc:
        raise SourceUnavailable(
            f"the registry gave no answer within {INTERACTIVE_SECONDS:.0f} seconds; try again later"
        ) from exc


# What the manager hands over.


async def get_configuration(site: Site, _request: Request) -> Response:
    """`GET /configuration`: which piece this proxy works with."""
    return _encode(await site.entered.state())


async def put_configuration(site: Site, request: Request) -> Response:
    """`PUT /configuration`: replace what was handed over before; every order from now on is read with it."""
    return _encode(await site.entered.keep(await _decode(request, ProxyConfiguration)))


async def check_configuration(site: Site, request: Request) -> Response:
    """`POST /configuration/check`: use a registry or storage once before anybody keeps it."""
    await trial.check_configuration(site.settings, await _decode(request, ConfigurationCheck))
    return Response(status_code=204)


# Health.


async def healthz(_site: Site, _request: Request) -> Response:
    """`GET /healthz`: the process lives."""
    return JSONResponse({"alive": True})


async def readyz(site: Site, _request: Request) -> Response:
    """`GET /readyz`: imports can be ordered and will run."""
    reasons = []
    try:
        if not await site.jobs.live_workers(WORKER_SILENCE_SECONDS):
            reasons.append("no worker of this storage proxy is running")
    except Unavailable as exc:
        reasons.append(exc.message)
    for volume in site.volume_pool:
        try:
            await volume.info()
        except StowageError:
            reasons.append(f"volume {volume.name} cannot be read")
    # One that was entered at the manager is no reason to take the whole proxy out of service.
    for name in site.settings.artifact_storages:
        try:
            await site.storage_pool.get_storage(name).check()
        except StowageError as exc:
            reasons.append(f"artifact storage {name} cannot be used ({exc.code})")
    return JSONResponse(
        {
            "ready": not reasons,
            "reasons": reasons,
            # The shape of every error, so that the manager can pass the reasons on.
            **({"code": Unavailable.code, "message": "; ".join(reasons)} if reasons else {}),
        },
        status_code=503 if reasons else 200,
    )


def routes(site: Site) -> list[Route]:
    """Return the whole wire contract, every door but the health checks behind the proxy's secret."""
    scope = "/volumes/{volume}/quota-scopes/{scope}"
    guarded: Sequence[tuple[str, str, Endpoint]] = (
        ("POST", "/imports", start_import),
        ("GET", "/imports/events", import_events),
        ("GET", "/imports/{task_id}", get_import),
        ("POST", "/imports/{task_id}/cancel", cancel_import),
        ("POST", "/imports/{task_id}/approve", approve_import),
        ("POST", "/imports/{task_id}/reject", reject_import),
        ("GET", "/volumes", list_volumes),
        ("GET", "/volumes/{volume}", get_volume),
        ("GET", scope, get_quota_scope),
        ("PUT", scope, put_quota_scope),
        ("POST", f"{scope}/vfolders", create_vfolder),
        ("DELETE", f"{scope}/vfolders/{{folder}}", delete_vfolder),
        ("GET", f"{scope}/vfolders/{{folder}}/usage", vfolder_usage),
        ("GET", f"{scope}/vfolders/{{folder}}/files", vfolder_files),
        ("GET", f"{scope}/vfolders/{{folder}}/models", vfolder_models),
        ("POST", f"{scope}/vfolders/{{folder}}/preview", preview_import),
        ("GET", "/artifact-storages", list_artifact_storages),
        ("POST", "/artifact-storages/{storage}/unpublish", unpublish),
        ("POST", "/artifact-storages/{storage}/presign", presign),
        ("GET", "/registries/{registry}/models", search_models),
        ("GET", "/registries/{registry}/models/{org}/{name}", get_model),
        ("GET", "/configuration", get_configuration),
        ("PUT", "/configuration", put_configuration),
        ("POST", "/configuration/check", check_configuration),
    )
    opened: Sequence[tuple[str, str, Endpoint]] = (("GET", "/healthz", healthz), ("GET", "/readyz", readyz))
    return [
        *(
            Route(path, _answering(site, endpoint, guard=True), methods=[method])
            for method, path, endpoint in guarded
        ),
        *(
            Route(path, _answering(site, endpoint, guard=False), methods=[method])
            for method, path, endpoint in opened
        ),
    ]


def _answering(site: Site, endpoint: Endpoint, *, guard: bool) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint: check the secret, tie log lines to the request, turn errors into their wire form."""

    async def answer(request: Request) -> Response:
        request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            if guard:
                check_secret(request.headers.get("authorization"), site.settings.secrets)
            return await endpoint(site, request)
        except StowageError as exc:
            return _error(exc, request_id)
        except Exception:
            log.exception("a request failed in a way that nobody foresaw", path=request.url.path)
            return _error(
                Internal(f"internal error; the log has it under request id {request_id}"), request_id
            )

    return answer


def _error(exc: StowageError, request_id: str) -> Response:
    body = ErrorBody(code=exc.code, message=exc.message, request_id=request_id, field=exc.field)
    return _encode(body, status=exc.status)


def _encode(answer: BaseModel | Sequence[BaseModel], *, status: int = 200) -> Response:
    content = TypeAdapter(type(answer) if isinstance(answer, BaseModel) else list[Any]).dump_json(answer)  # type: ignore[arg-type]
    return Response(content, status_code=status, media_type="application/json")


async def _decode(request: Request, body: type[B]) -> B:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise BadRequest(f"the body is longer than {MAX_BODY_BYTES} bytes")
    try:
        return body.model_validate_json(bytes(content))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        raise BadRequest(f"{field}: {first['msg']}", field=field) from exc


def _uuid(request: Request, name: str) -> UUID:
    try:
        return UUID(request.path_params[name])
    except ValueError as exc:
        raise BadRequest(f"{name} is a UUID", field=name) from exc


def _volume(site: Site, request: Request) -> AbstractVolume:
    return site.volume_pool.get_volume(request.path_params["volume"])


def _scope(request: Request) -> QuotaScopeID:
    try:
        return QuotaScopeID.parse(request.path_params["scope"])
    except ValueError as exc:
        raise BadRequest(str(exc), field="scope") from exc


def _vfid(request: Request) -> VFolderID:
    try:
        return VFolderID.parse(f"{request.path_params['scope']}/{request.path_params['folder']}")
    except ValueError as exc:
        raise BadRequest(str(exc), field="folder") from exc
