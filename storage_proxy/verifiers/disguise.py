"""Files that are not what they are called: the name only adds suspicion, it never takes any away."""

from storage_proxy.verifiers.examination import Content
from storage_proxy.verifiers.kinds import PROGRAMS, Kind

_EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!"
"""The test string of all virus scanners (eicar.org), in two parts so that this file is not taken for it."""

_TEXT = frozenset({Kind.TEXT, Kind.SCRIPT, Kind.OTHER})
_PICTURE = frozenset({Kind.PICTURE, Kind.OTHER})
_EXACT = {
    ".safetensors": frozenset({Kind.SAFETENSORS}),
    ".gguf": frozenset({Kind.GGUF}),
    ".npy": frozenset({Kind.NPY}),
    ".npz": frozenset({Kind.ZIP}),
    ".keras": frozenset({Kind.ZIP}),
    ".h5": frozenset({Kind.HDF5}),
    ".hdf5": frozenset({Kind.HDF5}),
    ".json": frozenset({Kind.TEXT}),
    ".onnx": frozenset({Kind.OTHER, Kind.TEXT, Kind.ZLIB}),
    ".pb": frozenset({Kind.OTHER, Kind.TEXT, Kind.ZLIB}),
    ".tflite": frozenset({Kind.OTHER}),
    ".zip": frozenset({Kind.ZIP}),
    ".tar": frozenset({Kind.TAR}),
    ".gz": frozenset({Kind.GZIP}),
    ".tgz": frozenset({Kind.GZIP}),
    ".bz2": frozenset({Kind.BZIP2}),
    ".xz": frozenset({Kind.XZ}),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".ico", ".svg"), _PICTURE | {Kind.TEXT}),
    **dict.fromkeys((".mp3", ".mp4", ".wav", ".flac", ".ogg", ".webm", ".pdf"), _PICTURE),
    **dict.fromkeys(
        (
            ".txt", ".md", ".rst", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".csv", ".tsv", ".jsonl", ".jinja", ".jinja2", ".j2",
            ".py", ".ipynb", ".xml", ".html", ".htm", ".pbtxt", ".gitattributes", ".gitignore", ".vocab", ".merges",
        ),
        _TEXT,
    ),
}  # fmt: skip
_WEB_SUFFIXES = frozenset({".html", ".htm", ".xhtml", ".md", ".txt", ".xml", ".rst"})
_PROGRAM_SUFFIXES = frozenset(
    {
        ".so",
        ".dll",
        ".exe",
        ".dylib",
        ".pyd",
        ".class",
        ".wasm",
        ".dex",
        ".o",
        ".node",
        ".com",
        ".lnk",
        ".llamafile",
    }
)
_UNREADABLE_TEXT = b"\0\1\2\3\4\5\6\7\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17"
_WIDE_TEXT = (b"\xff\xfe", b"\xfe\xff")
_HIGHEST_PROTOCOL = 5


def examine_disguise(content: Content, kind: Kind, head: bytes) -> None:
    """Note programs, pages and pointers where something else is expected, and content that contradicts its name."""
    if _EICAR in head:
        content.block("eicar", "malware", "the test string of virus scanners")
    if kind in PROGRAMS:
        if content.suffix in _PROGRAM_SUFFIXES:
            content.remote_code("program", f"the file is {kind.value}")
        else:
            content.block("disguise", "disguise", f"the file is {kind.value}, whatever its name says")
    elif kind is Kind.LFS_POINTER:
        content.block(
            "lfs-pointer", "disguise", "the file is a Git LFS pointer, not the content it stands for"
        )
    elif kind is Kind.HTML:
        if content.suffix not in _WEB_SUFFIXES:
            content.block("disguise", "disguise", "the file is an HTML page, whatever its name says")
    elif kind is Kind.PYC:
        content.remote_code("python-bytecode", "the file is Python bytecode")
    elif kind is not Kind.EMPTY:
        _examine_name(content, kind, head)


def is_called_text(content: Content) -> bool:
    """Whether the name says that this is text."""
    return content.suffix == ".json" or _EXACT.get(content.suffix) is _TEXT


def _examine_name(content: Content, kind: Kind, head: bytes) -> None:
    suffix = content.suffix
    expected = _EXACT.get(suffix)
    if expected is None:
        return
    if kind not in expected:
        if suffix == ".json" and kind is Kind.OTHER and not _is_binary(head):
            return
        content.block("disguise", "disguise", f"the file is called {suffix} and is {kind.value}")
    elif expected is _TEXT and kind is Kind.OTHER and _is_binary(head):
        what = "a pickle" if _looks_pickled(head) else "no text"
        note = content.block if _looks_pickled(head) else content.flag
        note("disguise", "disguise", f"the file is called {suffix} and is {what}")


def _is_binary(head: bytes) -> bool:
    """Whether this is no text in any encoding that somebody writes."""
    return not head.startswith(_WIDE_TEXT) and len(head.translate(None, _UNREADABLE_TEXT)) < len(head)


def _looks_pickled(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] <= bytes([_HIGHEST_PROTOCOL])
