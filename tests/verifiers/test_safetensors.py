import io
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_proxy.verifiers.base import FileResult
from storage_proxy.verifiers.policy import Policy
from storage_proxy.verifiers.safetensors import LARGEST_HEADER, SafetensorsVerifier

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}


def raw(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def made(header: dict[str, Any], size: int = 11) -> bytes:
    return raw(json.dumps(header).encode(), bytes(size))


def examine(content: bytes, path: str = "model.safetensors") -> FileResult:
    return SafetensorsVerifier().examine(path, io.BytesIO(content), len(content), Policy())


def rules(content: bytes, path: str = "model.safetensors") -> set[str]:
    return {finding.rule.removeprefix("safetensors-") for finding in examine(content, path).findings}


@pytest.mark.parametrize(
    "content",
    [
        made({"a": A, "b": B}),
        made({"b": B, "a": A}),
        made({}, 0),
        made({"__metadata__": {"format": "pt"}, "a": A, "b": B}),
        made({"a": A, "none": {"dtype": "F16", "shape": [0, 4], "data_offsets": [8, 8]}, "b": B}),
        made({"one": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]}}, 8),
        made({"half": {"dtype": "F4", "shape": [3, 2], "data_offsets": [0, 3]}}, 3),
        raw(json.dumps({"a": A}).encode() + b"     ", bytes(8)),
        b"",
    ],
)
def test_what_the_format_allows_is_clean(content: bytes) -> None:
    assert examine(content) == FileResult()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (made({"a": A, "b": B | {"data_offsets": [7, 10]}}, 10), "overlap"),
        (made({"a": A, "b": A}, 8), "overlap"),
        (made({"a": A, "b": B | {"data_offsets": [9, 12]}}, 12), "hole"),
        (made({"b": B}, 11), "hole"),
        (made({"a": A, "b": B}, 12), "trailing"),
        (made({"a": A, "b": B}, 10), "size"),
        (made({"a": A | {"shape": [3]}}, 8), "size"),
        (made({"half": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, 1), "size"),
        (made({"a": A | {"shape": [2**62, 2**62, 0]}}, 8), "overflow"),
        (made({"a": A | {"dtype": "X99"}}, 8), "dtype"),
        (made({"a": A | {"dtype": 5}}, 8), "dtype"),
        (made({"a": A | {"note": "x"}}, 8), "unknown-key"),
        (made({"a": [1]}), "entry"),
        (made({"a": {"dtype": "F32"}}), "entry"),
        (made({"a": A | {"data_offsets": [8, 0]}}, 8), "entry"),
        (made({"a": A | {"data_offsets": [0, 4, 8]}}, 8), "entry"),
        (made({"a": A | {"data_offsets": [-8, 0]}}, 8), "entry"),
        (made({"a": A | {"data_offsets": [0, 8.0]}}, 8), "entry"),
        (made({"a": A | {"shape": [True, 2]}}, 8), "entry"),
        (made({"a": A | {"shape": [2**64]}}, 8), "entry"),
        (made({"__metadata__": {"a": 1}}, 0), "metadata"),
        (made({"__metadata__": "a"}, 0), "metadata"),
        (raw(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}', bytes(8)), "duplicate-key"),
        (raw(b'{"__metadata__":{"a":"1","a":"2"}}'), "duplicate-key"),
        (raw(b'{"\xff":1}'), "json"),
        (raw(b'{"\\ud800":{}}'), "json"),
        (raw(b"[1,2]"), "json"),
        (raw(b'{"a":NaN}'), "json"),
        (raw(b"{}}"), "json"),
        (raw(b" {}"), "json"),
        (raw(b'{"a":' * 3000 + b"1" + b"}" * 3000), "json"),
        (raw(b'{"a":' + b"[" * 100_000), "json"),
        (raw(b""), "length"),
        (b"\x00", "length"),
        (struct.pack("<Q", 100) + b"{}", "length"),
        (struct.pack("<Q", 2**63) + b"{}", "length"),
        (struct.pack("<Q", LARGEST_HEADER + 1) + b"{}", "length"),
    ],
)
def test_each_fault_of_a_header_has_its_rule(content: bytes, rule: str) -> None:
    assert rule in rules(content)


def test_a_header_is_examined_whatever_the_file_is_called() -> None:
    assert rules(made({"a": A}, 9), "weights.bin") == {"trailing"}


def test_what_only_looks_alike_is_no_safetensors_file() -> None:
    assert not rules(struct.pack("<Q", 5) + b"{weights", "weights.bin")


def test_a_header_of_a_member_is_known_by_the_members_name() -> None:
    from storage_proxy.verifiers.safetensors import examine_safetensors  # noqa: PLC0415 -- for members alone

    (finding,) = examine_safetensors(io.BytesIO(b"xx"), 2, path="a.zip", member="b.safetensors").findings
    assert (finding.file, finding.member) == ("a.zip", "b.safetensors")


def test_no_tensor_is_read() -> None:
    content = made({"a": A | {"shape": [1 << 20], "data_offsets": [0, 4 << 20]}}, 4 << 20)
    stream = io.BytesIO(content)
    SafetensorsVerifier().examine("model.safetensors", stream, len(content), Policy())

    assert stream.tell() < 1000


scalars = st.one_of(st.integers(-1, 20), st.text(max_size=3), st.none(), st.just("F32"), st.just(2**64))
headers = st.dictionaries(
    st.text(max_size=3) | st.just("__metadata__"),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": scalars,
            "shape": st.lists(scalars, max_size=3) | scalars,
            "data_offsets": st.lists(scalars, max_size=3),
        },
    ),
    max_size=3,
)


@settings(deadline=None)
@given(headers, st.integers(0, 20), st.integers(0, 200))
def test_any_header_has_a_result(header: dict[str, Any], size: int, cut: int) -> None:
    content = made(header, size)
    examine(content)
    examine(content[:cut])
