"""HTTP as the Hugging Face Hub speaks it: redirects, errors and pins, on blocking connections.

Facts used: https://huggingface.co/docs/hub/api and the headers of the resolve endpoint (X-Repo-Commit, X-Linked-Size,
X-Linked-Etag on the answer before a redirect to a CDN; X-Error-Code and X-Error-Message on a refusal).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from proxy_client.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceInvalid,
    SourceNotFound,
    SourceUnavailable,
)
from proxy_client.wire import COMMIT_PATTERN
from storage_proxy.registries.patience import RetryLater, retry_after_seconds
from storage_proxy.settings import ArtifactRegistrySection, TransferSection
from storage_proxy.storages.base import PlannedFile
from storage_proxy.transfer.connections import Address, Answer, Connections, tls_context
from storage_proxy.transfer.line import Line
from storage_proxy.transfer.reach import Reach

MAX_REDIRECTS = 5

_COMMIT = re.compile(COMMIT_PATTERN)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_REDIRECTS = {301, 302, 303, 307, 308}
_SHORT = 1 << 14  # bytes of a redirect's body that are read, so that its connection can be used again


class RevisionGone(SourceNotFound):
    """The registry has the model, not the revision."""


@contextmanager
def pinned_to(commit: str) -> Iterator[None]:
    """Say of a commit that is gone what it means: the model was changed at its source."""
    try:
        yield
    except RevisionGone as exc:
        raise SourceChanged(
            f"the registry no longer serves commit {commit}, which the import is pinned to; "
            "scan the model again and import what is there now"
        ) from exc


class HubHttp:
    """One hub's door. The token goes to the endpoint's own scheme, host and port, and to nobody else."""

    def __init__(
        self,
        name: str,
        settings: ArtifactRegistrySection,
        transfer: TransferSection,
        token: str | None = None,
    ) -> None:
        self.name = name
        self.endpoint = settings.url.rstrip("/")
        self._home = Address.of(self.endpoint)
        self._token = settings.token_file.read_text().strip() if settings.token_file else token
        self._connections = Connections(
            Reach(name, self._home.origin.host, tuple(settings.private_addresses)),
            tls_context(settings.ca_file) if settings.ca_file else None,
            connect_timeout=transfer.connect_timeout,
            stall_timeout=transfer.stall_timeout,
        )

    @property
    def host(self) -> str:
        """Return the host and port that the bound on connections counts for."""
        return f"{self._home.origin.host}:{self._home.origin.port}"

    def address(self, path: str) -> Address:
        """Return the address of a path below the endpoint; it is percent-encoded already."""
        return Address(self._home.origin, self._home.target.rstrip("/") + path)

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()

    @contextmanager
    def opened(
        self,
        address: Address,
        line: Line,
        headers: Mapping[str, str] | None = None,
        *,
        pinned: tuple[str, PlannedFile] | None = None,
    ) -> Iterator[tuple[Answer, Address]]:
        """Ask once, following redirects; yields the answer and the address that gave it. Raises a `SourceError`."""
        target = address
        for _ in range(MAX_REDIRECTS + 1):
            with self._connections.get(target, self._headers(target, headers or {}), line) as answer:
                if pinned:
                    check_pinned(answer.headers, *pinned)
                location = answer.headers.get("location")
                if answer.status not in _REDIRECTS or location is None:
                    self._check_status(answer)
                    yield answer, target
                    return
                if answer.length is not None and answer.length <= _SHORT:
                    answer.read(_SHORT)
            target = _redirected(target, location)
        raise SourceInvalid(f"the registry redirects more than {MAX_REDIRECTS} times")

    def _headers(self, target: Address, headers: Mapping[str, str]) -> dict[str, str]:
        sent = {"Accept-Encoding": "identity", "User-Agent": "stowage", **headers}
        if self._token and target.origin == self._home.origin:
            sent["Authorization"] = f"Bearer {self._token}"
        return sent

    def _check_status(self, answer: Answer) -> None:
        if answer.status in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise SourceInvalid("the registry encodes the body although identity was asked for")
            return
        raise self._fault(answer.status, answer.headers)

    def _told(self, text: str) -> str:
        """Make what the registry says safe to show: one that repeats our token is not quoted with it."""
        return shown(text.replace(self._token, "…") if self._token else text)

    def _fault(self, status: int, headers: Mapping[str, str]) -> SourceError:
        code = self._told(headers.get("x-error-code", ""))
        said = f"the registry {self.name} answered {status}" + (f" {code}" if code else "")
        if text := self._told(headers.get("x-error-message", "")):
            said += f": {text}"
        if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
            return RetryLater(said, retry_after_seconds(headers.get("retry-after")))
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return SourceInvalid(said)
        if code == "RevisionNotFound":
            return RevisionGone(f"{said}; check the revision's name")
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


def range_of(answer: Answer, start: int, stop: int, file: PlannedFile) -> tuple[int, int]:
    """Return the range that the answer brings: the one asked for, or the whole file where the registry does not serve ranges.

    Raises `SourceInvalid` for an answer whose headers tell of other bytes than were asked for.
    """
    begins, ends = 0, file.size
    if answer.status == httpx.codes.PARTIAL_CONTENT:
        stated = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if (
            stated is None
            or (int(stated[1]), int(stated[2]) + 1) != (start, stop)
            or stated[3] not in {"*", str(file.size)}
        ):
            raise SourceInvalid(f"the registry sent another range of {shown(file.path)} than was asked for")
        begins, ends = start, stop
    length = answer.headers.get("content-length")
    if length is not None and length.strip() != str(ends - begins):
        raise SourceInvalid(
            f"the registry announces {shown(length)} bytes of {shown(file.path)}, {ends - begins} were expected"
        )
    return begins, ends


def check_pinned(headers: Mapping[str, str], commit: str, file: PlannedFile) -> None:
    """Refuse an answer whose headers say that it is not the pinned content."""
    served = headers.get("x-repo-commit", commit)
    if _COMMIT.match(served) and served != commit:
        raise SourceChanged(f"the registry serves commit {served}, the import is pinned to {commit}")
    linked = headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
    if file.sha256 and re.fullmatch(r"[0-9a-f]{64}", linked) and linked != file.sha256:
        raise SourceChanged(
            f"the registry's {shown(file.path)} is now {linked}, the import is pinned to {file.sha256}"
        )
    size = headers.get("x-linked-size")
    if size is not None and size != str(file.size):
        raise SourceChanged(f"the registry's {shown(file.path)} now has {shown(size)} bytes, not {file.size}")


def _redirected(target: Address, location: str) -> Address:
    try:
        following = Address.of(target.url.join(location))
    except (httpx.InvalidURL, ValueError) as exc:
        raise SourceInvalid("the registry redirects to something that is no address") from exc
    if target.origin.scheme == "https" and following.origin.scheme == "http":
        raise SourceInvalid("the registry redirects from https to an unprotected address")
    return following


def shown(text: Any, limit: int = 200) -> str:
    """Make a registry's text safe for logs and messages: printable and short."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[:limit])
