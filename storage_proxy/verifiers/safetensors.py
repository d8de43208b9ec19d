"""A safetensors file is nothing but a header and the tensors that it describes, end to end.

The format: https://github.com/huggingface/safetensors#format. Only the header is read; alignment is advice there, no rule.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from proxy_client.wire import Finding
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier, Severity, plain
from storage_proxy.verifiers.policy import Policy

LARGEST_HEADER = 100_000_000
"""Bytes, as in the reference implementation."""
_LENGTH = 8
_LARGEST_NUMBER = 2**64 - 1
_METADATA = "__metadata__"
_KEYS = frozenset({"dtype", "shape", "data_offsets"})
_NO_JSON = "safetensors-json"
_BITS = {
    "F4": 4,
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"], 8),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 16),
    **dict.fromkeys(["I32", "U32", "F32"], 32),
    **dict.fromkeys(["I64", "U64", "F64", "C64"], 64),
}


class SafetensorsVerifier(SandboxedVerifier):
    """Checks the header of every file that is named .safetensors or begins like one."""

    name = "safetensors"
    version = "1"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002 -- the format leaves no choice
        return examine_safetensors(stream, size, path=path)


def examine_safetensors(stream: BinaryIO, size: int, *, path: str, member: str | None = None) -> FileResult:
    """Examine content of `size` bytes, from where the stream is, if it is named or begins as safetensors do.

    path, member: for the findings; the last part of the member's name counts, if there is one.
    """
    named = (member or path).lower().endswith(".safetensors")
    head = stream.read(_LENGTH + 1)
    length = int.from_bytes(head[:_LENGTH], "little")
    alike = head[_LENGTH:] == b"{" and length <= min(LARGEST_HEADER, size - _LENGTH)
    if not size or not (named or alike):
        return FileResult()
    try:
        _check_length(len(head), length, size)
        header = _parse(head[_LENGTH:] + stream.read(length - 1))
    except _Wrong as exc:
        # Without the name it only looked like one.
        return FileResult((exc.finding(path, member),) if named or exc.rule != _NO_JSON else ())
    found: dict[str, Finding] = {}
    for wrong in _check(header, size - _LENGTH - length):
        found.setdefault(wrong.rule, wrong.finding(path, member))
    return FileResult(tuple(found.values()))


class _Wrong(Exception):
    """What the format does not allow."""

    def __init__(self, rule: str, told: str, severity: Severity = "block") -> None:
        super().__init__(told)
        self.rule = rule
        self.told = told
        self.severity = severity

    def finding(self, path: str, member: str | None) -> Finding:
        return Finding(
            file=path,
            member=None if member is None else plain(member),
            rule=self.rule,
            category="format",
            severity=self.severity,
            message=plain(f"{member or path}: the safetensors header {self.told}"),
        )


def _check_length(there: int, length: int, size: int) -> None:
    if there <= _LENGTH:
        raise _Wrong("safetensors-length", "is cut off")
    if length > LARGEST_HEADER:
        raise _Wrong("safetensors-length", f"states {length} bytes for itself, more than {LARGEST_HEADER}")
    if not 1 < length <= size - _LENGTH:
        raise _Wrong("safetensors-length", f"states {length} bytes for itself in a file of {size}")


def _parse(raw: bytes) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise _Wrong(_NO_JSON, "does not begin with {")
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError as exc:
        raise _Wrong(_NO_JSON, "is not UTF-8") from exc
    except (ValueError, RecursionError) as exc:
        raise _Wrong(_NO_JSON, "is no JSON object") from exc
    if not isinstance(header, dict):
        raise _Wrong(_NO_JSON, "is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _value in pairs).most_common(1)[0][0]
        raise _Wrong("safetensors-duplicate-key", f"has the key {plain(twice, 100)!r} twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _check(header: dict[str, Any], room: int) -> Iterator[_Wrong]:
    """Yield what is wrong with a header whose tensors fill `room` bytes."""
    places: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        try:
            name.encode()
            if name == _METADATA:
                _check_metadata(entry)
                continue
            begin, end = _place(name, entry)
            places.append((begin, end, name))
            _check_size(name, entry["dtype"], entry["shape"], end - begin)
            if entry.keys() != _KEYS:
                yield _Wrong(
                    "safetensors-unknown-key", f"says more of {name!r} than the format knows", "flag"
                )
        except UnicodeEncodeError:
            yield _Wrong(_NO_JSON, "has a key that is no text")
        except _Wrong as wrong:
            yield wrong
    at = 0
    for begin, end, name in sorted(places):
        if begin < at:
            yield _Wrong("safetensors-overlap", f"lets {name!r} begin within another tensor")
        elif begin > at:
            yield _Wrong("safetensors-hole", f"leaves {begin - at} bytes before {name!r} to nothing")
        at = max(at, end)
    if at != room:
        rule = "safetensors-size" if at > room else "safetensors-trailing"
        yield _Wrong(rule, f"describes {at} bytes of tensors, and {room} are there")


def _check_metadata(entry: Any) -> None:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise _Wrong("safetensors-metadata", "has metadata that are no texts")


def _place(name: str, entry: Any) -> tuple[int, int]:
    """Return where a tensor begins and ends."""
    if not isinstance(entry, dict) or not entry.keys() >= _KEYS:
        raise _Wrong("safetensors-entry", f"describes {name!r} without dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _numbers(shape) or not _numbers(offsets) or len(offsets) != 2:  # noqa: PLR2004 -- begin and end
        raise _Wrong("safetensors-entry", f"gives {name!r} a shape or offsets that are no numbers")
    if offsets[0] > offsets[1]:
        raise _Wrong("safetensors-entry", f"lets {name!r} end before it begins")
    return offsets[0], offsets[1]


def _numbers(value: Any) -> bool:
    # Not a boolean, which is an integer for Python.
    return isinstance(value, list) and all(
        type(part) is int and 0 <= part <= _LARGEST_NUMBER for part in value
    )


def _check_size(name: str, dtype: Any, shape: list[int], size: int) -> None:
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _Wrong("safetensors-dtype", f"gives {name!r} a dtype that is not known", "flag")
    bits = _BITS[dtype]
    for length in shape:
        bits *= length
        if bits > _LARGEST_NUMBER:
            raise _Wrong("safetensors-overflow", f"gives {name!r} a shape of more bytes than can be counted")
    if bits != 8 * size:
        raise _Wrong("safetensors-size", f"gives {name!r} {size} bytes for a shape of {-(-bits // 8)}")
