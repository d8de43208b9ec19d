"""Broken, cut and mixed content: nothing escapes, and what was blocked is never clean while its danger is there."""

import gzip
import io
import random
from collections.abc import Iterator
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_proxy.verifiers.policy import Limits, Policy
from storage_proxy.verifiers.structure import StructureVerifier
from tests.verifiers import samples_formats as make
from tests.verifiers.examined import examine, verdict
from tests.verifiers.samples_formats import EVIL_PICKLE

TEMPLATE = "{{ x.__class__ }}"

# Name, content, and the bytes that are the danger: while they are there the file is not clean.
BLOCKED = [
    ("m.pt", make.torch_zip(EVIL_PICKLE), EVIL_PICKLE),
    ("m.zip", make.zipped({"a.txt": b"text", "b": EVIL_PICKLE}), EVIL_PICKLE),
    ("m.tar", make.tar({"a": b"text", "b": EVIL_PICKLE}), EVIL_PICKLE),
    ("a.npy", make.npy(EVIL_PICKLE, "'|O'"), EVIL_PICKLE),
    ("m.gguf", make.gguf({"general.name": "x", "tokenizer.chat_template": TEMPLATE}), TEMPLATE.encode()),
    ("m.onnx", make.onnx(["../../secret"]), b"../../secret"),
    ("saved_model.pb", make.saved_model(["ReadFile"]), b"ReadFile"),
    ("m.h5", make.hdf5(make.keras_config(make.LAMBDA)), b'"class_name": "__lambda__"'),
    ("config.json", make.keras_config(make.LAMBDA), b'"class_name": "Lambda"'),
    ("tokenizer_config.json", b'{"a": 1, "chat_template": "{{ x.__class__ }}"}', b'"chat_template": "{{ x.__class__ }}"'),
    ("chat_template.jinja", TEMPLATE.encode() + b" and more text", TEMPLATE.encode()),
    ("eicar.txt", b"\n" + make.EICAR + b"\n", make.EICAR),
]  # fmt: skip
# A flipped tag makes the danger part of a field that no loader knows.
TAGGED = {"m.onnx", "saved_model.pb"}
PACKED = [
    ("m.zip", make.zipped({"a": EVIL_PICKLE * 3}, 8)),
    ("m.gz", gzip.compress(make.tar({"a": EVIL_PICKLE}))),
    ("m.keras", make.keras_zip(make.LAMBDA)),
]


def seeded(seed: str | int) -> random.Random:
    return random.Random(seed)  # noqa: S311 -- the same choices each time


@pytest.mark.parametrize(("path", "content", "danger"), BLOCKED, ids=[sample[0] for sample in BLOCKED])
def test_what_is_cut_behind_its_danger_is_never_clean(path: str, content: bytes, danger: bytes) -> None:
    assert verdict(examine(path, content)) == "blocked"
    last = content.rindex(danger) + len(danger)
    for cut in range(len(content)):
        result = verdict(examine(path, content[:cut]))
        assert cut < last or result != "clean", cut


@pytest.mark.parametrize(("path", "content", "danger"), BLOCKED, ids=[sample[0] for sample in BLOCKED])
def test_a_flipped_bit_elsewhere_makes_nothing_clean(path: str, content: bytes, danger: bytes) -> None:
    choose = seeded(path)
    positions = choose.sample(range(len(content) * 8), min(len(content) * 8, 1500))
    for position in positions:
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        result = verdict(examine(path, bytes(flipped)))
        assert danger not in flipped or path in TAGGED or result != "clean", position


@pytest.mark.parametrize(("path", "content"), PACKED, ids=[sample[0] for sample in PACKED])
def test_packed_content_that_is_cut_or_flipped_is_survived(path: str, content: bytes) -> None:
    assert verdict(examine(path, content)) == "blocked"
    for cut in range(len(content)):
        examine(path, content[:cut])
    for position in seeded(path).choices(range(len(content) * 8), k=1000):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        examine(path, bytes(flipped))


def splices() -> Iterator[tuple[str, bytes]]:
    choose = seeded(5)
    everything = [(path, content) for path, content, _ in BLOCKED] + PACKED
    for _ in range(1500):
        (path, one), (_, other) = choose.choices(everything, k=2)
        yield path, one[: choose.randrange(len(one))] + other[choose.randrange(len(other)) :]


