"""Zip archives, read so strictly that every reader must see the same members (APPNOTE.TXT 6.3.10).

Readers differ in where they look for the directory, whose name they believe (the directory's or the one before the content), what
they do with flags, checksums and doubled names. A payload hides in such differences, so each difference is an objection.
"""

# ruff: noqa: PLR2004 -- the numbers are the format's

import stat
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from storage_proxy.verifiers.streams import Broken, Budget

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 65_535
_LARGEST_DIRECTORY = 32 << 20
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _DESCRIPTOR, _UTF8 = 0x0001, 0x0008, 0x0800
_HARMLESS_FLAGS = (
    0x0002 | 0x0004 | _DESCRIPTOR | _UTF8
)  # compression options, sizes behind the content, names in UTF-8
_UNIX = 3
_ZIP64_EXTRA, _UNICODE_PATH_EXTRA = 0x0001, 0x7075


@dataclass(frozen=True)
class ZipMember:
    """One member: where its packed content lies and what the directory says of it, in bytes."""

    name: str
    method: int
    offset: int
    packed: int
    size: int
    crc: int
    mode: int

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder, which has no content."""
        return self.name.endswith("/") and not self.size


@dataclass
class ZipDirectory:
    """What an archive holds, and the objections: rule and message of each."""

    members: list[ZipMember] = field(default_factory=list)
    objections: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Rule, message, name of the member."""

    def object(self, rule: str, message: str, member: str | None = None) -> None:
        """Note an objection."""
        self.objections.append((rule, message, member))


@dataclass(frozen=True)
class _End:
    count: int
    size: int
    offset: int
    at: int
    """Where the directory has to end."""


def has_directory(stream: BinaryIO, size: int) -> bool:
    """Whether a zip reader that looks from the end would find an archive, whatever stands at the beginning."""
    tail_at = max(0, size - _END.size - _LONGEST_COMMENT)
    stream.seek(tail_at)
    tail = stream.read(size - tail_at)
    # Looking forward is ten times as fast, and nearly always finds nothing.
    at = tail.rfind(b"PK\x05\x06") if b"PK\x05\x06" in tail else -1
    while at >= 0:
        if at + _END.size <= len(tail):
            end = _END.unpack_from(tail, at)
            stream.seek(max(0, tail_at + at - end[5]))
            whole = at + _END.size + end[7] <= len(tail)
            if whole and (
                stream.read(4) == b"PK\x01\x02" or (tail[at - 20 : at - 16] == b"PK\x06\x07" and at >= 20)
            ):
                return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return False


def read_directory(stream: BinaryIO, size: int, budget: Budget) -> ZipDirectory:
    """Read the directory and each member's own header. Raises `Broken` where there is no directory to read."""
    found = ZipDirectory()
    end = _find_end(stream, size, found)
    if end.size > _LARGEST_DIRECTORY:
        raise Broken(f"the zip archive's directory is larger than {_LARGEST_DIRECTORY >> 20} MiB")
    budget.take_members(end.count)
    if end.offset + end.size != end.at:
        found.object("zip-prefix", "bytes stand before the archive or between its directory and its end")
    stream.seek(end.at - end.size if end.at >= end.size else 0)
    directory = stream.read(end.size)
    entries = _read_entries(directory, end, found)
    _check_names(entries, found)
    _read_local_headers(stream, entries, end, found, budget)
    return found


def _find_end(stream: BinaryIO, size: int, found: ZipDirectory) -> _End:
    tail_at = max(0, size - _END.size - _LONGEST_COMMENT)
    stream.seek(tail_at)
    tail = stream.read(size - tail_at)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0 and at + _END.size > len(tail):
        at = tail.rfind(b"PK\x05\x06", 0, at)
    if at < 0:
        raise Broken("the zip archive has no end record")
    _, disk, start_disk, here, count, length, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        found.object("zip-trailing", "the archive's end record is not at its end")
    if disk or start_disk or here != count:
        found.object("zip-disks", "the archive says that it has several disks")
    if b"PK\x05\x06" in tail[at + _END.size :] or b"PK\x01\x02" in tail[at + _END.size :]:
        found.object("zip-trailing", "the archive's comment holds archive records")
    directory_end = tail_at + at
    earlier = tail.find(b"PK\x05\x06")
    if earlier != at and tail_at + earlier >= offset + length and _FULL32 not in {length, offset}:
        found.object("zip-two-ends", "the archive has two end records")
    locator_at = directory_end - _END64_LOCATOR.size
    if locator_at >= 0:
        stream.seek(locator_at)
        signature, _, end64_at, _ = _END64_LOCATOR.unpack(stream.read(_END64_LOCATOR.size))
        if signature == b"PK\x06\x07":
            stated = {"count": count, "size": length, "offset": offset}
            return _read_end64(stream, end64_at, locator_at, stated, found)
    return _End(count, length, offset, directory_end)


