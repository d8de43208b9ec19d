"""What a staging area knows of its bytes: JSON lines, appended as facts become true, never rewritten.

    {"part": path, "boot": id, "fills": [[n, bytes], ...]}     so much of these pieces is written
    {"part": path, "fills": [[n, bytes], ...]}                 so much of these pieces is durable
    {"restart": path}                                          nothing of a partial file counts any more
    {"file": path, "identity": [...], "digests": [...]}        a file is finished
    {"seen": path, "identity": [...], "digests": [...]}        a file at the destination was read
    {"drop": path}                                             neither finished nor partial any more

What is written but not durable yet outlives a process, not the machine: such a line counts for the boot of the kernel
that its bytes were given to. `identity` is inode, size and mtime_ns (of a seen file also ctime_ns), `digests` is size, sha256 and blob id or null.
"""

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from storage_proxy.storages.base import Digests
from storage_proxy.volumes import fsio

JOURNAL = "journal"


@cache
def boot_id() -> str:
    """Tell this boot of this machine's kernel from every other one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Journal:
    """The journal of one staging area, held in memory as far as it was read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_to = 0
        self._fills: dict[str, dict[int, int]] = {}
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
                if entry.get("boot", boot_id()) == boot_id():
                    fills = self._fills.setdefault(entry["part"], {})
                    for piece, size in entry["fills"]:
                        # A sync in the background may tell later what was there earlier.
                        fills[int(piece)] = max(int(size), fills.get(int(piece), 0))
            elif "restart" in entry:
                self._fills.pop(entry["restart"], None)
            elif "file" in entry:
                self._files[entry["file"]] = _fact(entry)
                self._fills.pop(entry["file"], None)
            elif "seen" in entry:
                self._seen[entry["seen"]] = _fact(entry)
            elif "drop" in entry:
                self._fills.pop(entry["drop"], None)
                self._files.pop(entry["drop"], None)
        except (ValueError, TypeError, KeyError):
            return

    def fills(self, path: str) -> dict[int, int]:
        """Return how many bytes of each piece of a partial file are there, from the piece's start on."""
        return dict(self._fills.get(path, {}))

    def finished(self, path: str, identity: fsio.Identity) -> Digests | None:
        """Return the digests of a finished file if it is still the one that they were recorded for."""
        known, digests = self._files.get(path, ((), None))
        return digests if known == tuple(identity) else None

    def seen(self, path: str, found: os.stat_result) -> Digests | None:
        """Return the digests of a file at the destination if it was read before and has not changed since."""
        known, digests = self._seen.get(path, ((), None))
        return digests if known == _seen_as(found) else None

    def record_fills(self, area: int, path: str, fills: Mapping[int, int], *, durable: bool) -> None:
        """Say how much of some pieces is there. `durable`: on the disk, and so is the line when this returns."""
        entry: dict[str, Any] = {"part": path, "fills": sorted(fills.items())}
        if not durable:
            entry["boot"] = boot_id()
        self._append(area, [entry], durable=durable)

    def record_restart(self, area: int, path: str) -> None:
        """Say that nothing of a partial file counts any more."""
        self._append(area, [{"restart": path}], durable=True)

    def record_finished(self, area: int, files: Iterable[tuple[str, fsio.Identity, Digests]]) -> None:
        """Say that files are finished. Lost in a power cut, this is found out again by reading them."""
        entries = [{"file": path, **_as_json(tuple(identity), digests)} for path, identity, digests in files]
        self._append(area, entries, durable=False)

    def record_seen(self, area: int, path: str, found: os.stat_result, digests: Digests) -> None:
        """Say what a file at the destination hashes to."""
        self._append(area, [{"seen": path, **_as_json(_seen_as(found), digests)}], durable=False)

    def record_drop(self, area: int, path: str) -> None:
        """Say that nothing of a file is there any more."""
        self._append(area, [{"drop": path}], durable=True)

    def _append(self, area: int, entries: Sequence[dict[str, Any]], *, durable: bool) -> None:
        # The line break in front ends a line that a crash left torn.
        lines = [json.dumps(entry, separators=(",", ":")).encode() for entry in entries]
        text = b"\n" + b"\n".join(lines) + b"\n"
        size = fsio.append(area, JOURNAL, text, durable=durable)
        with self._lock:
            # Nobody else appended meanwhile: there is nothing to read.
            if size == self._read_to + len(text):
                self._read_to = size
                for line in lines:
                    self._apply(line)
                return
        self.refresh(area)


def _seen_as(found: os.stat_result) -> tuple[int, ...]:
    return (*fsio.Identity.of(found), found.st_ctime_ns)


def _as_json(identity: tuple[int, ...], digests: Digests) -> dict[str, Any]:
    return {"identity": identity, "digests": [digests.size, digests.sha256, digests.blob_id]}


def _fact(entry: dict[str, Any]) -> tuple[tuple[int, ...], Digests]:
    size, sha256, blob_id = entry["digests"]
    return tuple(map(int, entry["identity"])), Digests(int(size), str(sha256), blob_id and str(blob_id))
