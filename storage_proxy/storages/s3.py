"""An S3 client for threads.

Every method blocks. Keys are whole keys of the bucket; who may use which is not decided here. Errors are those of
`s3_answers.storage_error`; no message holds a key of the caller's, a signature or a URL.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree as ET

import httpx

from proxy_client.errors import BadRequest, NotFound, StorageFailure
from storage_proxy.settings import S3StorageSection
from storage_proxy.storages.s3_answers import (
    Listed,
    Listing,
    NoSuchUpload,
    Part,
    Upload,
    error_code,
    is_passing,
    parse,
    read_listing,
    read_parts,
    read_uploads,
    storage_error,
    text,
    unquoted,
)
from storage_proxy.storages.s3_requests import Body, Patience, S3Requests, chunks, read_bounded, unreachable
from storage_proxy.storages.s3_signing import LONGEST_PRESIGNED, Credentials, encode_path

LARGEST_COPY = 5 << 30
"""Bytes; what CopyObject takes. Larger objects are copied in parts."""

MOST_DELETED = 1000
"""Objects that one DeleteObjects takes."""

MOST_PARTS = 9000
"""Parts of one upload; the protocol's own limit is 10,000."""

_COPIED_PART = 512 << 20  # bytes
_META = "x-amz-meta-"


@dataclass(frozen=True, slots=True)
class Head:
    """What HEAD tells of an object; `metadata` is without its prefix, in lower case."""

    size: int
    etag: str
    modified_at: datetime
    metadata: Mapping[str, str]


