"""The manager's side of the wire: calls a storage proxy over httpx."""

from collections.abc import AsyncGenerator
from typing import TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy_client.errors import StowageError, Unavailable, error_for
from proxy_client.tls import tls_context
from proxy_client.wire import (
    REQUEST_ID_HEADER,
    ArtifactStorageInfo,
    ConfigurationCheck,
    ConfigurationState,
    ErrorBody,
    ImportAccepted,
    ImportOrder,
    ImportPreview,
    ImportPreviewOrder,
    ImportRejection,
    ImportReport,
    PresignedURL,
    PresignOrder,
    ProxyConfiguration,
    QuotaScope,
    QuotaScopeID,
    QuotaScopeUpdate,
    RegistryModel,
    StoredArtifact,
    VFolderCreate,
    VFolderFile,
    VFolderID,
    VFolderModel,
    VFolderUsage,
    VolumeInfo,
)

T = TypeVar("T")

ANSWER_TIMEOUT = 30.0
# The proxy sends a comment line every 10 seconds: silence for three of them means that the stream is dead.
EVENT_STREAM_SILENCE = 30.0
# Seconds. A folder of millions of files takes its volume a while.
DELETE_TIMEOUT = 600.0


class StorageProxyClient:
    """One storage proxy. Every method raises the `StowageError` that the proxy answered, or `Unavailable`.

    Every call may be repeated: what it asks for is named by ids that the caller chose.
    """

    def __init__(
        self, name: str, url: str, secret: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.name = name
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {secret}"},
            transport=transport,
            verify=tls_context(url),
            trust_env=False,  # the two services talk to each other directly, never through a proxy of the environment
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    # Imports.

    async def start_import(self, order: ImportOrder) -> ImportAccepted:
        """Order an import; returns once the proxy has it durably. Raises `Conflict` for the same id with another body."""
        return await self._ask(ImportAccepted, "POST", "/imports", body=order, request_id=order.request_id)

    async def get_import(self, task_id: UUID) -> ImportReport:
        """Return the state of one import. Raises `NotFound` if the proxy never accepted it."""
        return await self._ask(ImportReport, "GET", f"/imports/{task_id}")

    async def cancel_import(self, task_id: UUID) -> None:
        """Ask for a cancel; the outcome comes as an event. A terminal import stays as it is."""
        await self._send("POST", f"/imports/{task_id}/cancel")

    async def approve_import(self, task_id: UUID) -> None:
        """Let an import that needs approval be published; the outcome comes as an event.

        May be repeated. Raises `Conflict` for one that waits for none.
        """
        await self._send("POST", f"/imports/{task_id}/approve")

    async def reject_import(self, task_id: UUID, reason: str | None) -> None:
        """End an import that needs approval; it becomes FAILED with the code REJECTED.

        May be repeated. Raises `Conflict` for one that waits for none.
        """
        await self._send("POST", f"/imports/{task_id}/reject", body=ImportRejection(reason=reason))

    async def import_events(self, last_event_id: int) -> AsyncGenerator[ImportReport, None]:
        """Yield the latest state of every import that changed after `last_event_id`, then every change as it happens.

        Ends only by `Unavailable`: the caller opens it again with the `sequence` of the last report.
        """
        headers = {"Last-Event-ID": str(last_event_id), "Accept": "text/event-stream"}
        timeout = httpx.Timeout(EVENT_STREAM_SILENCE, connect=5.0)
        try:
            async with self._http.stream(
                "GET", "/imports/events", headers=headers, timeout=timeout
            ) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise _error_in(response)
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        yield ImportReport.model_validate_json(line.removeprefix("data:"))
        except (httpx.HTTPError, ValidationError) as exc:
            raise Unavailable(f"the event stream of storage proxy {self.name} broke off") from exc
        raise Unavailable(f"storage proxy {self.name} closed its event stream")

    # Volumes.

    async def volumes(self) -> list[VolumeInfo]:
        """Return the proxy's volumes with capacity in bytes."""
        return await self._ask(list[VolumeInfo], "GET", "/volumes")

    async def volume(self, name: str) -> VolumeInfo:
        """Return one volume."""
        return await self._ask(VolumeInfo, "GET", f"/volumes/{quote(name, safe='')}")

    async def get_quota_scope(self, volume: str, scope: QuotaScopeID) -> QuotaScope:
        """Return use and limit of a quota scope in bytes."""
        return await self._ask(QuotaScope, "GET", f"/volumes/{quote(volume, safe='')}/quota-scopes/{scope}")

    async def set_quota_scope(self, volume: str, scope: QuotaScopeID, limit_bytes: int | None) -> QuotaScope:
        """Set the limit of a quota scope; None lifts it."""
        path = f"/volumes/{quote(volume, safe='')}/quota-scopes/{scope}"
        return await self._ask(QuotaScope, "PUT", path, body=QuotaScopeUpdate(limit_bytes=limit_bytes))

    async def create_vfolder(self, volume: str, vfid: VFolderID) -> None:
        """Make the folder on the volume; may be repeated."""
        path = f"/volumes/{quote(volume, safe='')}/quota-scopes/{vfid.quota_scope}/vfolders"
        await self._send("POST", path, body=VFolderCreate(folder=vfid.folder))

    async def delete_vfolder(self, volume: str, vfid: VFolderID) -> None:
        """Remove the folder and everything in it; may be repeated."""
        await self._send("DELETE", _vfolder_path(volume, vfid), timeout=DELETE_TIMEOUT)

    async def vfolder_usage(self, volume: str, vfid: VFolderID) -> VFolderUsage:
        """Return bytes and files in the folder."""
        return await self._ask(VFolderUsage, "GET", f"{_vfolder_path(volume, vfid)}/usage")

    async def vfolder_files(self, volume: str, vfid: VFolderID, path: str = "") -> list[VFolderFile]:
        """Return the entries directly in a directory of the folder, sorted by path."""
        return await self._ask(
            list[VFolderFile], "GET", f"{_vfolder_path(volume, vfid)}/files", params={"path": path}
        )

    async def vfolder_models(self, volume: str, vfid: VFolderID) -> list[VFolderModel]:
        """Return what the manifests in the folder tell, sorted by path and artifact."""
        return await self._ask(list[VFolderModel], "GET", f"{_vfolder_path(volume, vfid)}/models")

    async def preview_import(
        self, volume: str, vfid: VFolderID, order: ImportPreviewOrder, *, request_id: str
    ) -> ImportPreview:
        """Return what an import into the folder would bring and meet; changes nothing."""
        path = f"{_vfolder_path(volume, vfid)}/preview"
        return await self._ask(ImportPreview, "POST", path, body=order, request_id=request_id)

    # Artifact storages and registries.

    async def artifact_storages(self) -> list[ArtifactStorageInfo]:
        """Return the pre-configured artifact storages."""
        return await self._ask(list[ArtifactStorageInfo], "GET", "/artifact-storages")

    async def unpublish(self, storage: str, stored: StoredArtifact) -> None:
        """Remove what an import published in an artifact storage; may be repeated."""
        path = f"/artifact-storages/{quote(storage, safe='')}/unpublish"
        await self._send("POST", path, body=stored, timeout=DELETE_TIMEOUT)

    async def presign(self, storage: str, order: PresignOrder) -> PresignedURL:
        """Return a URL for one object of an artifact. Raises `BadRequest` for a storage that has no URLs."""
        path = f"/artifact-storages/{quote(storage, safe='')}/presign"
        return await self._ask(PresignedURL, "POST", path, body=order)

    async def search_models(
        self, registry: str, *, search: str | None, limit: int, sort: str | None = None
    ) -> list[RegistryModel]:
        """Search a registry; the models come without revisions."""
        params = (
            {"limit": str(limit)} | ({"search": search} if search else {}) | ({"sort": sort} if sort else {})
        )
        return await self._ask(
            list[RegistryModel], "GET", f"/registries/{quote(registry, safe='')}/models", params=params
        )

    async def get_model(
        self, registry: str, model_id: str, revision: str | None = None, *, details: bool = True
    ) -> RegistryModel:
        """Describe a model with one revision, or all branches and tags.

        The commit is filled, and with `details` size and readme.
        """
        params = ({"revision": revision} if revision is not None else {}) | (
            {} if details else {"details": "false"}
        )
        path = f"/registries/{quote(registry, safe='')}/models/{quote(model_id)}"
        return await self._ask(RegistryModel, "GET", path, params=params)

    # What the manager hands over.

    async def configuration(self) -> ConfigurationState:
        """Say which configuration the proxy works with."""
        return await self._ask(ConfigurationState, "GET", "/configuration")

    async def put_configuration(self, configuration: ProxyConfiguration) -> ConfigurationState:
        """Replace everything that was handed over before; returns once every later order is read with it."""
        return await self._ask(ConfigurationState, "PUT", "/configuration", body=configuration)

    async def check_configuration(self, check: ConfigurationCheck) -> None:
        """Try a registry or a storage; returns if it can be used, else raises what stands in the way."""
        await self._send("POST", "/configuration/check", body=check)

    async def ready(self) -> None:
        """Return if the proxy can take imports; raises `Unavailable` with the proxy's reasons."""
        await self._send("GET", "/readyz")

    async def _ask(
        self,
        answer: type[T],
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        params: dict[str, str] | None = None,
        request_id: str | None = None,
    ) -> T:
        content = await self._send(method, path, body=body, params=params, request_id=request_id)
        try:
            return TypeAdapter(answer).validate_json(content)
        except ValidationError as exc:
            raise Unavailable(f"storage proxy {self.name} gave an answer that cannot be read") from exc

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        params: dict[str, str] | None = None,
        request_id: str | None = None,
        timeout: float = ANSWER_TIMEOUT,  # noqa: ASYNC109 -- httpx bounds each read, not the whole
    ) -> bytes:
        # What the log is bound to: what the proxy logs of it is found by the id that the manager's client was told.
        request_id = request_id or structlog.contextvars.get_contextvars().get("request_id")
        headers = {REQUEST_ID_HEADER: request_id} if request_id else {}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = body.model_dump_json()
        try:
            response = await self._http.request(
                method,
                path,
                params=params,
                content=content,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=5.0),
            )
        except httpx.HTTPError as exc:
            raise Unavailable(f"storage proxy {self.name} does not answer") from exc
        if response.is_error or response.is_redirect:
            raise _error_in(response)
        return response.content


def _vfolder_path(volume: str, vfid: VFolderID) -> str:
    return f"/volumes/{quote(volume, safe='')}/quota-scopes/{vfid.quota_scope}/vfolders/{vfid.folder.hex}"


def _error_in(response: httpx.Response) -> StowageError:
    try:
        body = ErrorBody.model_validate_json(response.content)
    except ValidationError:
        return Unavailable(f"the storage proxy answered status {response.status_code} without an error code")
    return error_for(body.code, body.message, field=body.field)
