"""The Hugging Face Hub's HTTP protocol, spoken to the hub itself, a mirror, or `stowage hub`.

Facts used: https://huggingface.co/docs/hub/api (model info, tree with Link paging, refs) and the headers of
the resolve endpoint (X-Repo-Commit, X-Linked-Size, X-Linked-Etag on the answer before a redirect to a CDN).
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, urljoin

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from proxy_client.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceInvalid,
    SourceNotFound,
    SourceUnavailable,
)
from proxy_client.wire import COMMIT_PATTERN, MODEL_ID_PATTERN, RegistryModel, RegistryRevision
from storage_proxy.concurrency import side_by_side
from storage_proxy.registries.base import AbstractRegistry, FileStream
from storage_proxy.registries.patience import Patience, RetryLater, retry_after_seconds
from storage_proxy.settings import ArtifactRegistrySection, TransferSection
from storage_proxy.storages.base import PlannedFile

T = TypeVar("T")

MAX_REDIRECTS = 5
MAX_PAGES = 10_000
MAX_README_BYTES = 1 << 20
MAX_METADATA_BYTES = 64 << 20
# Somebody waits for a scan's answer: fewer tries than a background import has.
INTERACTIVE_RETRIES = 2
SCAN_WIDTH = 8

_SORTS = {
    "downloads": "downloads",
    "likes": "likes",
    "last_modified": "lastModified",
    "created_at": "createdAt",
}
_COMMIT = re.compile(COMMIT_PATTERN)
_MODEL_ID = re.compile(MODEL_ID_PATTERN)
_NEXT_LINK = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _Lfs(BaseModel):
    oid: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int


class _TreeEntry(BaseModel):
    type: str
    path: str
    oid: str | None = None
    size: int = Field(default=0, ge=0)
    lfs: _Lfs | None = None


class _ModelInfo(BaseModel):
    id: str
    sha: str | None = None
    downloads: int | None = None
    likes: int | None = None
    description: str | None = None
    tags: list[str] = []
    last_modified: datetime | None = Field(default=None, alias="lastModified")


class _Ref(BaseModel):
    name: str


class _Refs(BaseModel):
    branches: list[_Ref] = []
    tags: list[_Ref] = []


class _RevisionGone(SourceNotFound):
    """The registry has the model, not the revision."""


@contextmanager
def _pinned_to(commit: str) -> Iterator[None]:
    """Say of a commit that is gone what it means: the model was changed at its source."""
    try:
        yield
    except _RevisionGone as exc:
        raise SourceChanged(
            f"the registry no longer serves commit {commit}, which the import is pinned to; "
            "scan the model again and import what is there now"
        ) from exc


class HuggingFaceRegistry(AbstractRegistry):
    """A hub at one endpoint. Opened clients live as long as the process; `aclose` ends them."""

    protocol = "huggingface"

    def __init__(
        self,
        name: str,
        settings: ArtifactRegistrySection,
        transfer: TransferSection,
        *,
        connections: int = 16,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = name
        self._endpoint = settings.url.rstrip("/")
        self._origin = _origin(httpx.URL(self._endpoint))
        self._token = settings.token_file.read_text().strip() if settings.token_file else None
        self._transfer = transfer
        self._http = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity", "User-Agent": "stowage"},
            timeout=httpx.Timeout(transfer.stall_timeout, connect=transfer.connect_timeout, pool=None),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            transport=transport,
            trust_env=False,  # the endpoint is the operator's choice alone
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def search(self, search: str | None, *, limit: int, sort: str | None) -> list[RegistryModel]:
        params = {
            "limit": str(limit),
            "sort": _SORTS.get(sort or "downloads", "downloads"),
            "direction": "-1",
        }
        if search:
            params["search"] = search
        url = f"{self._endpoint}/api/models?{httpx.QueryParams(params)}"
        found: list[_ModelInfo] = []
        async for page in self._pages(url, list[_ModelInfo], retries=INTERACTIVE_RETRIES):
            found += page
            if len(found) >= limit:
                break
        return [_as_registry_model(info, []) for info in found[:limit] if _MODEL_ID.match(info.id)]

    async def get_model(self, model_id: str, revision: str | None) -> RegistryModel:
        retries = INTERACTIVE_RETRIES
        info = await self._json(self._api(model_id, "revision", revision), _ModelInfo, retries=retries)
        if revision is not None:
            names = [revision]
        else:
            refs = await self._json(self._api(model_id, "refs"), _Refs, retries=retries)
            names = list(dict.fromkeys(ref.name for ref in [*refs.branches, *refs.tags]))

        async def describe(name: str) -> RegistryRevision:
            return await self._describe(model_id, name)

        return _as_registry_model(info, await side_by_side(describe, names, width=SCAN_WIDTH))

    async def resolve(self, model_id: str, revision: str) -> str:
        return await self._resolve(model_id, revision, retries=self._transfer.retries)

    async def list_files(self, model_id: str, commit: str) -> list[PlannedFile]:
        return await self._list_files(model_id, commit, retries=self._transfer.retries)

    @asynccontextmanager
    async def open_file(
        self, model_id: str, commit: str, file: PlannedFile, offset: int
    ) -> AsyncIterator[FileStream]:
        url = f"{self._endpoint}/{quote(model_id)}/resolve/{commit}/{quote(file.path)}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with _pinned_to(commit):
            async with self._opened(url, headers, pinned=(commit, file)) as response:
                begins = _where_bytes_begin(response, offset, file)
                yield FileStream(begins, _body(response))

    async def _describe(self, model_id: str, name: str) -> RegistryRevision:
        commit = await self._resolve(model_id, name, retries=INTERACTIVE_RETRIES)
        files = await self._list_files(model_id, commit, retries=INTERACTIVE_RETRIES)
        readme = next((file for file in files if file.path == "README.md"), None)
        text = await self._readme(model_id, commit, readme) if readme else None
        return RegistryRevision(name=name, commit=commit, size=sum(file.size for file in files), readme=text)

    async def _resolve(self, model_id: str, revision: str, *, retries: int) -> str:
        info = await self._json(self._api(model_id, "revision", revision), _ModelInfo, retries=retries)
        if info.sha is None or not _COMMIT.match(info.sha):
            raise SourceInvalid(f"the registry names no commit for {model_id}@{_shown(revision)}")
        return info.sha

    async def _list_files(self, model_id: str, commit: str, *, retries: int) -> list[PlannedFile]:
        url = f"{self._api(model_id, 'tree', commit)}?recursive=true&expand=false"
        files: list[PlannedFile] = []
        with _pinned_to(commit):
            async for page in self._pages(url, list[_TreeEntry], retries=retries):
                files += [_planned(entry) for entry in page if entry.type == "file"]
        return files

    async def _readme(self, model_id: str, commit: str, readme: PlannedFile) -> str | None:
        url = f"{self._endpoint}/{quote(model_id)}/resolve/{commit}/{quote(readme.path)}"
        content = await self._read(url, limit=MAX_README_BYTES, retries=INTERACTIVE_RETRIES)
        # PostgreSQL text holds no NUL, and a readme is shown to people only.
        return content.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")

    def _api(self, model_id: str, kind: str, name: str | None = None) -> str:
        base = f"{self._endpoint}/api/models/{quote(model_id)}"
        if kind == "revision" and name is None:
            return base
        return f"{base}/{kind}" + (f"/{quote(name, safe='')}" if name is not None else "")

    async def _pages(self, url: str, shape: type[T], *, retries: int) -> AsyncIterator[T]:
        seen = set()
        for _ in range(MAX_PAGES):
            seen.add(url)
            headers: dict[str, str] = {}
            yield await self._json(url, shape, retries=retries, answer_headers=headers)
            link = _NEXT_LINK.search(headers.get("link", ""))
            if link is None:
                return
            # A mirror behind a TLS front may link to itself by another scheme or name; only path and query count.
            url = str(httpx.URL(url).join(httpx.URL(urljoin(url, link[1])).raw_path.decode("ascii")))
            if url in seen:
                break
        raise SourceInvalid("the registry's listing links to itself without end")

    async def _json(
        self, url: str, shape: type[T], *, retries: int, answer_headers: dict[str, str] | None = None
    ) -> T:
        content = await self._read(
            url, limit=MAX_METADATA_BYTES, retries=retries, answer_headers=answer_headers
        )
        try:
            return TypeAdapter(shape).validate_json(content)
        except ValidationError as exc:
            kind = "HTML" if content.lstrip()[:1] == b"<" else "something"
            raise SourceInvalid(
                f"the registry {self.name} answered {kind} instead of the JSON of a hub; check its endpoint"
            ) from exc

    async def _read(
        self, url: str, *, limit: int, retries: int, answer_headers: dict[str, str] | None = None
    ) -> bytes:
        patience = Patience(self._transfer, retries)
        while True:
            try:
                async with self._opened(url, {}) as response:
                    content = bytearray()
                    async for chunk in _body(response):
                        content += chunk
                        if len(content) > limit:
                            raise SourceInvalid(f"the registry's answer is longer than {limit} bytes")
                    if answer_headers is not None:
                        answer_headers.update(response.headers.items())
                    return bytes(content)
            except SourceUnavailable as exc:
                await patience.wait(exc)

    @asynccontextmanager
    async def _opened(
        self, url: str, headers: Mapping[str, str], *, pinned: tuple[str, PlannedFile] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Ask once, following redirects by hand; the token goes to the endpoint's own origin only."""
        target = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers)
            if self._token and _origin(target) == self._origin:
                sent["Authorization"] = f"Bearer {self._token}"
            request = self._http.build_request("GET", target, headers=sent)
            try:
                response = await self._http.send(request, stream=True)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise SourceUnavailable(f"the registry {self.name} does not answer ({_reason(exc)})") from exc
            try:
                if pinned:
                    _check_pinned(response, *pinned)
                if not response.has_redirect_location:
                    await self._check_status(response)
                    yield response
                    return
                target = _redirected(target, response.headers["location"])
            finally:
                await response.aclose()
        raise SourceInvalid(f"the registry redirects more than {MAX_REDIRECTS} times")

    async def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise SourceInvalid("the registry encodes the body although identity was asked for")
            return
        raise self._fault(status, response.headers)

    def _told(self, text: str) -> str:
        """Make what the registry says safe to show: one that repeats our token is not quoted with it."""
        return _shown(text.replace(self._token, "…") if self._token else text)

    def _fault(self, status: int, headers: httpx.Headers) -> SourceError:
        code = self._told(headers.get("x-error-code", ""))
        said = f"the registry {self.name} answered {status}" + (f" {code}" if code else "")
        if text := self._told(headers.get("x-error-message", "")):
            said += f": {text}"
        if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
            return RetryLater(said, retry_after_seconds(headers.get("retry-after")))
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return SourceInvalid(said)
        if code == "RevisionNotFound":
            return _RevisionGone(f"{said}; check the revision's name")
        if status in {httpx.codes.NOT_FOUND, httpx.codes.GONE} or code in {
            "RepoNotFound",
            "RevisionNotFound",
        }:
            return SourceNotFound(f"{said}; check the model's name and revision")
        if status in {
            httpx.codes.UNAUTHORIZED,
            httpx.codes.FORBIDDEN,
            httpx.codes.UNAVAILABLE_FOR_LEGAL_REASONS,
        }:
            return SourceForbidden(
                f"{said}; the model is private or gated, or the registry's token is not accepted"
            )
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT:
            return SourceUnavailable(said)
        return SourceInvalid(said)


