"""Signed requests to one S3 bucket: checked, bounded in time, and repeated in this one place."""

import contextvars
import hashlib
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from proxy_client.configuration import read_value
from proxy_client.errors import StorageFailure, Unavailable
from storage_proxy.registries.patience import retry_after_seconds
from storage_proxy.settings import S3StorageSection
from storage_proxy.storages.s3_answers import LARGEST_ANSWER, error_code, is_passing, storage_error
from storage_proxy.storages.s3_signing import (
    EMPTY_SHA256,
    Credentials,
    Target,
    encode_path,
    encode_query,
    presigned_query,
    signed_headers,
)
from storage_proxy.volumes.threads import stop_point

Body = bytes | bytearray | memoryview
T = TypeVar("T")
R = TypeVar("R")

_SENT = 256 << 10  # bytes handed to the socket at a time
_READ = 1 << 20  # bytes
_RAW = 64 << 10  # bytes; what the transport reads at a time
_CREDENTIALS_HELD = 10.0  # seconds
_BACKOFF, _LONGEST_BACKOFF, _LONGEST_RETRY_AFTER = 0.2, 20.0, 60.0  # seconds
_SLICE = 0.1  # seconds

_here = threading.local()


@dataclass(frozen=True)
class Answer:
    """A good answer, read to its end."""

    headers: httpx.Headers
    body: bytes = b""