def test_splices_are_survived() -> None:
    for path, content in splices():
        examine(path, content)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"PK\3\4", b"\x1f\x8b\x08\0", b"\x93NUMPY\1\0", b"GGUF\3\0\0\0", b"\x89HDF\r\n\x1a\n", b"{", b"{{", b"\x08\x08", b"BZh91AY&SY", b""]),
    st.binary(max_size=600),
    st.sampled_from(["m.bin", "m.onnx", "m.pb", "m.json", "m.jinja", "m.yaml", "m.pbtxt"]),
)  # fmt: skip
def test_whatever_follows_a_magic_is_survived(magic: bytes, rest: bytes, path: str) -> None:
    examine(path, magic + rest)


def opened(hole: "Hole") -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", hole)))


class Hole(io.RawIOBase):
    """A file of zeros with something at its beginning and its end; counts what is read."""

    def __init__(self, head: bytes, size: int, tail: bytes = b"") -> None:
        self.read_bytes = 0
        self._head = head
        self._size = size
        self._tail = tail
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._size}[whence]
        return self._at

    def readinto(self, target: bytearray) -> int:  # type: ignore[override] # what BufferedReader gives
        count = max(0, min(len(target), self._size - self._at))
        end, tail_at = self._at + count, self._size - len(self._tail)
        data = bytearray(count)
        head = self._head[self._at : end]
        data[: len(head)] = head
        if end > tail_at:
            begin = max(self._at, tail_at)
            data[begin - self._at :] = self._tail[begin - tail_at : end - tail_at]
        target[:count] = data
        self._at = end
        self.read_bytes += count
        return count


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("model.safetensors", make.safetensors()[:-8].replace(b"[0, 8]", b"[0, 9]")),
        ("model.bin", b"\1\2\3\4"),
        ("model.gguf", make.gguf(data=b"")),
    ],
)
def test_of_weights_only_the_beginning_and_the_end_are_read(path: str, head: bytes) -> None:
    hole = Hole(head, 16 << 30)
    result = StructureVerifier().examine(path, opened(hole), 16 << 30, Policy())
    assert verdict(result) == "clean"
    assert hole.read_bytes < 1 << 20


def test_of_weights_in_a_zip_only_the_beginning_and_the_end_are_read() -> None:
    size = 3 << 30
    honest = make.ZipWriter().add(b"a/data/0", b"", size=size)
    local = bytearray(honest.body)
    local[18:26] = size.to_bytes(4, "little") * 2
    directory = bytearray(honest.directory)
    directory[20:28] = size.to_bytes(4, "little") * 2
    honest.directory = directory
    honest.body = local
    end = bytearray(honest.finish()[len(local) + len(directory) :])
    end[16:20] = (len(local) + size).to_bytes(4, "little")
    hole = Hole(bytes(local), len(local) + size + len(directory) + len(end), bytes(directory + end))
    result = StructureVerifier().examine("m.pt", opened(hole), hole.seek(0, 2), Policy())
    assert verdict(result) == "clean"
    assert hole.read_bytes < 2 << 20


def test_many_members_that_are_broken_end_in_time() -> None:
    writer = make.ZipWriter()
    for number in range(3000):
        writer.add(f"{number}".encode(), b"\xff" * 50, size=10, method=8)
    result = examine("m.zip", writer.finish(), Policy(limits=Limits(seconds=60)))
    assert verdict(result) == "blocked"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("page.bin", b"<!---->" * 1100),
        ("chat_template.jinja", b"{{ " + b"\\'" * 400_000),
        ("chat_template.jinja", b"{{ '" + b"\\N{" * 300_000 + b"' }}"),
        ("chat_template.jinja", b"{{ x." + b"__a_" * 200_000),
        ("a.json", b'{"template":' * 900 + b"1" + b"}" * 900),
        ("m.h5", make.hdf5(b'{"class_name"' * 1000)),
        ("m.zip", make.zipped({str(number): b"PK\5\6" * 400 for number in range(100)})),
    ],
    ids=["comments", "quotes", "names", "underscores", "nesting", "configurations", "ends"],
)
def test_content_made_to_take_long_does_not(path: str, content: bytes) -> None:
    result = examine(path, content, Policy(limits=Limits(seconds=60)))
    assert "within 54 s" not in str(result.reason)


def test_of_many_findings_one_that_refuses_is_kept() -> None:
    members = {f"{number}.py": b"import os" for number in range(500)} | {"z": EVIL_PICKLE}
    result = examine("m.mar", make.zipped(members))
    assert len(result.findings) <= 200
    assert verdict(result) == "blocked"
