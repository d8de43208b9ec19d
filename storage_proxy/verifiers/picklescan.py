"""A second opinion on pickles: picklescan in its strict mode (https://github.com/mmaitre314/picklescan).

It knows what is bad and a little that is good, reads no stack, and takes a text for a pickle. So it never stands alone, and
what it says of globals that the policy allows, or of what only looks like a pickle, is not taken for more than it is.
"""

import sys
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import BinaryIO

from proxy_client.wire import Finding
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier, Severity, plain
from storage_proxy.verifiers.globals import is_allowed
from storage_proxy.verifiers.policy import AllowPickle, Policy

LARGEST = 64 << 20
"""Bytes of a file; it takes some 15 bytes of memory for each."""
_ARRAYS = (b"\x93NUMPY",)
_PROTO = b"\x80"


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
        from picklescan.scanner import SafetyLevel, scan_bytes  # noqa: PLC0415 -- for the worker processes alone

        # What scan_file_path does with the path that it opens.
        scanned = scan_bytes(stream, path, PurePosixPath(path).suffix, strict=True)
        findings = [
            Finding(
                file=path,
                rule="picklescan",
                category="code",
                severity=_severity(
                    policy, found.module, broken=scanned.scan_err and not head.startswith(_PROTO)
                ),
                message=plain(f"{path}: picklescan calls {found.module}.{found.name} dangerous"),
            )
            for found in scanned.globals
            if found.safety is SafetyLevel.Dangerous
            and not is_allowed(found.module, found.name, policy.allowed_globals)
        ]
        broken = scanned.scan_err and bool(scanned.globals)
        return FileResult(findings, not broken, "picklescan could not read all of it" if broken else None)


def _severity(policy: Policy, module: str, *, broken: bool) -> Severity:
    """Return how grave a global is. A text may begin like a pickle that breaks off: "cat", "dog"."""
    if policy.allow_pickle is AllowPickle.ANY:
        return "note"
    if not broken:
        return "block"
    return "flag" if module.partition(".")[0] in sys.stdlib_module_names else "note"
