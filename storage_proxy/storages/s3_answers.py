"""What an S3 server answers: its XML, read safely, and its errors in our words."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from proxy_client.errors import (
    DiskFull,
    NotFound,
    QuotaExceeded,
    ReadOnlyStorage,
    StorageError,
    StorageFailure,
)

LARGEST_ANSWER = 32 << 20
"""Bytes; a thousand keys of the longest kind, three times percent-encoded, are 9 MB."""

_LONGEST_CODE = 64

_MISSING = frozenset({"NoSuchKey", "NoSuchVersion"})
_REFUSED = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "MethodNotAllowed",
        "SignatureDoesNotMatch",
    }
)
_OVER_QUOTA = frozenset({"EntityTooLarge", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})
_FULL = frozenset({"InsufficientStorage", "XMinioStorageFull"})
_ELSEWHERE = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect"})

# Which value of a storage's configuration an answer speaks of.
_FIELDS = {
    "AuthorizationHeaderMalformed": "region",
    "InvalidAccessKeyId": "access_key",
    "NoSuchBucket": "bucket",
    "SignatureDoesNotMatch": "secret_key",
}

# Damaged on the way, or the server's own trouble: the same request may succeed.
_PASSING_CODES = frozenset(
    {
        "BadDigest",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


class NoSuchUpload(StorageFailure):
    """The multipart upload was completed or aborted, or never was."""


class AccessDenied(ReadOnlyStorage):
    """The keys are known, and do not permit this."""


class ObjectChanged(StorageFailure):
    """The object is not any more the one that was asked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it; `etag` is without quotes, `size` in bytes."""

    key: str
    size: int
    etag: str
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Listing:
    """One page: objects, the "folders" below a delimiter, and the token of the next page."""

    objects: tuple[Listed, ...]
    folders: tuple[str, ...]
    next_token: str | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart upload; numbers begin with 1."""

    number: int
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    initiated_at: datetime


def parse(body: bytes, doing: str) -> ET.Element:
    """Parse an answer. Raises `StorageFailure` for what is no XML, and for all XML that declares anything.

    Without a declaration there are no entities, so nothing can grow or point outside.
    """
    try:
        text = body.decode()
        if "<!" in text:
            raise StorageFailure(f"the object storage's answer holds a declaration while {doing}")
        return ET.fromstring(text)  # noqa: S314 -- bounded, and without declarations
    except (UnicodeDecodeError, ET.ParseError) as exc:
        raise StorageFailure(f"the object storage's answer is no XML while {doing}") from exc


def children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """Yield the children of this name, in whatever namespace."""
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def text(element: ET.Element, name: str) -> str:
    """Return the text of the first child of this name; "" where there is none."""
    return next((child.text or "" for child in children(element, name)), "")


def unquoted(etag: str) -> str:
    """Return an ETag without its quotes."""
    return etag.strip().strip('"')


def read_listing(element: ET.Element, doing: str) -> Listing:
    """Read an answer of ListObjectsV2."""
    decode = _decoder(element)
    try:
        return Listing(
            tuple(
                Listed(
                    decode(text(entry, "Key")),
                    int(text(entry, "Size")),
                    unquoted(text(entry, "ETag")),
                    datetime.fromisoformat(text(entry, "LastModified")),
                )
                for entry in children(element, "Contents")
            ),
            tuple(decode(text(entry, "Prefix")) for entry in children(element, "CommonPrefixes")),
            text(element, "NextContinuationToken") or None
            if text(element, "IsTruncated") == "true"
            else None,
        )
    except ValueError as exc:
        raise _unreadable(doing) from exc


def read_parts(element: ET.Element, doing: str) -> tuple[list[Part], str | None]:
    """Read an answer of ListParts: the parts, and the marker of the next page."""
    try:
        parts = [
            Part(int(text(entry, "PartNumber")), unquoted(text(entry, "ETag")), int(text(entry, "Size")))
            for entry in children(element, "Part")
        ]
    except ValueError as exc:
        raise _unreadable(doing) from exc
    more = text(element, "NextPartNumberMarker") if text(element, "IsTruncated") == "true" else ""
    return parts, more or None


def read_uploads(element: ET.Element, doing: str) -> tuple[list[Upload], tuple[str, str] | None]:
    """Read an answer of ListMultipartUploads: the uploads, and the two markers of the next page."""
    decode = _decoder(element)
    try:
        uploads = [
            Upload(
                decode(text(entry, "Key")),
                text(entry, "UploadId"),
                datetime.fromisoformat(text(entry, "Initiated")),
            )
            for entry in children(element, "Upload")
        ]
    except ValueError as exc:
        raise _unreadable(doing) from exc
    if text(element, "IsTruncated") != "true":
        return uploads, None
    return uploads, (decode(text(element, "NextKeyMarker")), text(element, "NextUploadIdMarker"))


def _decoder(element: ET.Element) -> Callable[[str], str]:
    """Some servers write a space as "+"; a plus sign itself is percent-encoded by all."""
    return partial(unquote_plus, errors="strict") if text(element, "EncodingType") == "url" else str


def _unreadable(doing: str) -> StorageFailure:
    return StorageFailure(f"the object storage's answer cannot be understood while {doing}")


# Errors.


def error_code(body: bytes) -> str:
    """Return the code of an error's body, "" where there is none; safe to print and short."""
    try:
        code = text(parse(body, ""), "Code")
    except StorageFailure:
        return ""
    return "".join(letter for letter in code if letter.isascii() and letter.isalnum())[:_LONGEST_CODE]


def is_passing(status: int, code: str) -> bool:
    """Whether the same request may succeed later."""
    return code in _PASSING_CODES or (status in _PASSING_STATUSES and code not in _FULL)


def storage_error(status: int, code: str, doing: str) -> StorageError | NotFound:
    """Choose the class for an answer that is an error."""
    told, field = f"{status} {code}".strip(), _FIELDS.get(code)
    if code in _MISSING or (status == 404 and not code):  # noqa: PLR2004 -- HTTP's own numbers
        return NotFound(f"there is no such object ({told}) while {doing}")
    if code == "NoSuchUpload":
        return NoSuchUpload(f"the upload is not there any more ({told}) while {doing}")
    if code == "NoSuchBucket":
        return StorageFailure(
            f"the bucket is not there ({told}) while {doing}; make it, or correct its name", field=field
        )
    if status in {409, 412} and code in {"", "PreconditionFailed", "ConditionalRequestConflict"}:
        return ObjectChanged(f"the object was changed ({told}) while {doing}")
    if code in _OVER_QUOTA or status == 413:  # noqa: PLR2004
        return QuotaExceeded(
            f"the object storage's quota is used up ({told}) while {doing}; make room and try again"
        )
    if code in _FULL or status == 507:  # noqa: PLR2004
        return DiskFull(f"the object storage is full ({told}) while {doing}; make room and try again")
    if code == "RequestTimeTooSkewed":
        return StorageFailure(f"the clocks differ too much ({told}) while {doing}; set this machine's clock")
    if code in _ELSEWHERE or status in {301, 302, 307, 308}:
        return StorageFailure(
            f"the bucket is somewhere else ({told}) while {doing}; correct the endpoint and the region",
            field=field,
        )
    if code in _REFUSED or status in {401, 403, 405}:
        refused = AccessDenied if code == "AccessDenied" else ReadOnlyStorage
        return refused(
            f"the object storage refuses ({told}) while {doing}; check the keys and what they permit",
            field=field,
        )
    return StorageFailure(f"the object storage failed ({told}) while {doing}")
