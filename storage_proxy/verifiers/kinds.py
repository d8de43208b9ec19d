"""What content is, by its bytes alone. A name says what somebody wants it to be taken for."""

# ruff: noqa: PLR2004 -- the numbers are the format's

import enum
import re
import struct

from storage_proxy.verifiers.tars import is_header


class Kind(enum.Enum):
    """Kinds of content that something loads, runs or unpacks; OTHER is everything else: weights, pictures, unknown."""

    EMPTY = "an empty file"
    TEXT = "text"
    OTHER = "data"
    SAFETENSORS = "a safetensors file"
    NPY = "a NumPy array"
    HDF5 = "an HDF5 file"
    GGUF = "a GGUF file"
    ZIP = "a zip archive"
    TAR = "a tar archive"
    GZIP = "a gzip stream"
    BZIP2 = "a bzip2 stream"
    XZ = "an xz stream"
    LZMA = "an lzma stream"
    ZLIB = "a zlib stream"
    SEVEN_ZIP = "a 7z archive"
    RAR = "a RAR archive"
    CAB = "a CAB archive"
    LZ4 = "an LZ4 stream"
    ZSTD = "a Zstandard stream"
    SNAPPY = "a Snappy stream"
    LZOP = "an LZO stream"
    OLD_JOBLIB = "a stream as joblib packed it before 0.10"
    AR = "an ar archive"
    CPIO = "a cpio archive"
    ISO = "a disk image"
    RPM = "an RPM package"
    ELF = "an ELF program"
    PE = "a Windows program"
    DOS = "a DOS program"
    MACH_O = "a macOS program"
    JAVA = "a Java class"
    DEX = "an Android program"
    WASM = "a WebAssembly program"
    SHORTCUT = "a Windows shortcut"
    OLE = "an OLE document"
    PYC = "Python bytecode"
    SCRIPT = "a script"
    HTML = "an HTML page"
    LFS_POINTER = "a Git LFS pointer"
    PICTURE = "a picture"


PROGRAMS = frozenset(
    {Kind.ELF, Kind.PE, Kind.DOS, Kind.MACH_O, Kind.JAVA, Kind.DEX, Kind.WASM, Kind.SHORTCUT}
)
UNOPENED = frozenset(
    {
        Kind.SEVEN_ZIP, Kind.RAR, Kind.CAB, Kind.LZ4, Kind.ZSTD, Kind.SNAPPY, Kind.LZOP, Kind.OLD_JOBLIB,
        Kind.AR, Kind.CPIO, Kind.ISO, Kind.RPM, Kind.OLE,
    }
)  # fmt: skip
"""Containers that we know and cannot open: what is in them is not covered."""