class S3Client:
    """One bucket of one endpoint, for any number of threads. `what` names it in messages."""

    def __init__(
        self, section: S3StorageSection, what: str, credentials: Callable[[], Credentials] | None = None
    ) -> None:
        self._requests = S3Requests(section, what, credentials)
        self._bucket = section.bucket
        self._what = what
        self.side_by_side = self._requests.side_by_side
        self.submit = self._requests.submit

    def close(self) -> None:
        """Close every connection."""
        self._requests.close()

    # Objects.

    def put(
        self, key: str, body: Body, metadata: Mapping[str, str] | None = None, *, sha256: str | None = None
    ) -> str:
        """Write a whole object, replacing one that is there; returns its ETag. `sha256` is that of the body, if known."""
        doing = "writing an object"
        digest = sha256 or hashlib.sha256(body).hexdigest()
        answer = self._requests.ask("PUT", key, doing, headers=_metadata(metadata), body=body, sha256=digest)
        _check_checksum(answer.headers, digest, doing)
        return unquoted(answer.headers.get("etag", ""))

    def head(self, key: str) -> Head | None:
        """Look at an object; None if there is none."""
        try:
            answer = self._requests.ask("HEAD", key, "looking at an object")
        except NotFound:
            return None
        return _head(answer.headers)

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        """Yield an object's bytes in chunks of about 1 MiB; goes on where a connection breaks.

        Raises `NotFound`, or `ObjectChanged` if the object is another than that of `etag`, or becomes one meanwhile.
        """
        doing = "reading an object"
        offset, size = 0, -1
        patience = iter(Patience(self._requests.section.retries))
        turn = next(patience)
        while offset != size:
            headers = {"if-match": f'"{etag}"'} if etag else {}
            if offset:
                headers["range"] = f"bytes={offset}-"
            before = offset
            try:
                with self._requests.sent("GET", key, {}, headers, b"", None) as response:
                    if response.status_code not in {200, 206}:
                        code = error_code(read_bounded(response, doing))
                        error = storage_error(response.status_code, code, f"{doing} ({self._what})")
                        if not is_passing(response.status_code, code):
                            raise error
                        turn.wait(error, response.headers.get("retry-after"))
                        turn = next(patience)
                        continue
                    size = _check_range(response, offset, doing)
                    etag = etag or unquoted(response.headers.get("etag", "")) or None
                    for chunk in chunks(response):
                        offset += len(chunk)
                        yield chunk
                if offset < size:
                    raise httpx.ReadError("the body is short")
            except httpx.TransportError as exc:
                if offset > before:  # progress: a new budget
                    patience = iter(Patience(self._requests.section.retries))
                    turn = next(patience)
                turn.wait(unreachable(exc, doing), None)
                turn = next(patience)

    def get_small(self, key: str, limit: int) -> bytes | None:
        """Read an object of at most `limit` bytes; None if there is none. Raises `StorageFailure` if it is larger."""
        found = bytearray()
        try:
            for chunk in self.stream(key):
                found += chunk
                if len(found) > limit:
                    raise StorageFailure(f"an object of {self._what} is larger than {limit} bytes")
        except NotFound:
            return None
        return bytes(found)

    def delete(self, key: str) -> None:
        """Remove an object; no error if there is none."""
        try:
            self._requests.ask("DELETE", key, "removing an object")
        except NotFound:
            return

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove objects whose keys hold nothing that XML could not."""
        for start in range(0, len(keys), MOST_DELETED):
            root = ET.Element("Delete")
            ET.SubElement(root, "Quiet").text = "true"
            for key in keys[start : start + MOST_DELETED]:
                ET.SubElement(ET.SubElement(root, "Object"), "Key").text = key
            body = ET.tostring(root)
            md5 = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            doing = "removing objects"
            answer = self._requests.ask(
                "POST", "", doing, query={"delete": ""}, headers={"content-md5": md5}, body=body
            )
            for entry in parse(answer.body, doing) if answer.body else ():
                if entry.tag.endswith("Error") and text(entry, "Code") not in {"", "NoSuchKey"}:
                    raise storage_error(200, error_code(ET.tostring(entry)), f"{doing} ({self._what})")

    def copy(self, source: str, target: str, size: int, metadata: Mapping[str, str]) -> str:
        """Copy an object on the server, at once whatever its size; returns the copy's ETag."""
        if size > LARGEST_COPY:
            upload_id = self.create_upload(target, metadata)
            part = max(_COPIED_PART, -(-size // MOST_PARTS))
            starts = range(0, size, part)
            etags = self.side_by_side(
                lambda start: self.copy_part(
                    target, upload_id, start // part + 1, source, (start, min(start + part, size))
                ),
                starts,
            )
            return self.complete(target, upload_id, list(enumerate(etags, 1)))
        doing = "copying an object"
        headers = {
            "x-amz-copy-source": encode_path(f"/{self._bucket}/{source}"),
            "x-amz-metadata-directive": "REPLACE",
            **_metadata(metadata),
        }
        answer = self._requests.ask("PUT", target, doing, headers=headers)
        return unquoted(text(parse(answer.body, doing), "ETag"))

    def objects(self, prefix: str, *, first: int | None = None) -> Iterator[Listed]:
        """Yield the objects whose keys begin with `prefix`, by key; at most about `first` of them are asked for."""
        for page in self._pages(prefix, {} if first is None else {"max-keys": str(first)}):
            yield from page.objects
            if first is not None:
                return

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield what stands between `prefix` and the next "/" of any key."""
        for page in self._pages(prefix, {"delimiter": "/"}):
            for folder in page.folders:
                yield folder.removeprefix(prefix).removesuffix("/")

    def _pages(self, prefix: str, more: Mapping[str, str]) -> Iterator[Listing]:
        doing = "listing objects"
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url", **more}
        while True:
            page = read_listing(parse(self._requests.ask("GET", "", doing, query=query).body, doing), doing)
            yield page
            if page.next_token is None:
                return
            query["continuation-token"] = page.next_token

    # Multipart uploads.

    def create_upload(self, key: str, metadata: Mapping[str, str]) -> str:
        """Begin an upload; nothing is visible before `complete`. One that nobody knows of is aborted by age."""
        doing = "beginning an upload"
        answer = self._requests.ask("POST", key, doing, query={"uploads": ""}, headers=_metadata(metadata))
        if not (upload_id := text(parse(answer.body, doing), "UploadId")):
            raise StorageFailure(f"the object storage gave no upload id while {doing} ({self._what})")
        return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> str:
        """Write one part, in place of an earlier one of this number; returns its ETag."""
        doing = "writing a part"
        digest = hashlib.sha256(body).hexdigest()
        query = {"partNumber": str(number), "uploadId": upload_id}
        answer = self._requests.ask("PUT", key, doing, query=query, body=body, sha256=digest)
        _check_checksum(answer.headers, digest, doing)
        if not (etag := unquoted(answer.headers.get("etag", ""))):
            raise StorageFailure(f"the object storage gave no ETag while {doing} ({self._what})")
        return etag

    def copy_part(
        self, key: str, upload_id: str, number: int, source: str, span: tuple[int, int] | None
    ) -> str:
        """Let an object, or the bytes from the start to before the stop of `span`, be a part; returns its ETag."""
        doing = "copying a part"
        headers = {"x-amz-copy-source": encode_path(f"/{self._bucket}/{source}")}
        if span is not None:
            headers["x-amz-copy-source-range"] = f"bytes={span[0]}-{span[1] - 1}"
        query = {"partNumber": str(number), "uploadId": upload_id}
        answer = self._requests.ask("PUT", key, doing, query=query, headers=headers)
        return unquoted(text(parse(answer.body, doing), "ETag"))

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """Return the parts that are there, by number. Raises `NoSuchUpload`."""
        doing = "listing parts"
        query = {"uploadId": upload_id}
        found: list[Part] = []
        while True:
            parts, more = read_parts(
                parse(self._requests.ask("GET", key, doing, query=query).body, doing), doing
            )
            found += parts
            if more is None:
                return sorted(found, key=lambda part: part.number)
            query["part-number-marker"] = more

    def complete(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> str:
        """Let the object appear, made of these parts (number, ETag) in order; returns its ETag.

        Raises `NoSuchUpload` if it was completed before: an answer may be lost.
        """
        root = ET.Element("CompleteMultipartUpload")
        for number, etag in parts:
            part = ET.SubElement(root, "Part")
            ET.SubElement(part, "PartNumber").text = str(number)
            ET.SubElement(part, "ETag").text = f'"{etag}"'
        doing = "completing an upload"
        answer = self._requests.ask("POST", key, doing, query={"uploadId": upload_id}, body=ET.tostring(root))
        return unquoted(text(parse(answer.body, doing), "ETag"))

    def abort(self, key: str, upload_id: str) -> None:
        """Drop an upload with its parts; no error if it is completed or gone."""
        try:
            self._requests.ask("DELETE", key, "aborting an upload", query={"uploadId": upload_id})
        except (NoSuchUpload, NotFound):
            return

    def list_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the uploads that are open below a prefix."""
        doing = "listing uploads"
        query = {"uploads": "", "prefix": prefix, "encoding-type": "url"}
        while True:
            uploads, more = read_uploads(
                parse(self._requests.ask("GET", "", doing, query=query).body, doing), doing
            )
            yield from uploads
            if more is None:
                return
            query |= {"key-marker": more[0], "upload-id-marker": more[1]}

    # For others.

    def presign(self, method: str, key: str, expires: int) -> str:
        """Return a URL that lets whoever has it GET or PUT this object for `expires` seconds."""
        if not 0 < expires <= LONGEST_PRESIGNED:
            raise BadRequest(f"a signed URL lasts 1 to {LONGEST_PRESIGNED} seconds", field="expires")
        return self._requests.presign(method, key, expires)


def _check_range(response: httpx.Response, offset: int, doing: str) -> int:
    """Return the whole object's size; raises `StorageFailure` for another range than was asked for."""
    try:
        length = int(response.headers["content-length"])
        if response.status_code == 206:  # noqa: PLR2004 -- HTTP's own number
            start = int(response.headers["content-range"].removeprefix("bytes ").partition("-")[0])
        else:
            start = 0
    except (KeyError, ValueError) as exc:
        raise StorageFailure(f"the object storage does not say what it sends while {doing}") from exc
    if start != offset or response.headers.get("content-encoding", "identity") != "identity":
        raise StorageFailure(f"the object storage sends something else while {doing}")
    return start + length


def _metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    return {f"{_META}{name}": value for name, value in (metadata or {}).items()}


def _head(headers: httpx.Headers) -> Head:
    try:
        modified = parsedate_to_datetime(headers["last-modified"])
        size = int(headers["content-length"])
    except (KeyError, ValueError) as exc:
        raise StorageFailure("the object storage does not say what the object is") from exc
    metadata = {name.removeprefix(_META): value for name, value in headers.items() if name.startswith(_META)}
    return Head(size, unquoted(headers.get("etag", "")), modified, metadata)


def _check_checksum(headers: httpx.Headers, sha256: str, doing: str) -> None:
    """The server has checked the signed hash already; where it tells what it stored, that must be the same."""
    told = headers.get("x-amz-checksum-sha256")
    if told is not None and told != b64encode(bytes.fromhex(sha256)).decode():
        raise StorageFailure(f"the object storage stored other bytes than were sent while {doing}")
