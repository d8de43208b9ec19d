"""What a staging area knows of its bytes: JSON lines, appended as facts become durable, never rewritten.

    {"part": path, "offset": n}                                a partial file is durable up to n
    {"file": path, "identity": [...], "digests": [...]}        a file is finished
    {"seen": path, "identity": [...], "digests": [...]}        a file at the destination was read
    {"drop": path}                                             neither finished nor partial any more

`identity` is inode, size and mtime_ns (of a seen file also ctime_ns), `digests` is size, sha256 and blob id.
"""

import json
import os
import threading
from typing import Any

from storage_proxy.storages.base import Digests
from storage_proxy.volumes import fsio

JOURNAL = "journal"


class Journal:
    """The journal of one staging area, held in memory as far as it was read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_to = 0
        self._offsets: dict[str, int] = {}
        self._files: dict[str, tuple[tuple[int, ...], Digests]] = {}
        self._seen: dict[str, tuple[tuple[int, ...], Digests]] = {}

    def refresh(self, area: int) -> None:
        """Read what was appended since, by whomever."""
        with self._lock:
            try:
                fd = fsio.open_regular(area, JOURNAL)
            except FileNotFoundError:
                return
            try:
                rest = os.fstat(fd).st_size - self._read_to
                data = os.pread(fd, rest, self._read_to) if rest > 0 else b""
            finally:
                os.close(fd)
            whole = data[: data.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for line in whole.splitlines():
                self._apply(line)

    def _apply(self, line: bytes) -> None:
        # A line that a crash tore, or that a power cut filled with zeros, says nothing.
        try:
            entry = json.loads(line)
            if "part" in entry:
                self._offsets[entry["part"]] = int(entry["offset"])
            elif "file" in entry:
                self._files[entry["file"]] = _fact(entry)
                self._offsets.pop(entry["file"], None)
            elif "seen" in entry:
                self._seen[entry["seen"]] = _fact(entry)
            elif "drop" in entry:
                self._offsets.pop(entry["drop"], None)
                self._files.pop(entry["drop"], None)
        except (ValueError, TypeError, KeyError):
            return

    def offset(self, path: str) -> int:
        """Return up to where a partial file is durable."""
        return self._offsets.get(path, 0)

    def finished(self, path: str, identity: fsio.Identity) -> Digests | None:
        """Return the digests of a finished file if it is still the one that they were recorded for."""
        known, digests = self._files.get(path, ((), None))
        return digests if known == tuple(identity) else None

    def seen(self, path: str, found: os.stat_result) -> Digests | None:
        """Return the digests of a file at the destination if it was read before and has not changed since."""
        known, digests = self._seen.get(path, ((), None))
        return digests if known == _seen_as(found) else None

    def record_offset(self, area: int, path: str, offset: int) -> None:
        """Say that a partial file is durable up to `offset`; durable itself when it returns."""
        self._append(area, {"part": path, "offset": offset}, durable=True)

    def record_finished(self, area: int, path: str, identity: fsio.Identity, digests: Digests) -> None:
        """Say that a file is finished. Lost in a power cut, this is found out again by reading the file."""
        self._append(area, {"file": path, **_as_json(tuple(identity), digests)}, durable=False)

    def record_seen(self, area: int, path: str, found: os.stat_result, digests: Digests) -> None:
        """Say what a file at the destination hashes to."""
        self._append(area, {"seen": path, **_as_json(_seen_as(found), digests)}, durable=False)

    def record_drop(self, area: int, path: str) -> None:
        """Say that nothing of a file is there any more."""
        self._append(area, {"drop": path}, durable=True)

    def _append(self, area: int, entry: dict[str, Any], *, durable: bool) -> None:
        # The line break in front ends a line that a crash left torn.
        line = b"\n" + json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        fsio.append(area, JOURNAL, line, durable=durable)
        self.refresh(area)


def _seen_as(found: os.stat_result) -> tuple[int, ...]:
    return (*fsio.Identity.of(found), found.st_ctime_ns)


def _as_json(identity: tuple[int, ...], digests: Digests) -> dict[str, Any]:
    return {"identity": identity, "digests": [digests.size, digests.sha256, digests.blob_id]}


def _fact(entry: dict[str, Any]) -> tuple[tuple[int, ...], Digests]:
    size, sha256, blob_id = entry["digests"]
    return tuple(map(int, entry["identity"])), Digests(int(size), str(sha256), str(blob_id))