def _as_registry_model(info: _ModelInfo, revisions: list[RegistryRevision]) -> RegistryModel:
    return RegistryModel(
        model_id=info.id,
        description=info.description,
        downloads=info.downloads,
        likes=info.likes,
        last_modified=info.last_modified,
        tags=info.tags,
        revisions=revisions,
    )


def _planned(entry: _TreeEntry) -> PlannedFile:
    if entry.lfs:
        return PlannedFile(path=entry.path, size=entry.lfs.size, sha256=entry.lfs.oid)
    if entry.oid is None or not _COMMIT.match(entry.oid):
        raise SourceInvalid(f"the registry states no digest for {_shown(entry.path)}")
    return PlannedFile(path=entry.path, size=entry.size, blob_id=entry.oid)


async def _body(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        # As it comes: what httpx gathered into larger chunks would be lost when the connection breaks.
        async for chunk in response.aiter_raw():
            yield chunk
    except httpx.HTTPError as exc:
        raise SourceUnavailable(f"the registry's transfer broke off ({_reason(exc)})") from exc


def _where_bytes_begin(response: httpx.Response, offset: int, file: PlannedFile) -> int:
    begins = 0
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        stated = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if stated is None or int(stated[1]) != offset or stated[3] not in {"*", str(file.size)}:
            raise SourceInvalid(f"the registry sent another range of {_shown(file.path)} than was asked for")
        begins = offset
    length = response.headers.get("content-length")
    if length is not None and length != str(file.size - begins):
        raise SourceInvalid(
            f"the registry announces {_shown(length)} bytes of {_shown(file.path)}, {file.size - begins} were expected"
        )
    return begins


def _check_pinned(response: httpx.Response, commit: str, file: PlannedFile) -> None:
    """Refuse an answer whose headers say that it is not the pinned content."""
    served = response.headers.get("x-repo-commit", commit)
    if _COMMIT.match(served) and served != commit:
        raise SourceChanged(f"the registry serves commit {served}, the import is pinned to {commit}")
    linked = response.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
    if file.sha256 and re.fullmatch(r"[0-9a-f]{64}", linked) and linked != file.sha256:
        raise SourceChanged(
            f"the registry's {_shown(file.path)} is now {linked}, the import is pinned to {file.sha256}"
        )
    size = response.headers.get("x-linked-size")
    if size is not None and size != str(file.size):
        raise SourceChanged(
            f"the registry's {_shown(file.path)} now has {_shown(size)} bytes, not {file.size}"
        )


def _redirected(target: httpx.URL, location: str) -> httpx.URL:
    try:
        following = target.join(location)
    except (httpx.InvalidURL, ValueError) as exc:
        raise SourceInvalid("the registry redirects to something that is no address") from exc
    if following.scheme not in {"http", "https"} or (target.scheme == "https" and following.scheme == "http"):
        raise SourceInvalid("the registry redirects from https to an unprotected address")
    return following


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _shown(text: Any, limit: int = 200) -> str:
    """Make a registry's text safe for logs and messages: printable and short."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[:limit])


def _reason(exc: Exception) -> str:
    return _shown(re.sub(r"(?<!^)(?=[A-Z])", " ", type(exc).__name__).lower())
