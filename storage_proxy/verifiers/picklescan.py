"""A second opinion on pickles: picklescan in its strict mode (https://github.com/mmaitre314/picklescan).

It knows what is bad and a little that is good, reads no stack, and takes any text for a pickle. So it never stands alone;
globals that the policy allows are no findings, and neither are the words of a text.
"""

import io
import pickletools
import sys
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import BinaryIO

from proxy_client.wire import Finding
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier, Severity, plain
from storage_proxy.verifiers.globals import is_allowed
from storage_proxy.verifiers.opcodes import Machine
from storage_proxy.verifiers.pickle_stream import Budget, LimitReached, Source
from storage_proxy.verifiers.policy import AllowPickle, Policy

LARGEST = 64 << 20
"""Bytes of a file; it takes some 15 bytes of memory for each."""
_ARRAYS = (b"\x93NUMPY",)
_PROTO = b"\x80"
_ARCHIVES = (b"PK", b"7z")
_ARCHIVE_END = b"PK\x05\x06"
_OPCODES = frozenset(ord(opcode.code) for opcode in pickletools.opcodes)
_LEAST = 64 << 10  # bytes that it gets of any file


class PicklescanVerifier(SandboxedVerifier):
    """Shows each file up to 64 MiB to picklescan."""

    name = "picklescan"

    def __init__(self) -> None:
        self.version = version("picklescan")

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:
        if not size:
            return FileResult()
        if size > LARGEST:
            return FileResult(covered=False, reason=f"larger than {LARGEST >> 20} MiB")
        head = stream.read(6)
        stream.seek(0)
        if head in _ARRAYS:
            return FileResult(covered=False, reason="picklescan reads arrays with numpy, which is not here")
        # What scan_file_path does with the path that it opens.
        sure = head.startswith((_PROTO, *_ARCHIVES))
        if not sure:
            # It takes every byte for an opcode, four seconds a MiB: of what begins as no pickle it gets no more than an unpickler.
            stops = head[0] not in _OPCODES
            count = _LEAST if stops else max(_LEAST, _reach(stream, policy, size))
            stream.seek(0)
            shown = stream.read(count)
            if stops and _ARCHIVE_END not in shown:
                return FileResult()
            stream = io.BytesIO(shown)
        elif size <= _LEAST:
            stream = io.BytesIO(stream.read(size))  # from which it reads byte by byte in half the time
        from picklescan.scanner import SafetyLevel, scan_bytes  # noqa: PLC0415 -- for the worker processes alone

        try:
            scanned = scan_bytes(stream, path, PurePosixPath(path).suffix, strict=True)
        except Exception as exc:  # noqa: BLE001 -- it raises anything over bytes that are no pickle; it has not looked then
            return FileResult(covered=False, reason=f"picklescan could not read it ({type(exc).__name__})")
        named = [
            found
            for found in scanned.globals
            if found.safety is SafetyLevel.Dangerous
            and not is_allowed(found.module, found.name, policy.allowed_globals)
        ]
        findings = [
            Finding(
                file=path,
                rule="picklescan",
                category="code",
                severity=_severity(policy, sure=sure),
                message=plain(f"{path}: picklescan calls {found.module}.{found.name} dangerous"),
            )
            for found in named
            if sure or found.module.partition(".")[0] in sys.stdlib_module_names
        ]
        broken = sure and scanned.scan_err and bool(scanned.globals)
        return FileResult(findings, not broken, "picklescan could not read all of it" if broken else None)


def _reach(stream: BinaryIO, policy: Policy, size: int) -> int:
    """Return how many bytes from the first one on an unpickler would read; all where that is not known."""
    source = Source(stream)
    try:
        Machine(source, Budget.of(policy.limits), lambda _pickle: None, set(), 0).run()
    except LimitReached:
        return size
    return min(source.offset, size)


def _severity(policy: Policy, *, sure: bool) -> Severity:
    """Return how grave a global is. A text may begin as a pickle does: "cat", "dog"."""
    if policy.allow_pickle is AllowPickle.ANY:
        return "note"
    return "block" if sure else "flag"
