"""Room and quota: what a place holds, what it may hold, and whether more fits.

A place is a folder with a staging area in it: a quota scope, or a VFS artifact storage. An import keeps the room that it
needs in its own staging area, so that of two that do not fit together the later one is refused; the room is free again
when that area goes, however the import ends.
"""

import fcntl
import math
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy_client.errors import DiskFull, QuotaExceeded, StorageFailure
from storage_proxy.storages.base import STAGING_FOLDER
from storage_proxy.volumes import fsio
from storage_proxy.volumes.area import PARTS

LIMIT_FILE = ".quota.json"
_RESERVATION = "reserved.json"
_LARGEST_SMALL_FILE = 4096  # bytes
_OF_AN_IMPORT = re.compile(rf"{re.escape(STAGING_FOLDER)}/([0-9a-f-]{{36}})/(?:[^/]+$|([^/]+/))")


class Usage(NamedTuple):
    """What regular files below a folder sum up to; one with several names counts once."""

    used_bytes: int
    file_count: int


class _Limit(BaseModel):
    model_config = ConfigDict(extra="ignore")

    limit_bytes: int | None = None


class _Reservation(BaseModel):
    """`reserved.json` in a staging area: how large its files will be together, and since when that is promised."""

    model_config = ConfigDict(extra="ignore")

    bytes: int
    since: float


def measure(root: int, *, without: str | None = None) -> Usage:
    """Sum up everything below an open folder; `without` is a file that does not count."""
    sizes = [size for _, size in _files(root, without)]
    return Usage(sum(sizes), len(sizes))


def _files(root: int, without: str | None) -> Iterator[tuple[str, int]]:
    linked: set[tuple[int, int]] = set()
    for path, found in fsio.walk(root):
        if not stat.S_ISREG(found.st_mode) or path == without:
            continue
        if found.st_nlink > 1:
            if (found.st_dev, found.st_ino) in linked:
                continue
            linked.add((found.st_dev, found.st_ino))
        yield path, found.st_size


def read_limit(scope: int) -> int | None:
    """Return the limit kept in a quota scope's open folder, in bytes; None is unlimited."""
    text = fsio.read_small(scope, LIMIT_FILE, _LARGEST_SMALL_FILE)
    try:
        return None if text is None else _Limit.model_validate_json(text).limit_bytes
    except ValidationError as exc:
        raise StorageFailure("the quota scope's limit is damaged; set it again") from exc


def write_limit(scope: int, limit_bytes: int | None) -> None:
    """Keep the limit, durably and atomically."""
    text = _Limit(limit_bytes=limit_bytes).model_dump_json().encode()
    fsio.write_file(scope, LIMIT_FILE, text, fsio.PRIVATE)


def used_bytes(place: int) -> int:
    """Sum up what a limit counts, staged files included."""
    return _Held.look(place).used


def insist_on_space(root: int, needed: int) -> None:
    """Raise `DiskFull` if the file system has less than `needed` bytes for us. One that tells no size has room."""
    state = os.fstatvfs(root)
    free = state.f_bavail * state.f_frsize
    if state.f_blocks and needed > free:
        raise DiskFull(
            f"{needed} bytes are needed and {free} are free on the file system; make room and import again"
        )


def reserve(place: int, task_id: UUID | None, needed: int, limit: int | None, what: str) -> None:
    """Keep room for `needed` bytes more in an import's staging area. Raises `QuotaExceeded` if the limit leaves none.

    May be repeated, and then keeps what is needed from now on. What other imports were promised before is not given
    away. Without `task_id` nothing is kept. `what` names the limit in messages.
    """
    if limit is None:
        return
    with _alone(place):
        held = _Held.look(place)
        mine = held.reservations.get(str(task_id))
        staged = held.staged[str(task_id)] - held.partial[str(task_id)]
        others = held.total(before=math.inf if mine is None else mine.since, without=str(task_id))
        if needed and others + staged + needed > limit:
            raise QuotaExceeded(
                f"{needed} bytes are needed, and {others + staged} of the {limit} bytes that {what} allows are in use or "
                "kept for other imports; make room, wait for imports that run, or ask for a larger quota"
            )
        if task_id is None:
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            since = time.time() if mine is None else mine.since
            text = _Reservation(bytes=staged + needed, since=since).model_dump_json().encode()
            fsio.write_file(place, _reservation(str(task_id)), text, fsio.PRIVATE)


def insist_on_limit(place: int, task_id: UUID, limit: int | None, what: str) -> None:
    """Raise `QuotaExceeded` if what lies here, and what is kept for this import and for older ones, is above the limit."""
    if limit is None:
        return
    held = _Held.look(place)
    mine = held.reservations.get(str(task_id))
    used = held.total(before=math.inf if mine is None else mine.since)
    if used > limit:
        raise QuotaExceeded(
            f"{used} bytes are in use or kept for this import and for older ones, and {what} allows {limit} by now; make "
            "room or ask for a larger quota"
        )


class _Held(NamedTuple):
    """What lies in a place, by its staging areas; `visible` is all that lies in none.

    `partial` is what of `staged` are beginnings of files, which are needed in full.
    """

    visible: int
    staged: Counter[str]
    partial: Counter[str]
    reservations: dict[str, _Reservation]

    @classmethod
    def look(cls, place: int) -> "_Held":
        visible, staged, partial = 0, Counter[str](), Counter[str]()
        areas = set()
        for path, size in _files(place, LIMIT_FILE):
            if (inside := _OF_AN_IMPORT.match(path)) is None:
                visible += size
                continue
            area, within = inside.groups()
            areas.add(area)
            # What lies at the top of an area is Stowage's own note of the import, no file of a model.
            staged[area] += size if within else 0
            partial[area] += size if within == f"{PARTS}/" else 0
        found = ((area, _read_reservation(place, area)) for area in areas)
        kept = {area: reservation for area, reservation in found if reservation is not None}
        return cls(visible, staged, partial, kept)

    @property
    def used(self) -> int:
        """What is there, without what was promised."""
        return self.visible + self.staged.total()

    def total(self, *, before: float, without: str | None = None) -> int:
        """Sum up what is there, what staged files will grow to that were promised room until then, and no later ones."""
        sizes = self.visible
        for area in self.staged.keys() - {without}:
            kept = self.reservations.get(area)
            if kept is None:
                sizes += self.staged[area]
            elif kept.since <= before:
                sizes += max(self.staged[area], kept.bytes)
        return sizes


def _reservation(area: str) -> str:
    return f"{STAGING_FOLDER}/{area}/{_RESERVATION}"


def _read_reservation(place: int, area: str) -> _Reservation | None:
    text = fsio.read_small(place, _reservation(area), _LARGEST_SMALL_FILE)
    with suppress(ValidationError):  # a promise that cannot be read is made anew
        return None if text is None else _Reservation.model_validate_json(text)
    return None


@contextmanager
def _alone(place: int) -> Iterator[None]:
    """Look and reserve one after the other, over all workers of this machine, where the file system locks folders."""
    with fsio.opened(place, "") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
