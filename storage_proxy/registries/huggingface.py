"""The Hugging Face Hub's HTTP protocol, spoken to the hub itself, a mirror, or `stowage hub`.

Facts used: https://huggingface.co/docs/hub/api (model info, tree with Link paging, refs) and the headers of
the resolve endpoint (X-Repo-Commit, X-Linked-Size, X-Linked-Etag on the answer before a redirect to a CDN).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from proxy_client.errors import SourceError, SourceInvalid, SourceUnavailable
from proxy_client.paths import MODEL_ID_PATTERN
from proxy_client.wire import COMMIT_PATTERN, RegistryModel, RegistryRevision
from storage_proxy.concurrency import side_by_side
from storage_proxy.registries.base import AbstractRegistry, FileStream
from storage_proxy.registries.hub_http import HubHttp, pinned_to, range_of, shown
from storage_proxy.registries.patience import Patience
from storage_proxy.settings import ArtifactRegistrySection, TransferSection
from storage_proxy.storages.base import PlannedFile
from storage_proxy.transfer.connections import Address, Answer
from storage_proxy.transfer.line import Line, on_line

T = TypeVar("T")

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


class _Lfs(BaseModel):
    oid: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int


class _Security(BaseModel):
    status: str | None = None


class _TreeEntry(BaseModel):
    type: str
    path: str
    oid: str | None = None
    size: int = Field(default=0, ge=0)
    lfs: _Lfs | None = None
    security: _Security | None = Field(default=None, alias="securityFileStatus")


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
    commit: str | None = Field(default=None, alias="targetCommit")


class _Refs(BaseModel):
    branches: list[_Ref] = []
    tags: list[_Ref] = []


@dataclass(frozen=True)
class _Call:
    """One piece of blocking work: what cuts it, and how patient it is."""

    line: Line
    retries: int


class HuggingFaceRegistry(AbstractRegistry):
    """A hub at one endpoint. Idle connections live as long as the process; `close` ends them.

    `token` is for a registry whose section names no file with one.
    """

    protocol = "huggingface"

    def __init__(
        self,
        name: str,
        settings: ArtifactRegistrySection,
        transfer: TransferSection,
        token: str | None = None,
        *,
        security: bool = False,
    ) -> None:
        """Ask with every list of files for the registry's own `security` status, which makes the list slow, or do not."""
        self.name = name
        self._transfer = transfer
        self._security = security
        self._hub = HubHttp(name, settings, transfer, token)
        # Where a file's bytes were found last: a redirect to a CDN holds for a while, and hubs count who asks for it.
        self._found: dict[Address, Address] = {}

    @property
    def host(self) -> str:
        return self._hub.host

    def close(self) -> None:
        """Close all idle connections."""
        self._hub.close()

    async def search(self, search: str | None, *, limit: int, sort: str | None) -> list[RegistryModel]:
        params = {
            "limit": str(limit),
            "sort": _SORTS.get(sort or "downloads", "downloads"),
            "direction": "-1",
        }
        if search:
            params["search"] = search
        address = self._hub.address(f"/api/models?{httpx.QueryParams(params)}")

        def ask(call: _Call) -> list[RegistryModel]:
            found: list[_ModelInfo] = []
            for page in self._pages(address, list[_ModelInfo], call):
                found += page
                if len(found) >= limit:
                    break
            return [_as_registry_model(info, []) for info in found[:limit] if _MODEL_ID.match(info.id)]

        return await self._asked(ask, INTERACTIVE_RETRIES)

    async def get_model(self, model_id: str, revision: str | None, *, details: bool = True) -> RegistryModel:
        def ask(call: _Call) -> tuple[_ModelInfo, dict[str, str | None]]:
            info = self._json(self._api(model_id, "revision", revision), _ModelInfo, call)
            if revision is not None:
                return info, {revision: info.sha}
            refs = self._json(self._api(model_id, "refs"), _Refs, call)
            found: dict[str, str | None] = {}
            for ref in [*refs.branches, *refs.tags]:
                found.setdefault(ref.name, ref.commit)
            return info, found

        async def describe(name: str) -> RegistryRevision:
            commit = commits[name]
            if not details and commit is not None and _COMMIT.match(commit):
                return RegistryRevision(name=name, commit=commit, described=False)
            return await self._asked(
                lambda call: self._describe(model_id, name, call, details=details), INTERACTIVE_RETRIES
            )

        info, commits = await self._asked(ask, INTERACTIVE_RETRIES)
        return _as_registry_model(info, await side_by_side(describe, list(commits), width=SCAN_WIDTH))

    async def resolve(self, model_id: str, revision: str) -> str:
        return await self._asked(lambda call: self._resolve(model_id, revision, call), self._transfer.retries)

    async def list_files(self, model_id: str, commit: str) -> list[PlannedFile]:
        return await self._asked(
            lambda call: self._list_files(model_id, commit, call), self._transfer.retries
        )

    @contextmanager
    def open_range(
        self, model_id: str, commit: str, file: PlannedFile, start: int, stop: int, line: Line
    ) -> Iterator[FileStream]:
        asked = self._hub.address(f"/{quote(model_id)}/resolve/{commit}/{quote(file.path)}")
        headers = {} if (start, stop) == (0, file.size) else {"Range": f"bytes={start}-{stop - 1}"}
        with ExitStack() as stack:
            stack.enter_context(pinned_to(commit))
            answer = self._open_known(asked, headers, line, stack)
            if answer is None:
                answer, found = stack.enter_context(
                    self._hub.opened(asked, line, headers, pinned=(commit, file))
                )
                if found != asked and stop < file.size:
                    self._found[asked] = found
            begins, ends = range_of(answer, start, stop, file)
            yield FileStream(begins, ends, answer.readinto)

    def _open_known(
        self, asked: Address, headers: Mapping[str, str], line: Line, stack: ExitStack
    ) -> Answer | None:
        """Ask where the bytes were found last. None if that does not lead to them any more: its signature expires."""
        known = self._found.get(asked)
        if known is None:
            return None
        try:
            answer, _ = stack.enter_context(self._hub.opened(known, line, headers))
        except SourceError as exc:
            self._found.pop(asked, None)
            if isinstance(exc, SourceUnavailable):
                raise
            return None
        return answer

    async def _asked(self, work: Callable[[_Call], T], retries: int) -> T:
        return await on_line(lambda line: work(_Call(line, retries)))

    def _describe(self, model_id: str, name: str, call: _Call, *, details: bool) -> RegistryRevision:
        commit = self._resolve(model_id, name, call)
        if not details:
            return RegistryRevision(name=name, commit=commit, described=False)
        files = self._list_files(model_id, commit, call)
        readme = next((file for file in files if file.path == "README.md"), None)
        text = self._readme(model_id, commit, readme, call) if readme else None
        return RegistryRevision(name=name, commit=commit, size=sum(file.size for file in files), readme=text)

    def _resolve(self, model_id: str, revision: str, call: _Call) -> str:
        info = self._json(self._api(model_id, "revision", revision), _ModelInfo, call)
        if info.sha is None or not _COMMIT.match(info.sha):
            raise SourceInvalid(f"the registry names no commit for {model_id}@{shown(revision)}")
        return info.sha

    def _list_files(self, model_id: str, commit: str, call: _Call) -> list[PlannedFile]:
        address = self._api(model_id, "tree", commit, f"?recursive=true&expand={str(self._security).lower()}")
        files: list[PlannedFile] = []
        with pinned_to(commit):
            for page in self._pages(address, list[_TreeEntry], call):
                files += [_planned(entry) for entry in page if entry.type == "file"]
        return files

    def _readme(self, model_id: str, commit: str, readme: PlannedFile, call: _Call) -> str | None:
        address = self._hub.address(f"/{quote(model_id)}/resolve/{commit}/{quote(readme.path)}")
        content, _ = self._read(address, MAX_README_BYTES, call)
        # PostgreSQL text holds no NUL, and a readme is shown to people only.
        return content.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")

    def _api(self, model_id: str, kind: str, name: str | None = None, query: str = "") -> Address:
        path = f"/api/models/{quote(model_id)}"
        if kind != "revision" or name is not None:
            path += f"/{kind}" + (f"/{quote(name, safe='')}" if name is not None else "")
        return self._hub.address(path + query)

    def _pages(self, address: Address, shape: type[T], call: _Call) -> Iterator[T]:
        seen = set()
        for _ in range(MAX_PAGES):
            seen.add(address)
            content, headers = self._read(address, MAX_METADATA_BYTES, call)
            yield self._parsed(content, shape)
            link = _NEXT_LINK.search(headers.get("link", ""))
            if link is None:
                return
            address = self._next(address, link[1])
            if address in seen:
                break
        raise SourceInvalid("the registry's listing links to itself without end")

    @staticmethod
    def _next(address: Address, link: str) -> Address:
        try:
            # A mirror behind a TLS front may link to itself by another scheme or name; only path and query count.
            return Address(address.origin, address.url.join(link).raw_path.decode("ascii"))
        except (httpx.InvalidURL, ValueError) as exc:
            raise SourceInvalid("the registry's listing links to something that is no address") from exc

    def _json(self, address: Address, shape: type[T], call: _Call) -> T:
        content, _ = self._read(address, MAX_METADATA_BYTES, call)
        return self._parsed(content, shape)

    def _parsed(self, content: bytes, shape: type[T]) -> T:
        try:
            return TypeAdapter(shape).validate_json(content)
        except ValidationError as exc:
            kind = "HTML" if content.lstrip()[:1] == b"<" else "something"
            raise SourceInvalid(
                f"the registry {self.name} answered {kind} instead of the JSON of a hub; check its endpoint"
            ) from exc

    def _read(self, address: Address, limit: int, call: _Call) -> tuple[bytes, Mapping[str, str]]:
        patience = Patience(self._transfer, call.retries, call.line)
        while True:
            try:
                with self._hub.opened(address, call.line) as (answer, _):
                    content = answer.read(limit)
                    if content is None:
                        raise SourceInvalid(f"the registry's answer is longer than {limit} bytes")
                    return content, answer.headers
            except SourceUnavailable as exc:
                patience.wait(exc)


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
    security = entry.security.status if entry.security else None
    if entry.lfs:
        return PlannedFile(path=entry.path, size=entry.lfs.size, sha256=entry.lfs.oid, security=security)
    if entry.oid is None or not _COMMIT.match(entry.oid):
        raise SourceInvalid(f"the registry states no digest for {shown(entry.path)}")
    return PlannedFile(path=entry.path, size=entry.size, blob_id=entry.oid, security=security)