_MAGICS: list[tuple[bytes, Kind]] = [
    (b"PK\x03\x04", Kind.ZIP),
    (b"PK\x05\x06", Kind.ZIP),
    (b"PK\x06\x06", Kind.ZIP),
    (b"PK\x07\x08", Kind.ZIP),
    (b"PK00PK\x03\x04", Kind.ZIP),
    (b"\xfd7zXZ\x00", Kind.XZ),
    (b"7z\xbc\xaf\x27\x1c", Kind.SEVEN_ZIP),
    (b"Rar!\x1a\x07", Kind.RAR),
    (b"MSCF\0\0\0\0", Kind.CAB),
    (b"\x04\x22\x4d\x18", Kind.LZ4),
    (b"\x02\x21\x4c\x18", Kind.LZ4),
    (b"\x28\xb5\x2f\xfd", Kind.ZSTD),
    (b"\xff\x06\x00\x00sNaPpY", Kind.SNAPPY),
    (b"\x89LZO\x00\r\n\x1a\n", Kind.LZOP),
    (b"ZF0x", Kind.OLD_JOBLIB),
    (b"!<arch>\n", Kind.AR),
    (b"070701", Kind.CPIO),
    (b"070702", Kind.CPIO),
    (b"\xed\xab\xee\xdb", Kind.RPM),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind.OLE),
    (b"\x93NUMPY", Kind.NPY),
    (b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    (b"GGUF", Kind.GGUF),
    (b"FUGG", Kind.GGUF),
    (b"\x7fELF", Kind.ELF),
    (b"\xfe\xed\xfa\xce", Kind.MACH_O),
    (b"\xfe\xed\xfa\xcf", Kind.MACH_O),
    (b"\xce\xfa\xed\xfe", Kind.MACH_O),
    (b"\xcf\xfa\xed\xfe", Kind.MACH_O),
    (b"dex\n03", Kind.DEX),
    (b"\0asm\x01\0\0\0", Kind.WASM),
    (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0", Kind.SHORTCUT),
    (b"version https://git-lfs.github.com/spec/", Kind.LFS_POINTER),
    (b"version https://hawser.github.com/spec/", Kind.LFS_POINTER),
    (b"\x89PNG\r\n\x1a\n", Kind.PICTURE),
    (b"\xff\xd8\xff", Kind.PICTURE),
    (b"GIF8", Kind.PICTURE),
]
_MAGICS_BY_FIRST = {
    first: [(magic, kind) for magic, kind in _MAGICS if magic[0] == first]
    for first in {magic[0] for magic, _ in _MAGICS}
}
_LONGEST_POINTER = 1024
_FAT_ARCHITECTURES = 30  # of a fat Mach-O; a Java class has its version, 45 or more, in the same place
_ISO_AT = 32769
_HTML = re.compile(
    # Atomic, so that many comments cost no more than their length.
    rb"(?:\xef\xbb\xbf)?(?>\s*)(?>(?:<\?xml[^>]{0,200}\?>\s*)?)(?>(?:<!--(?:(?!-->).){0,2000}-->\s*)*)"
    rb"<(?:!doctype\s+html|html|head|body|script|iframe)\b",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")
_SHORTEST_SAFETENSORS = 10
_LONGEST_SAFETENSORS_HEADER = 1 << 32


def kind_of(head: bytes, size: int | None) -> Kind:  # noqa: C901, PLR0912 -- one question after the other
    """Say what content with this head is. `head` has 64 KiB or is everything; `size` None means larger than `head`."""
    if not head:
        return Kind.EMPTY
    for magic, kind in _MAGICS_BY_FIRST.get(head[0], ()):
        if head.startswith(magic):
            return kind if kind is not Kind.LFS_POINTER or _is_small(head, size) else Kind.TEXT
    if head[:3] == b"\x1f\x8b\x08" and len(head) >= 10 and head[3] < 32:
        return Kind.GZIP
    if head[:2] == b"MZ" and (found := _dos_or_windows(head)) is not None:
        return found
    if head[:4] == b"\xca\xfe\xba\xbe" and len(head) >= 8:
        return Kind.MACH_O if int.from_bytes(head[4:8], "big") <= _FAT_ARCHITECTURES else Kind.JAVA
    if head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:10] in {b"1AY&SY", b"\x17rE8P\x90"}:
        return Kind.BZIP2
    if head[:3] == b"\x5d\0\0" and len(head) >= 13 and head[13:14] == b"\0":
        return Kind.LZMA
    if (
        head[2:4] == b"\r\n"
        and head[1:2] in b"\x0b\x0c\x0d\x0e\x0f"
        and len(head) >= 16
        and _holds_code(head)
    ):
        return Kind.PYC
    if is_header(head[:512]) or head[257:262] == b"ustar":
        return Kind.TAR
    if head[_ISO_AT : _ISO_AT + 5] == b"CD001":
        return Kind.ISO
    if _is_safetensors(head, size):
        return Kind.SAFETENSORS
    if _HTML.match(head[:8192]):
        return Kind.HTML
    if is_text(head):
        return Kind.SCRIPT if head.startswith(b"#!") else Kind.TEXT
    if (
        head[0] & 0x8F == 8
        and len(head) >= 2
        and head[0] <= 0x78
        and int.from_bytes(head[:2], "big") % 31 == 0
    ):
        return Kind.ZLIB if not head[1] & 0x20 else Kind.OTHER
    return Kind.OTHER


def is_text(head: bytes) -> bool:
    """Whether this looks like the beginning of text in UTF-8 (or a superset of ASCII): no NUL, nearly no control characters."""
    sample = head[:4096]
    if len(sample.translate(None, _CONTROL)) < len(sample):
        return False
    try:
        sample.decode()
    except UnicodeDecodeError as exc:
        return exc.start >= len(sample) - 3 and len(head) >= len(sample)
    return True


def _is_small(head: bytes, size: int | None) -> bool:
    return (len(head) if size is None else size) <= _LONGEST_POINTER


def _dos_or_windows(head: bytes) -> Kind | None:
    """Tell a program that begins with MZ from weights that happen to."""
    if len(head) < 64:
        return None
    at = struct.unpack_from("<I", head, 60)[0]
    if head[at : at + 4] == b"PE\0\0" or head[at : at + 2] in {b"NE", b"LE", b"LX"}:
        return Kind.PE
    blocks, paragraphs = struct.unpack_from("<HH", head, 4)[0], struct.unpack_from("<H", head, 8)[0]
    relocations_at = struct.unpack_from("<H", head, 24)[0]
    if blocks > 0 and 2 <= paragraphs <= 0x100 and relocations_at in {0x1C, 0x1E, 0x20, 0x40}:
        return Kind.DOS
    return None


def _holds_code(head: bytes) -> bool:
    """Tell bytecode from weights that begin with its number: it has flags (PEP 552), or a code object behind one of its old headers."""
    return int.from_bytes(head[4:8], "little") <= 3 or any(
        head[at : at + 1] in {b"c", b"\xe3"} for at in (8, 12, 16)
    )


def _is_safetensors(head: bytes, size: int | None) -> bool:
    if len(head) < _SHORTEST_SAFETENSORS:
        return False
    length = int.from_bytes(head[:8], "little")
    within = length <= (_LONGEST_SAFETENSORS_HEADER if size is None else size - 8)
    return within and head[8:9] == b"{" and head[9:10] in b'"} \n\t\r'
