"""The walk through containers: what lies in them is examined as if it lay outside, as deep as the policy goes."""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from storage_proxy.verifiers import streams, tars, zips
from storage_proxy.verifiers.examination import Content
from storage_proxy.verifiers.kinds import Kind
from storage_proxy.verifiers.streams import Broken, LimitReached, Slice, Unpacked, buffered

_LARGEST_CHECKED = 16 << 20
"""Bytes; larger content that is stored as it is has its checksum left alone: weights whose digest is known anyway."""
_CHUNK = 1 << 20
_SHORTEST_WEAK = 4096
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PACKED_SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".lzma", ".z", ".zlib", ".tgz"})

Look = Callable[[Content], Kind]
"""Examines one content and says what it was."""


@dataclass(frozen=True)
class _Packing:
    decoder: Callable[[], streams.Decoder]
    several: bool = False
    weak: bool = False
    """Whether weights may begin like this by accident."""


_PACKINGS = {
    Kind.GZIP: _Packing(streams.gzip_stream, several=True),
    Kind.BZIP2: _Packing(streams.bzip2_stream, several=True),
    Kind.XZ: _Packing(streams.xz_stream, several=True),
    Kind.LZMA: _Packing(streams.xz_stream, weak=True),
    Kind.ZLIB: _Packing(streams.zlib_stream, weak=True),
}
_METHODS = {
    zips.DEFLATED: streams.raw_deflate,
    zips.BZIP2: streams.bzip2_stream,
}
CONTAINERS = frozenset({Kind.ZIP, Kind.TAR, *_PACKINGS})


def walk(content: Content, kind: Kind, look: Look) -> None:
    """Examine everything in a container. What could not be opened leaves a gap; raises what ends the whole look."""
    if content.depth >= content.examination.policy.limits.depth:
        raise LimitReached(f"containers are nested more than {content.depth} deep")
    if kind is Kind.ZIP:
        _walk_zip(content, look)
    elif kind is Kind.TAR:
        _walk_tar(content, look)
    else:
        _walk_packed(content, _PACKINGS[kind], look)


def _walk_zip(content: Content, look: Look) -> None:
    try:
        found = zips.read_directory(content.stream, content.size, content.budget)
    except Broken as exc:
        content.block("zip-broken", "archive", str(exc))
        raise
    for rule, message, name in found.objections:
        content.block(rule, "archive", message, name)
    for member in found.members:
        content.budget.check_time()
        _check_name(content, member.name)
        if not member.is_folder:
            _look_into(content, member, look)


def _look_into(content: Content, member: zips.ZipMember, look: Look) -> None:
    if member.method == zips.STORED:
        inner = content.part(member.offset, member.packed, member.name)
        kind = look(inner)
        if inner.known_size and (inner.known_size <= _LARGEST_CHECKED or kind is not Kind.OTHER):
            _check_sum(inner, member.crc)
        return
    if member.method not in _METHODS:
        content.part(member.offset, member.packed, member.name).gap(
            f"packed in a way that is not opened (method {member.method})"
        )
        return
    packed = buffered(Slice(content.stream, member.offset, member.packed))
    unpacked = Unpacked(packed, _METHODS[member.method], content.budget)
    inner = content.inside(buffered(unpacked), None, member.name)
    look(inner)
    size = inner.size
    if unpacked.failure is not None:
        inner.gap(unpacked.failure)
    elif size != member.size or unpacked.rest:
        inner.block("zip-sizes", "archive", "the member unpacks to another size than the archive says")
    elif unpacked.checksum != member.crc:
        inner.block("zip-checksum", "archive", "the member has a wrong checksum")


def _check_sum(content: Content, stated: int) -> None:
    found = at = 0
    while chunk := content.read_at(at, _CHUNK):
        content.budget.check_time()
        found = zlib.crc32(chunk, found)
        at += len(chunk)
    if found != stated:
        content.block("zip-checksum", "archive", "the member has a wrong checksum")


def _walk_tar(content: Content, look: Look) -> None:
    try:
        for member in tars.members(content.stream, content.budget):
            _check_name(content, member.name)
            if member.type in "12346":
                content.block("archive-link", "archive", "the member is a link or a device", member.name)
            elif member.type != "5":
                inner = content.part(member.offset, member.size, member.name)
                if member.size and not content.read_at(member.offset + member.size - 1, 1):
                    inner.gap("the archive ends within this member")
                look(inner)
    except tars.Ambiguous as exc:
        content.block("tar-ambiguous", "archive", str(exc))


def _walk_packed(content: Content, packing: _Packing, look: Look) -> None:
    unpacked = Unpacked(content.stream, packing.decoder, content.budget, several=packing.several)
    inner = content.inside(buffered(unpacked), None, None)
    if content.suffix in _PACKED_SUFFIXES:
        inner = inner.renamed(content.name[: -len(content.suffix)])
    noted = len(content.examination.findings)
    kind = look(inner)
    size = inner.size
    if unpacked.failure is not None:
        accident = (
            packing.weak
            and size < _SHORTEST_WEAK
            and kind in {Kind.OTHER, Kind.EMPTY, Kind.TEXT}
            and isinstance(unpacked.failure, Broken)
            and len(content.examination.findings) == noted
        )
        if not accident:
            content.gap(unpacked.failure)
    elif unpacked.rest and not packing.weak:
        content.block("trailing", "archive", "bytes follow the end of the compressed stream")


def _check_name(content: Content, name: str) -> None:
    """Refuse names that a careless unpacker would write outside its folder."""
    parts = name.split("/")
    if ".." in parts or name.startswith("/") or "\\" in name or _DRIVE.match(name) or _CONTROL.search(name):
        content.block("archive-slip", "archive", "the member would be written outside the folder", name)
