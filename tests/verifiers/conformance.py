"""What every verifier that examines one file must keep to, whatever it looks for."""

import io
import os
from typing import BinaryIO

from proxy_client.wire import Finding
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier, plain
from storage_proxy.verifiers.policy import Policy

SEVERITIES = {"note", "flag", "block"}
HONEST: dict[str, bytes] = {
    "README.md": b"# A model\n\nIt never calls `os.system` or `eval`.\n",
    "config.json": b'{"architectures": ["GPT2"], "vocab_size": 100}\n',
    "vocab.txt": b"cat\ndog\nbird\n",
    "tokenizer.model": b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02",
    "empty": b"",
    "weights.bin": b"\x00\x3c\x66\x2e" * 500,
}


def examine(
    verifier: SandboxedVerifier, path: str, content: bytes, policy: Policy | None = None
) -> FileResult:
    """Run a verifier over bytes as its worker process would, and hold its answer to what all answers are."""
    stream = io.BytesIO(content)
    result = verifier.examine(path, stream, len(content), policy or Policy())
    check_result(path, result)
    assert not stream.closed
    return result


def check_result(path: str, result: FileResult) -> None:
    for finding in result.findings:
        check_finding(path, finding)
    if not result.covered:
        assert result.reason
        assert plain(result.reason) == result.reason


def check_finding(path: str, finding: Finding) -> None:
    assert finding.file == path
    assert finding.severity in SEVERITIES
    assert finding.rule
    assert finding.category
    assert finding.message
    assert plain(finding.message) == finding.message
    assert finding.member is None or plain(finding.member) == finding.member


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- no path is wanted


def check_descriptors(verifier: SandboxedVerifier, stream: BinaryIO, size: int) -> None:
    """Hold a verifier to leaving no file open behind it."""
    verifier.examine("model.bin", stream, size, Policy())
    before = open_descriptors()
    for _ in range(3):
        stream.seek(0)
        verifier.examine("model.bin", stream, size, Policy())
    assert open_descriptors() == before
