"""A reader of protocol buffers without a schema: fields from front to back, contents skipped and not read (protobuf.dev, Encoding)."""

from collections.abc import Iterator
from dataclasses import dataclass

from storage_proxy.verifiers.examination import Content
from storage_proxy.verifiers.streams import Broken

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_MOST_FIELDS = 20_000_000
_CHUNK = 1 << 14


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its number, its wire type, and its content (`begin` to `end` in the file) or its value where it is a VARINT."""

    number: int
    type: int
    begin: int
    end: int
    value: int = 0


class Message:
    """The fields of messages in one file. Raises `Broken` where the bytes are no message."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.size = content.size
        self._chunk = b""
        self._chunk_at = 0
        self._left = _MOST_FIELDS

    def fields(self, begin: int = 0, end: int | None = None) -> Iterator[Field]:
        """Yield the fields of the message between `begin` and `end` (the whole file), in their order."""
        at, stop = begin, self.size if end is None else end
        while at < stop:
            tag, at = self._varint(at, stop)
            number, wire = tag >> 3, tag & 7
            value = 0
            if wire == VARINT:
                value, content_end = self._varint(at, stop)
            elif wire == LENGTH:
                length, at = self._varint(at, stop)
                content_end = at + length
            elif wire in {FIXED64, FIXED32}:
                content_end = at + (8 if wire == FIXED64 else 4)
            else:
                raise Broken("a protocol buffer with a wire type that is not known")
            if content_end > stop or not number:
                raise Broken("a protocol buffer whose lengths do not fit")
            yield Field(number, wire, at, content_end, value)
            at = content_end

    def text(self, field: Field, longest: int = 1 << 16) -> str:
        """Return a field's content as text. Raises `Broken` where it is longer than `longest` bytes."""
        if field.type != LENGTH or field.end - field.begin > longest:
            raise Broken("a protocol buffer with a name that is too long")
        return self.bytes(field).decode("utf-8", "replace")

    def bytes(self, field: Field) -> bytes:
        """Return a field's content; the caller has looked at its length."""
        return self._content.read_at(field.begin, field.end - field.begin)

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        """Return the number at `at` and where it ends."""
        self._left -= 1
        begin = at - self._chunk_at
        if begin < 0 or begin + _LONGEST_VARINT > len(self._chunk):
            if self._left < 0:
                raise Broken("a protocol buffer with more fields than the limit")
            self._content.budget.check_time()
            self._chunk, self._chunk_at, begin = self._content.read_at(at, _CHUNK), at, 0
        value = 0
        for index in range(min(_LONGEST_VARINT, stop - at, len(self._chunk) - begin)):
            byte = self._chunk[begin + index]
            value |= (byte & 0x7F) << (7 * index)
            if not byte & 0x80:
                return value, at + index + 1
        raise Broken("a protocol buffer with a broken number")