def _read_end64(
    stream: BinaryIO, at: int, locator_at: int, stated: dict[str, int], found: ZipDirectory
) -> _End:
    stream.seek(min(at, locator_at))
    record = stream.read(_END64.size)
    if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
        raise Broken("the zip archive's zip64 end record is not where it should be")
    _, length, _, _, disk, start_disk, here, count, size, offset = _END64.unpack(record)
    if at + 12 + length != locator_at:
        found.object("zip-hidden", "bytes stand between the archive's two end records")
    if disk or start_disk or here != count:
        found.object("zip-disks", "the archive says that it has several disks")
    full = {"count": _FULL16, "size": _FULL32, "offset": _FULL32}
    for key, value in {"count": count, "size": size, "offset": offset}.items():
        if stated[key] not in {full[key], value}:
            found.object("zip-two-ends", f"the archive's two end records state different values ({key})")
    return _End(count, size, offset, at)


@dataclass(frozen=True)
class _Entry:
    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    at: int
    mode: int

    @property
    def shown(self) -> str:
        """The name as text: UTF-8 where it is that, else as old zip programs read it."""
        try:
            return self.name.decode()
        except UnicodeDecodeError:
            return self.name.decode("cp437")


def _read_entries(directory: bytes, end: _End, found: ZipDirectory) -> list[_Entry]:
    entries: list[_Entry] = []
    at = 0
    while (
        at < len(directory)
        and directory[at : at + 4] == b"PK\x01\x02"
        and at + _CENTRAL.size <= len(directory)
    ):
        fields = _CENTRAL.unpack_from(directory, at)
        _, made_by, _, flags, method, _, _, crc, packed, size = fields[:10]
        name_size, extra_size, comment_size, disk, _, external, local_at = fields[10:]
        at += _CENTRAL.size
        name = directory[at : at + name_size]
        extra = directory[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        wide = _Extra(extra)
        size, packed, local_at = wide.take(size), wide.take(packed), wide.take(local_at)
        mode = external >> 16 if made_by >> 8 == _UNIX or external >> 16 else 0
        entry = _Entry(name, flags, method, crc, packed, size, local_at, mode)
        if disk not in {0, _FULL16}:
            found.object("zip-disks", "the member lies on another disk", entry.shown)
        if wide.broken:
            found.object("zip-extra", "the member's extra field is broken", entry.shown)
        if wide.unicode_path not in {None, name}:
            found.object("zip-two-names", "the member has two names in the directory", entry.shown)
        entries.append(entry)
    if at != len(directory) or len(directory) != end.size or len(entries) != end.count:
        found.object("zip-directory", "the archive's directory is not what its end record says")
    return entries


class _Extra:
    """The extra field of one entry: wide numbers where the narrow ones are full, and a second name."""

    def __init__(self, data: bytes) -> None:
        self.broken = False
        self.unicode_path: bytes | None = None
        self._wide = b""
        seen_wide = False
        at = 0
        while at + 4 <= len(data):
            kind, length = struct.unpack_from("<2H", data, at)
            value = data[at + 4 : at + 4 + length]
            if len(value) < length:
                # Writers that align content leave less than a whole record; that is no record.
                self.broken |= kind in {_ZIP64_EXTRA, _UNICODE_PATH_EXTRA}
                return
            if kind == _ZIP64_EXTRA:
                self.broken |= seen_wide
                self._wide, seen_wide = value, True
            elif kind == _UNICODE_PATH_EXTRA and len(value) >= 5:
                self.unicode_path = value[5:]
            at += 4 + length

    def take(self, narrow: int) -> int:
        """Return the next wide number if the narrow one is full."""
        if narrow != _FULL32 or not self._wide:
            return narrow
        if len(self._wide) < 8:
            self.broken = True
            return narrow
        value = int.from_bytes(self._wide[:8], "little")
        self._wide = self._wide[8:]
        return value


def _check_names(entries: list[_Entry], found: ZipDirectory) -> None:
    seen: set[bytes] = set()
    for entry in entries:
        if entry.name in seen:
            found.object("zip-duplicate", "two members have this name", entry.shown)
        seen.add(entry.name)
        if entry.flags & ~_HARMLESS_FLAGS:
            what = "is encrypted" if entry.flags & _ENCRYPTED else "has flags that readers treat differently"
            found.object("zip-flags", f"the member {what}", entry.shown)
        if stat.S_IFMT(entry.mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            found.object("archive-link", "the member is a link or a device", entry.shown)
        if entry.method == STORED and entry.packed != entry.size:
            found.object("zip-sizes", "the member is stored and has two sizes", entry.shown)


def _read_local_headers(
    stream: BinaryIO, entries: list[_Entry], end: _End, found: ZipDirectory, budget: Budget
) -> None:
    """Compare what stands before each member's content with the directory, and see that the members fill the archive."""
    directory_at = end.at - end.size
    expected = 0
    for entry in sorted(entries, key=lambda entry: entry.at):
        budget.check_time()
        stream.seek(min(directory_at, entry.at))
        header = stream.read(_LOCAL.size)
        if entry.at >= directory_at or len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            found.object("zip-local-header", "no member begins where the directory says", entry.shown)
            continue
        fields = _LOCAL.unpack(header)
        name_size, extra_size = fields[9], fields[10]
        names = stream.read(name_size + extra_size)
        _compare(entry, fields, names[:name_size], _Extra(names[name_size:]), found)
        begin = entry.at + _LOCAL.size + name_size + extra_size
        if entry.at < expected or begin + entry.packed > directory_at:
            found.object("zip-overlap", "the member's bytes belong to something else too", entry.shown)
        elif entry.at > expected:
            found.object("zip-hidden", "bytes that no member owns stand before this one", entry.shown)
        expected = begin + entry.packed
        if (fields[2] | entry.flags) & _DESCRIPTOR:
            expected += _descriptor_size(stream, expected, entry)
        found.members.append(
            ZipMember(entry.shown, entry.method, begin, entry.packed, entry.size, entry.crc, entry.mode)
        )
    if expected < directory_at and not any(rule == "zip-overlap" for rule, _, _ in found.objections):
        found.object("zip-hidden", "bytes that no member owns stand before the archive's directory")


def _compare(entry: _Entry, fields: tuple[int, ...], name: bytes, extra: _Extra, found: ZipDirectory) -> None:
    _, _, flags, method, _, _, crc, packed, size = fields[:9]
    size, packed = extra.take(size), extra.take(packed)
    if name != entry.name or extra.unicode_path not in {None, name}:
        found.object("zip-two-names", "the member has another name before its content", entry.shown)
    if method != entry.method or (flags ^ entry.flags) & ~_HARMLESS_FLAGS or flags & ~_HARMLESS_FLAGS:
        found.object("zip-two-headers", "the member's two headers differ in method or flags", entry.shown)
    allowed = (0, _FULL32) if flags & _DESCRIPTOR else ()
    if (
        packed not in {entry.packed, *allowed}
        or size not in {entry.size, *allowed}
        or (crc != entry.crc and not (flags & _DESCRIPTOR and crc == 0))
    ):
        found.object("zip-two-headers", "the member's two headers differ in size or checksum", entry.shown)


def _descriptor_size(stream: BinaryIO, at: int, entry: _Entry) -> int:
    """Return the size of the data descriptor at `at`, with or without its signature, narrow or wide; 0 if there is none."""
    stream.seek(at)
    data = stream.read(24)
    for signature in (b"PK\x07\x08", b""):
        for form in ("<LQQ", "<LLL"):
            size = len(signature) + struct.calcsize(form)
            if len(data) >= size and data.startswith(signature):
                values = struct.unpack_from(form, data, len(signature))
                if values == (entry.crc, entry.packed, entry.size):
                    return size
    return 0
