"""GGUF files: header, metadata and tensor table, each number held against the size of the file (ggml's docs/gguf.md)."""

import struct
from collections.abc import Iterator

from storage_proxy.verifiers.examination import Content
from storage_proxy.verifiers.streams import Broken
from storage_proxy.verifiers.templates import examine_template, looks_like_template

_VERSIONS = frozenset({1, 2, 3})
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by its type; strings (8) and arrays (9) have their own length."""
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_LONGEST_KEY = 65_535
_LONGEST_TEMPLATE = 1 << 20
_MOST_DIMENSIONS = 4
_DEEPEST_ARRAY = 4
_LARGEST_COUNT = (1 << 63) - 1
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""Elements and bytes of a block of each tensor type that ggml has; of others only the beginning is checked."""


class _Wrong(Exception):
    """A number that cannot be right: a rule and a sentence."""


class _Cursor:
    """Reads numbers and strings from front to back and never past the end."""

    def __init__(self, content: Content, size: int) -> None:
        self._content = content
        self._size = size
        self._chunk = b""
        self._chunk_at = 0
        self.at = 0
        self.order = "<"
        self.version = 3

    def take(self, size: int) -> bytes:
        if size > self._size - self.at:
            raise _Wrong("it states more bytes than the file has")
        begin = self.at - self._chunk_at
        if begin < 0 or begin + size > len(self._chunk):
            self._content.budget.check_time()
            self._chunk = self._content.read_at(self.at, max(size, 1 << 16))
            self._chunk_at, begin = self.at, 0
            if len(self._chunk) < size:
                raise _Wrong("it states more bytes than the file has")
        self.at += size
        return self._chunk[begin : begin + size]

    def skip(self, size: int) -> None:
        if size > self._size - self.at:
            raise _Wrong("it states more bytes than the file has")
        self.at += size

    def number(self, form: str) -> int:
        value: int = struct.unpack(self.order + form, self.take(struct.calcsize(f"={form}")))[0]
        return value

    def count(self, least: int) -> int:
        """Read a count of things of at least `least` bytes each, which must have room in the file."""
        value = self.number("I" if self.version == 1 else "Q")
        if value * least > self._size - self.at:
            raise _Wrong(f"it states {value} entries, more than the file has room for")
        return value

    def text(self, longest: int) -> str | None:
        """Read a string; None where it is longer than `longest` bytes (it is skipped)."""
        length = self.count(1)
        if length > longest:
            self.skip(length)
            return None
        return self.take(length).decode("utf-8", "replace")


def examine_gguf(content: Content) -> None:
    """Check every count, length and offset, and the chat templates in the metadata. Reads no tensor."""
    size = content.size
    cursor = _Cursor(content, size)
    try:
        alignment = _examine_header(cursor, content)
        _examine_tensors(cursor, size, alignment)
    except _Wrong as exc:
        content.block("gguf-counts", "format", f"the GGUF header is wrong: {exc}")
    except struct.error as exc:
        raise Broken("the GGUF header cannot be read") from exc


def _examine_header(cursor: _Cursor, content: Content) -> tuple[int, int]:
    """Read up to the tensor table; return the count of tensors and the alignment of their data."""
    magic = cursor.take(4)
    version = cursor.number("I")
    if magic == b"FUGG" or version not in _VERSIONS:
        cursor.order = ">"
        cursor.at = 4
        version = cursor.number("I")
    if magic not in {b"GGUF", b"FUGG"} or version not in _VERSIONS:
        raise Broken("the GGUF file has a version that is not known")
    cursor.version = version
    tensors = cursor.count(16)
    keys: set[str] = set()
    alignment = 32
    for _ in range(cursor.count(9)):
        key = cursor.text(_LONGEST_KEY)
        if key is None or key in keys:
            raise _Wrong("a metadata key is too long or comes twice")
        keys.add(key)
        kind = cursor.number("I")
        if key == "general.alignment":
            alignment = cursor.number("I") if kind == _UINT32 else 0
            if alignment <= 0 or alignment & (alignment - 1):
                raise _Wrong("general.alignment is no power of two")
        elif kind == _STRING:
            _examine_text(key, cursor.text(_LONGEST_TEMPLATE), content)
        else:
            _skip_value(cursor, kind, key, content)
    return tensors, alignment


def _skip_value(cursor: _Cursor, kind: int, key: str, content: Content, depth: int = 0) -> None:
    if kind in _WIDTHS:
        cursor.skip(_WIDTHS[kind])
    elif kind == _ARRAY and depth < _DEEPEST_ARRAY:
        inner = cursor.number("I")
        if inner in _WIDTHS:
            cursor.skip(cursor.count(_WIDTHS[inner]) * _WIDTHS[inner])
            return
        for _ in range(cursor.count(4 if cursor.version == 1 else 8)):
            if inner == _STRING and "template" in key:
                _examine_text(key, cursor.text(_LONGEST_TEMPLATE), content)
            elif inner == _STRING:
                cursor.skip(cursor.count(1))
            else:
                _skip_value(cursor, inner, key, content, depth + 1)
    else:
        raise _Wrong("a metadata value has a type that is not known")


def _examine_text(key: str, text: str | None, content: Content) -> None:
    is_template = "template" in key
    if text is None:
        if is_template:
            raise Broken(f"{key} is too long to be examined")
    elif is_template or looks_like_template(text):
        examine_template(text, content, key)


def _examine_tensors(cursor: _Cursor, size: int, header: tuple[int, int]) -> None:
    """Read the tensor table: every tensor lies in the data, aligned, none over another."""
    count, alignment = header
    extents: list[tuple[int, int]] = []
    names: set[str] = set()
    for name, begin, length in _tensors(cursor, count):
        if name in names:
            raise _Wrong("two tensors have one name")
        names.add(name)
        if begin % alignment:
            raise _Wrong("a tensor is not aligned")
        extents.append((begin, begin + length))
    data_size = size - -(-cursor.at // alignment) * alignment
    extents.sort()
    behind = 0
    for begin, end in extents:
        if end > data_size:
            raise _Wrong("a tensor reaches beyond the end of the file")
        if begin < behind:
            raise _Wrong("two tensors overlap")
        behind = end


def _tensors(cursor: _Cursor, count: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset in the data and size in bytes (0 where the type is not known) of each tensor."""
    for _ in range(count):
        name = cursor.text(_LONGEST_KEY)
        dimensions = cursor.number("I")
        if name is None or dimensions > _MOST_DIMENSIONS:
            raise _Wrong("a tensor has too long a name or too many dimensions")
        elements = 1
        shape = [cursor.number("I" if cursor.version == 1 else "Q") for _ in range(dimensions)]
        for length in shape:
            elements *= length
        kind, offset = cursor.number("I"), cursor.number("Q")
        if max(elements, offset) > _LARGEST_COUNT:
            raise _Wrong("a tensor has a size that no machine can count")
        per_block, block_bytes = _BLOCKS.get(kind, (1, 0))
        if block_bytes and shape and shape[0] % per_block:
            raise _Wrong("a tensor's rows are no whole blocks")
        yield name, offset, elements // per_block * block_bytes
