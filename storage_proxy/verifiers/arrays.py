"""NumPy arrays: a header, then numbers, or with Python objects in it a pickle (numpy.lib.format)."""

# ruff: noqa: PLR2004 -- the numbers are the format's

import ast
import math
import re
from typing import Any

from storage_proxy.verifiers.examination import Content
from storage_proxy.verifiers.streams import Broken

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 16
_PLAIN_TYPE = re.compile(r"[<>=|]?([?bhilqpBHILQPefdgFDGSUVaMmcnN])(\d*)(\[[^\]]{1,40}\])?")
_WIDE_CHARACTER = 4
_PIECE = 1 << 20
_NO_WIDTH = {"?": 1, "b": 1, "B": 1, "c": 1}


def examine_arrays(content: Content) -> Content | None:
    """Check the array, and those that follow it; return the pickle behind the header of the first that holds Python objects.

    Raises `Broken` where a header cannot be read or the numbers are cut short.
    """
    at, size = 0, content.size
    while at < size:
        content.budget.check_time()
        start = content.read_at(at, 12)
        if not start:
            raise Broken("the array is cut short")
        if not start.startswith(MAGIC):
            content.block("npy-trailing", "format", "bytes follow the array")
            return None
        begin, header = _header(content, at, start)
        width, items = _described(header)
        if width is None:
            _refuse_more(content, begin)
            return content.part(begin, size - begin)
        at = begin + width * items
        if at > size:
            raise Broken("the array is cut short")
    return None


def _header(content: Content, at: int, start: bytes) -> tuple[int, bytes]:
    """Return where the numbers begin, and the text that describes them."""
    if len(start) < 12 or start[6] not in {1, 2, 3}:
        raise Broken("the array's header cannot be read")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(start[8 : 8 + width], "little")
    if length > _LONGEST_HEADER:
        raise Broken("the array's header is longer than 64 KiB")
    header = content.read_at(at + 8 + width, length)
    if len(header) < length:
        raise Broken("the array's header is cut short")
    return at + 8 + width + length, header


def _refuse_more(content: Content, at: int) -> None:
    """Leave a gap where arrays follow one of Python objects: where its pickle ends is not known here."""
    while piece := content.read_at(at, _PIECE + len(MAGIC)):
        content.budget.check_time()
        if MAGIC in piece:
            content.gap("arrays follow one of Python objects")
            return
        at += _PIECE


def _described(header: bytes) -> tuple[int | None, int]:
    """Return bytes of an item (None: Python objects) and the count of items."""
    try:
        value = ast.literal_eval(header.decode("latin-1").strip())
        shape, descr = value["shape"], value["descr"]
        items = math.prod(shape)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError, OverflowError) as exc:
        raise Broken("the array's header cannot be read") from exc
    if not (isinstance(shape, tuple) and all(isinstance(length, int) and length >= 0 for length in shape)):
        raise Broken("the array's header has a wrong shape")
    return _width(descr), items


def _width(descr: Any) -> int | None:
    """Return the bytes of one item; None where it holds Python objects or anything that is not plainly a number."""
    if isinstance(descr, str):
        if not (match := _PLAIN_TYPE.fullmatch(descr)):
            return None
        if match[1] in _NO_WIDTH and not match[2]:
            return _NO_WIDTH[match[1]]
        if not match[2]:
            return None
        return int(match[2]) * (_WIDE_CHARACTER if match[1] == "U" else 1)
    if isinstance(descr, list):
        total = 0
        for item in descr:
            if not isinstance(item, tuple) or len(item) not in {2, 3}:
                return None
            width = _width(item[1])
            shape = item[2] if len(item) == 3 else ()
            if width is None or not isinstance(shape, tuple | int):
                return None
            lengths = (shape,) if isinstance(shape, int) else shape
            if not all(isinstance(length, int) and length >= 0 for length in lengths):
                return None
            total += width * math.prod(lengths)
        return total
    return None
