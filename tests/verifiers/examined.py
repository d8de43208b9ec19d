"""Examines bytes with the structure verifier, in this process."""

import io

from storage_proxy.verifiers.base import FileResult, Verdict, worst_severity
from storage_proxy.verifiers.policy import Policy
from storage_proxy.verifiers.structure import StructureVerifier


def examine(path: str, data: bytes, policy: Policy | None = None) -> FileResult:
    return StructureVerifier().examine(path, io.BytesIO(data), len(data), policy or Policy())


def verdict(result: FileResult) -> Verdict:
    found = worst_severity(result.findings)
    return found if result.covered or found == "blocked" else "incomplete"


def rules(path: str, data: bytes, policy: Policy | None = None) -> set[str]:
    """The rules of everything that refuses the file."""
    return {finding.rule for finding in examine(path, data, policy).findings if finding.severity == "block"}
