"""Room and quota: what a place holds, what it may hold, and whether more fits."""

import os
import stat
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy_client.errors import DiskFull, QuotaExceeded, StorageFailure
from storage_proxy.volumes import fsio

LIMIT_FILE = ".quota.json"
_LARGEST_LIMIT_FILE = 4096  # bytes


class Usage(NamedTuple):
    """What regular files below a folder sum up to; one with several names counts once."""

    used_bytes: int
    file_count: int


class _Limit(BaseModel):
    model_config = ConfigDict(extra="ignore")

    limit_bytes: int | None = None


def measure(root: int, *, without: str | None = None) -> Usage:
    """Walk everything below an open folder; `without` is a file that does not count."""
    size = count = 0
    linked: set[tuple[int, int]] = set()
    for path, found in fsio.walk(root):
        if not stat.S_ISREG(found.st_mode) or path == without:
            continue
        if found.st_nlink > 1:
            if (found.st_dev, found.st_ino) in linked:
                continue
            linked.add((found.st_dev, found.st_ino))
        size += found.st_size
        count += 1
    return Usage(size, count)


def read_limit(scope: int) -> int | None:
    """Return the limit kept in a quota scope's open folder, in bytes; None is unlimited."""
    text = fsio.read_small(scope, LIMIT_FILE, _LARGEST_LIMIT_FILE)
    try:
        return None if text is None else _Limit.model_validate_json(text).limit_bytes
    except ValidationError as exc:
        raise StorageFailure("the quota scope's limit is damaged; set it again") from exc


def write_limit(scope: int, limit_bytes: int | None) -> None:
    """Keep the limit, durably and atomically."""
    text = _Limit(limit_bytes=limit_bytes).model_dump_json().encode()
    fsio.write_file(scope, LIMIT_FILE, text, fsio.PRIVATE)


def insist_on_space(root: int, needed: int) -> None:
    """Raise `DiskFull` if the file system has less than `needed` bytes for us. One that tells no size has room."""
    state = os.fstatvfs(root)
    free = state.f_bavail * state.f_frsize
    if state.f_blocks and needed > free:
        raise DiskFull(
            f"{needed} bytes are needed and {free} are free on the file system; make room and import again"
        )


def insist_on_quota(scope: int, needed: int) -> None:
    """Raise `QuotaExceeded` if `needed` more bytes would exceed the scope's limit."""
    limit = read_limit(scope)
    if limit is None or not needed:
        return
    used = measure(scope, without=LIMIT_FILE).used_bytes
    if used + needed > limit:
        raise QuotaExceeded(
            f"{needed} bytes are needed, and {used} of the {limit} bytes that the quota allows are in use; "
            "make room or ask for a larger quota"
        )
