"""Containers: every reader sees the same members, and each of them is examined."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import pytest

from storage_proxy.verifiers.policy import Limits, Policy
from tests.verifiers import samples_formats as make
from tests.verifiers.examined import examine, rules, verdict
from tests.verifiers.samples_formats import EVIL_PICKLE, SAFE_PICKLE, ZipWriter

SMALL = Policy(limits=Limits(members=50, output=1 << 20, seconds=20))


def found_in(path: str, content: bytes) -> set[str | None]:
    """Where pickles were found that name what is not allowed."""
    return {finding.member for finding in examine(path, content).findings if finding.rule == "pickle-global"}


def with_tarfile(tar_format: int, name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def with_zipfile(
    name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED, *, streamed: bool = False
) -> bytes:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return not streamed

        def tell(self) -> int:
            if streamed:
                raise OSError
            return super().tell()

    out = Pipe()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(name, content)
        archive.writestr("other.txt", b"x" * 1000)
    return out.getvalue()


@pytest.mark.parametrize(
    ("path", "content", "member"),
    [
        ("m.pt", make.torch_zip(EVIL_PICKLE), "archive/data.pkl"),
        ("m.pt", make.torch_zip(EVIL_PICKLE, "archive/data/7"), "archive/data/7"),
        ("m.safetensors", make.torch_zip(EVIL_PICKLE, "x.txt"), "x.txt"),
        ("m.zip", make.zipped({"a/b.bin": EVIL_PICKLE}, 8), "a/b.bin"),
        ("m.zip", with_zipfile("p", EVIL_PICKLE), "p"),
        ("m.zip", with_zipfile("p", EVIL_PICKLE, streamed=True), "p"),
        ("m.zip", with_zipfile("p", EVIL_PICKLE, zipfile.ZIP_BZIP2), "p"),
        ("a.npy", make.npy(EVIL_PICKLE, "'|O'", "(1,)"), None),
        ("a.npy", make.npy(EVIL_PICKLE, "[('a', '<f4'), ('b', '|O')]", "(1,)"), None),
        ("a.npy", make.npy(bytes(16)) + make.npy(EVIL_PICKLE, "'|O'"), None),
        ("a.npz", make.zipped({"a.npy": make.npy(EVIL_PICKLE, "'O'", "()")}), "a.npy"),
        ("m.tar", make.tar({"sys_info": SAFE_PICKLE, "pickle": EVIL_PICKLE}), "pickle"),
        ("m.bin", make.tar({"": b"", "pickle": EVIL_PICKLE}, magic=b""), "pickle"),
        ("m.tar", with_tarfile(tarfile.GNU_FORMAT, "l" * 200, EVIL_PICKLE), "l" * 200),
        ("m.tar", with_tarfile(tarfile.PAX_FORMAT, "ü" * 150, EVIL_PICKLE), "ü" * 150),
        ("m.tar", with_tarfile(tarfile.USTAR_FORMAT, "d" * 90 + "/" + "l" * 60, EVIL_PICKLE), "d" * 90 + "/" + "l" * 60),
        ("m.pkl", gzip.compress(EVIL_PICKLE), None),
        ("m.pkl", gzip.compress(b"") + gzip.compress(EVIL_PICKLE), None),
        ("m.joblib", zlib.compress(EVIL_PICKLE), None),
        ("m.joblib", bz2.compress(EVIL_PICKLE), None),
        ("m.joblib", lzma.compress(EVIL_PICKLE), None),
        ("m.joblib", lzma.compress(EVIL_PICKLE, lzma.FORMAT_ALONE), None),
        ("m.tgz", gzip.compress(make.tar({"a": make.torch_zip(EVIL_PICKLE)})), "a!archive/data.pkl"),
        ("m.zip", make.zipped({"a.zip": make.zipped({"b.tar": make.tar({"c.gz": gzip.compress(EVIL_PICKLE)})}, 8)}, 8), "a.zip!b.tar!c.gz"),
    ],
)  # fmt: skip
def test_a_pickle_is_found_wherever_it_lies(path: str, content: bytes, member: str | None) -> None:
    assert found_in(path, content) == {member}


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: with_zipfile("p", data),
        lambda data: with_zipfile("p", data, zipfile.ZIP_STORED),
        lambda data: with_zipfile("p", data, streamed=True),
        lambda data: with_tarfile(tarfile.GNU_FORMAT, "l" * 200, data),
        lambda data: with_tarfile(tarfile.PAX_FORMAT, "l" * 200, data),
        gzip.compress,
        bz2.compress,
        lzma.compress,
        zlib.compress,
        make.torch_zip,
    ],
)
def test_honest_containers_are_clean(pack: Callable[[bytes], bytes]) -> None:
    assert verdict(examine("m.bin", pack(SAFE_PICKLE))) == "clean"
    assert verdict(examine("m.bin", pack(bytes(range(256)) * 500))) == "clean"


def test_a_zip_with_wide_numbers_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    assert found_in("m.zip", with_zipfile("p", SAFE_PICKLE)) == set()
    assert verdict(examine("m.zip", with_zipfile("p", SAFE_PICKLE))) == "clean"
    assert found_in("m.zip", with_zipfile("p", EVIL_PICKLE)) == {"p"}


def safe() -> ZipWriter:
    return ZipWriter().add(b"a.txt", b"harmless")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (safe().add(b"data.pkl", SAFE_PICKLE, flags=1).finish(), "zip-flags"),
        (safe().add(b"data.pkl", SAFE_PICKLE, flags=0x40).finish(), "zip-flags"),
        (safe().add(b"data.pkl", SAFE_PICKLE, flags=0x2000).finish(), "zip-flags"),
        (safe().add(b"data.pkl", SAFE_PICKLE, local_flags=1).finish(), "zip-two-headers"),
        (safe().add(b"data.pkl", SAFE_PICKLE, crc=1).finish(), "zip-checksum"),
        (safe().add(b"data.pkl", SAFE_PICKLE, crc=1, method=8).finish(), "zip-checksum"),
        (safe().add(b"data.pkl", SAFE_PICKLE, size=3, method=8).finish(), "zip-sizes"),
        (safe().add(b"data.pkl", SAFE_PICKLE, size=3).finish(), "zip-sizes"),
        (safe().add(b"data.pkl", SAFE_PICKLE, local_name=b"evil.pkl").finish(), "zip-two-names"),
        (safe().add(b"a.txt", SAFE_PICKLE).finish(), "zip-duplicate"),
        (safe().add(b"b.txt", b"harmless", at=0).finish(), "zip-overlap"),
        (safe().add(b"b.txt", b"harmless", at=5).finish(), "zip-local-header"),
        (safe().finish(prefix=b"\x80\x02N."), "disguise"),
        (safe().finish(comment=b"PK\5\6" + bytes(18)), "zip-two-ends"),
        (safe().finish() + b"more", "zip-trailing"),
        (safe().finish(count=2), "zip-directory"),
        (safe().add(b"link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777).finish(), "archive-link"),
        (safe().add(b"pipe", b"", mode=stat.S_IFIFO).finish(), "archive-link"),
        (safe().add(b"../../evil", b"x").finish(), "archive-slip"),
        (safe().add(b"/etc/evil", b"x").finish(), "archive-slip"),
        (safe().add(b"..\\evil", b"x").finish(), "archive-slip"),
        (safe().add(b"C:evil", b"x").finish(), "archive-slip"),
        (safe().add(b"a\0.pkl", b"x").finish(), "archive-slip"),
        (safe().finish()[:-30], "zip-broken"),
        (make.tar({"../x": b"y"}), "archive-slip"),
        (make.tar({"/x": b"y"}), "archive-slip"),
        (make.tar_header("l", 0, b"2", "/etc") + bytes(1024), "archive-link"),
        (make.tar_header("l", 0, b"1", "x") + bytes(1024), "archive-link"),
        (make.tar_header("c", 0, b"3") + bytes(1024), "archive-link"),
        (make.tar_header("f", 0, b"6") + bytes(1024), "archive-link"),
        (make.tar({"a": b"b"}) + make.tar({"c": b"d"}), "tar-ambiguous"),
        (gzip.compress(b"x" * 99) + b"more", "trailing"),
        (lzma.compress(b"x" * 99) + b"more", "trailing"),
        (make.npy(bytes(17)), "npy-trailing"),
    ],
)
def test_what_readers_could_take_differently_is_blocked(content: bytes, rule: str) -> None:
    path = "m.npz" if rule == "disguise" else "m.bin"
    assert rule in rules(path, content)


def test_bytes_that_no_member_owns_are_blocked() -> None:
    writer = safe()
    writer.body += b"PK\3\4 hidden"
    assert "zip-hidden" in rules("m.zip", writer.add(b"b", b"c").finish())
    writer.body += b"more"
    assert "zip-hidden" in rules("m.zip", writer.finish())


@pytest.mark.parametrize("prefix", [EVIL_PICKLE, b"#!/bin/sh\n", b"\x89PNG\r\n\x1a\n", b"PK00", bytes(512)])
def test_a_zip_behind_something_else_is_blocked(prefix: bytes) -> None:
    assert rules("model.bin", make.zipped({"a": b"b"}).join([prefix, b""])) != set()


@pytest.mark.parametrize(
    "content",
    [
        make.zipped({"zeros": bytes(3 << 20)}, 8),
        gzip.compress(bytes(3 << 20)),
        bz2.compress(bytes(3 << 20)),
        lzma.compress(bytes(3 << 20)),
        zlib.compress(bytes(3 << 20)),
        make.zipped({"a.zip": make.zipped({"zeros": bytes(3 << 20)}, 8)}, 8),
    ],
)
def test_a_bomb_is_blocked(content: bytes) -> None:
    assert rules("m.bin", content) == {"bomb"}


def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    content = gzip.compress(bytes(256 << 20), 1)
    result = examine("m.bin", content)
    assert {finding.rule for finding in result.findings} == {"bomb"}


@pytest.mark.parametrize(
    "content",
    [
        make.zipped({f"{number}": b"" for number in range(51)}),
        make.tar({f"{number}": b"" for number in range(51)}),
        make.zipped({f"{number}.zip": make.zipped({"a": b"", "b": b""}) for number in range(20)}),
        gzip.compress(bytes(range(256)) * 8, 0) * 600,
    ],
)
def test_reaching_a_cap_is_not_clean(content: bytes) -> None:
    assert verdict(examine("m.bin", content, SMALL)) == "incomplete"


def test_containers_are_opened_four_deep() -> None:
    content = EVIL_PICKLE
    for _ in range(4):
        content = make.zipped({"x": content})
    assert found_in("m.bin", content) == {"x!x!x!x"}
    result = examine(
        "m.bin",
        make.zipped({"x": make.zipped({"x": make.zipped({"x": make.zipped({"x": make.zipped({})})})})}),
    )
    assert verdict(result) == "incomplete"


def test_time_is_limited() -> None:
    policy = Policy(limits=Limits(seconds=1e-9))
    assert verdict(examine("m.bin", make.zipped({"a": b"b"}), policy)) == "incomplete"


def test_a_zip_within_a_compressed_stream_is_read_from_its_end() -> None:
    big = bytes(range(256)) * 20_000
    content = gzip.compress(make.zipped({"weights": zlib.compress(big, 0), "data.pkl": EVIL_PICKLE}), 1)
    assert found_in("m.gz", content) == {"data.pkl"}


def test_weights_that_look_packed_by_accident_are_clean() -> None:
    assert verdict(examine("w.bin", b"\x78\x9c" + bytes(range(256)) * 99)) == "clean"
    assert verdict(examine("m.pt", make.zipped({"data/0": b"\x78\x01" + bytes(range(256))}))) == "clean"


def test_a_payload_before_the_break_of_its_stream_is_found() -> None:
    assert found_in("m.pkl", gzip.compress(EVIL_PICKLE)[:-8]) == {None}
    assert found_in("m.pkl", zlib.compress(EVIL_PICKLE)[:-2] + b"\0\0") == {None}
    assert found_in("m.tar", make.tar({"a": EVIL_PICKLE})[:600]) == {"a"}


def test_a_broken_container_is_not_covered() -> None:
    assert verdict(examine("m.gz", gzip.compress(b"text" * 100)[:-9])) == "incomplete"
    assert verdict(examine("m.tar", make.tar({"a": b"text" * 1000})[:1000])) == "incomplete"
    assert verdict(examine("m.npy", make.npy(bytes(15)))) == "incomplete"
    objects = make.npy(SAFE_PICKLE, "'|O'")
    assert verdict(examine("m.npy", objects)) == "clean"
    assert verdict(examine("m.npy", objects + make.npy(EVIL_PICKLE, "'|O'"))) == "incomplete"
