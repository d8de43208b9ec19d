"""Tar archives: ustar, pax and GNU, read strictly from front to back. Whatever two readers could read differently is refused."""

# ruff: noqa: PLR2004 -- the numbers are the format's

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage_proxy.verifiers.streams import Broken, Budget

BLOCK = 512
_LONGEST_EXTENSION = 1 << 20
_CHUNK = 1 << 16
_CHECKSUM = slice(148, 156)


@dataclass(frozen=True)
class TarMember:
    """One member: `offset` and `size` of its content in bytes; `type` as in the header (`0` or NUL is a file)."""

    name: str
    type: str
    offset: int
    size: int
    link: str = ""


class Ambiguous(Exception):
    """Two readers could see different members here."""


def is_header(block: bytes) -> bool:
    """Whether this block is a member's header: its checksum is right, and it is not all zero."""
    if len(block) != BLOCK:
        return False
    try:
        stated = _number(block[_CHECKSUM])
    except Broken:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return stated in {sum(rest), sum(byte - 256 if byte > 127 else byte for byte in rest)}


def members(stream: BinaryIO, budget: Budget) -> Iterator[TarMember]:
    """Yield the members in their order. The position of the stream may be changed in between.

    Raises `Broken` where the archive is cut or damaged, `Ambiguous` where it holds something behind its end or
    headers that readers take differently.
    """
    offset = content_end = 0
    extended: dict[str, str] = {}
    while True:
        budget.check_time()
        header = _read(stream, offset, BLOCK)
        if not header or not header.strip(b"\0"):
            if content_end and not _read(stream, content_end - 1, 1):
                raise Broken("the tar archive ends too early")
            _check_end(stream, offset + len(header), budget)
            if extended:
                raise Ambiguous("an extension header belongs to no member")
            return
        if not is_header(header):
            raise Broken("the tar archive is broken: a header with a wrong checksum")
        budget.take_members(1)
        kind = chr(header[156])
        size = _number(header[124:136])
        offset += BLOCK
        if kind in "xgLK":
            _read_extension(kind, _extension(stream, offset, size), extended)
        else:
            name = extended.get("path", _header_name(header))
            size = int(extended.get("size", size))
            link = extended.get("linkpath", _text(header[157:257]))
            extended = {}
            if kind in "123456" and size:
                if kind != "1":
                    raise Ambiguous("a member that is no file has content")
                size = 0
            content_end = offset + size
            yield TarMember(name, "0" if kind == "\0" else kind, offset, size, link)
        offset += -(-size // BLOCK) * BLOCK


def _check_end(stream: BinaryIO, offset: int, budget: Budget) -> None:
    """Insist that nothing but zeros follows the first block of zeros: some readers go on behind it."""
    stream.seek(offset)
    while chunk := stream.read(_CHUNK):
        budget.check_time()
        if chunk.strip(b"\0"):
            raise Ambiguous("bytes follow the end of the tar archive")


def _extension(stream: BinaryIO, offset: int, size: int) -> bytes:
    if size > _LONGEST_EXTENSION:
        raise Broken("the tar archive has an extension header of more than 1 MiB")
    if len(data := _read(stream, offset, size)) < size:
        raise Broken("the tar archive ends too early")
    return data


def _read_extension(kind: str, data: bytes, extended: dict[str, str]) -> None:
    """Take the names and sizes that an extension header gives to the next member."""
    if kind in "LK":
        key = "path" if kind == "L" else "linkpath"
        if key in extended:
            raise Ambiguous("a member has two long names")
        extended[key] = _text(data)
        return
    for key, value in _pax_records(data):
        if key.startswith("GNU.sparse") or key == "hdrcharset":
            raise Broken(f"the tar archive uses {key}, which is not examined")
        if key in {"path", "linkpath", "size"}:
            if kind == "g":
                raise Ambiguous(f"a global header sets {key}")
            if key in extended:
                raise Ambiguous(f"two headers set {key}")
            if key == "size" and not (value.isascii() and value.isdigit() and len(value) <= 18):
                raise Broken("the tar archive states a size that is no number")
            extended[key] = value


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield keyword and value of each record: length, keyword, `=`, value, line feed (POSIX.1-2001, pax Extended Header)."""
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 20].partition(b" ")
        if not data[at:].strip(b"\0"):
            return
        if not space or not digits.isdigit():
            raise Broken("the tar archive has a broken extension header")
        end = at + int(digits)
        record = data[at + len(digits) + 1 : end]
        keyword, equals, value = record[:-1].partition(b"=")
        if not record.endswith(b"\n") or not equals or end > len(data):
            raise Broken("the tar archive has a broken extension header")
        yield keyword.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        at = end


def _header_name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """Read an octal number, or GNU's binary one for large values."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not all(byte in b"01234567" for byte in digits):
        raise Broken("the tar archive has a header with a wrong number")
    return int(digits, 8)


def _read(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    data = stream.read(size)
    if data and len(data) < size:
        raise Broken("the tar archive ends too early")
    return data