class S3Requests:
    """One bucket of one endpoint, for any number of threads. `what` names it in messages.

    `of_bucket` is false for what asks the service itself.
    """

    def __init__(
        self,
        section: S3StorageSection,
        what: str,
        credentials: Callable[[], Credentials] | None,
        *,
        of_bucket: bool = True,
    ) -> None:
        self.section = section
        self.what = what
        self._read_credentials = credentials or (lambda: read_credentials(section, what))
        self._held: tuple[float, Credentials] | None = None
        endpoint = urlsplit(section.endpoint)
        self._scheme = endpoint.scheme
        if not of_bucket:
            self._host, self._base = endpoint.netloc, "/"
        elif section.addressing == "virtual-host":
            self._host, self._base = f"{section.bucket}.{endpoint.netloc}", "/"
        else:
            self._host, self._base = endpoint.netloc, f"/{section.bucket}/"
        self._http: httpx.Client | None = None
        self._opening = threading.Lock()
        self._pool = ThreadPoolExecutor(
            section.parallel_parts,
            thread_name_prefix="s3",
            initializer=setattr,
            initargs=(_here, "pool", self),
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.shutdown(cancel_futures=True)
        if self._http is not None:
            self._http.close()

    def _client(self) -> httpx.Client:
        with self._opening:
            if self._http is None:
                section = self.section
                try:
                    trusted = ssl.create_default_context(cafile=section.ca_file)
                except OSError as exc:
                    raise StorageFailure(f"the ca-file of {self.what} cannot be read; correct it") from exc
                self._http = httpx.Client(
                    verify=trusted,
                    trust_env=False,
                    timeout=httpx.Timeout(section.stall_timeout, connect=section.connect_timeout, pool=None),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
                )
            return self._http

    def side_by_side(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Run `work` on every item, `parallel-parts` at a time; the results in order, or the first error once all ended."""
        if getattr(_here, "pool", None) is self:  # one of our threads must not wait for others of them
            return [work(item) for item in items]
        futures = [self._pool.submit(contextvars.copy_context().run, work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            for future in futures:
                if not future.cancelled():
                    future.exception()

    def submit(self, work: Callable[[], R]) -> Future[R]:
        """Run `work` in one of these threads."""
        return self._pool.submit(contextvars.copy_context().run, work)

    # Asking.

    def _credentials(self) -> Credentials:
        now = time.monotonic()
        if self._held is None or now - self._held[0] > _CREDENTIALS_HELD:
            self._held = (now, self._read_credentials())
        return self._held[1]

    @contextmanager
    def sent(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Body,
        sha256: str | None,
    ) -> Iterator[httpx.Response]:
        """Send one request, once; the answer's body is not read yet."""
        path = encode_path(self._base + key) if key else self._base.rstrip("/") or "/"
        digest = sha256 or (hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256)
        sent = signed_headers(
            Target(method, self._host, path, query),
            {"accept-encoding": "identity", **headers},
            digest,
            self._credentials(),
            self.section.region,
            datetime.now(UTC),
        )
        if body or method in {"PUT", "POST"}:
            sent["content-length"] = str(len(body))
        url = f"{self._scheme}://{self._host}{path}{'?' if query else ''}{encode_query(query)}"
        request = httpx.Request(
            method,
            url,
            headers=sent,
            content=_slices(body) if body else None,
            extensions={"timeout": self._client().timeout.as_dict()},
        )
        response = self._client().send(request, stream=True)
        try:
            yield response
        finally:
            response.close()

    def ask(
        self,
        method: str,
        key: str,
        doing: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        sha256: str | None = None,
    ) -> Answer:
        """Send a request that may be repeated until it is answered; returns a good answer.

        An answer of 200 may hold an error all the same: CopyObject and CompleteMultipartUpload begin to answer before
        they know.
        """
        for patience in Patience(self.section.retries):
            try:
                with self.sent(method, key, query or {}, headers or {}, body, sha256) as response:
                    content = b"" if method == "HEAD" else read_bounded(response, doing)
                    status, found = response.status_code, response.headers
            except httpx.TransportError as exc:
                patience.wait(unreachable(exc, doing), None)
                continue
            code = error_code(content) if status >= 300 or b"<Error>" in content[:512] else ""  # noqa: PLR2004
            if status < 300 and not code:  # noqa: PLR2004 -- HTTP's own number
                return Answer(found, content)
            error = storage_error(status, code, f"{doing} ({self.what})")
            if not is_passing(status, code):
                raise error
            patience.wait(error, found.get("retry-after"))
        raise AssertionError("patience ends with an error")

    def presign(self, method: str, key: str, expires: int) -> str:
        """Return a URL that lets whoever has it do this for `expires` seconds."""
        path = encode_path(self._base + key)
        query = presigned_query(
            Target(method, self._host, path, {}),
            expires,
            self._credentials(),
            self.section.region,
            datetime.now(UTC),
        )
        return f"{self._scheme}://{self._host}{path}?{encode_query(query)}"


def read_credentials(section: S3StorageSection, what: str) -> Credentials:
    """Read the keys from their files, or from the environment. Raises `Unavailable`."""
    if section.access_key_file is None or section.secret_key_file is None:
        access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if not access or not secret:
            raise Unavailable(
                f"{what} has no keys; name access-key-file and secret-key-file, "
                "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        token = os.environ.get("AWS_SESSION_TOKEN")
    else:
        access = read_value(section.access_key_file, "access-key-file")
        secret = read_value(section.secret_key_file, "secret-key-file")
        token = None
    if section.session_token_file is not None:
        token = read_value(section.session_token_file, "session-token-file")
    return Credentials(access, secret, token or None)


def pause(seconds: float) -> None:
    """Sleep, unless the task that asked for this work is cancelled meanwhile."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        stop_point()
        time.sleep(min(_SLICE, left))


class _Turn:
    """One try; `wait` sleeps before the next one, or raises if there is none."""

    def __init__(self, number: int, last: int) -> None:
        self._number = number
        self._last = last

    def wait(self, fault: Exception, retry_after: str | None) -> None:
        asked = retry_after_seconds(retry_after)
        if self._number >= self._last or (asked or 0) > _LONGEST_RETRY_AFTER:
            raise fault
        ceiling = min(_LONGEST_BACKOFF, _BACKOFF * 2**self._number)
        seconds = asked if asked is not None else ceiling * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads load
        pause(seconds)


class Patience:
    """Tries, as many as the retries allow and one more."""

    def __init__(self, retries: int) -> None:
        self._retries = retries

    def __iter__(self) -> Iterator[_Turn]:
        return (_Turn(number, self._retries) for number in range(self._retries + 1))


def unreachable(exc: httpx.TransportError, doing: str) -> StorageFailure:
    """Say that no answer came."""
    error = StorageFailure(f"the object storage gave no answer ({type(exc).__name__}) while {doing}")
    error.__cause__ = exc
    return error


def _slices(body: Body) -> Iterator[bytes]:
    """Small enough that the socket, which copies what it could not send at once, copies little, and that a cancel ends it."""
    view = memoryview(body)
    for start in range(0, len(view), _SENT):
        stop_point()
        yield bytes(view[start : start + _SENT])


def chunks(response: httpx.Response) -> Iterator[bytes]:
    """Yield a body in chunks of at most 1 MiB."""
    gathered: list[bytes] = []
    size = 0
    try:
        for chunk in response.iter_raw():
            stop_point()
            gathered.append(chunk)
            size += len(chunk)
            if size >= _READ - _RAW:
                yield b"".join(gathered)
                gathered, size = [], 0
    except httpx.TransportError:
        if gathered:  # what came before the break is good
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)


def read_bounded(response: httpx.Response, doing: str) -> bytes:
    """Read a whole body. Raises `StorageFailure` if it is longer than any answer should be."""
    found = bytearray()
    for chunk in response.iter_raw():
        found += chunk
        if len(found) > LARGEST_ANSWER:
            raise StorageFailure(f"the object storage's answer is too long while {doing}")
    return bytes(found)
