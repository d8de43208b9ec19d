"""What a verifier is, what it answers, and how the answers of all become one verdict.

A verifier is one of three kinds: `SandboxedVerifier` (blocking code, run in a limited worker process: everything that
parses a stranger's bytes), `FileVerifier` (asynchronous: it asks a service) and `TreeVerifier` (needs all files at once).
It says what it found, and of each file whether it was looked at wholly: silence about a file is never a pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal
from uuid import UUID

from proxy_client import paths
from proxy_client.wire import Finding, Waiver
from storage_proxy.storages.base import Digests, PlannedFile
from storage_proxy.verifiers.policy import Policy

Verdict = Literal["clean", "flagged", "incomplete", "blocked"]
Severity = Literal["note", "flag", "block"]
"""`note` is for people and changes no verdict; `flag` asks for an approval; `block` refuses."""

LONGEST_PATH = 4 * paths.LONGEST_PATH
"""Characters of a file's name in a report: of every name, escaped, as it may be."""
_LONGEST_TEXT = 500
_SEVERITIES: dict[str, Verdict] = {"note": "clean", "flag": "flagged", "block": "blocked"}


@dataclass(frozen=True)
class StagedFile:
    """A whole file of an import that nobody can see yet.

    open: gives a fresh, blocking, seekable stream at its beginning, of a regular local file with a `fileno()`; the
    caller closes it. Raises `OSError` or `StorageError`.
    digests: None where nobody asked for them, as in `stowage verify`.
    """

    path: str
    size: int
    digests: Digests | None
    open: Callable[[], BinaryIO]


@dataclass(frozen=True)
class FileResult:
    """What one verifier says of one file. `covered` is false when it did not look, or not wholly; `reason` says why."""

    findings: Sequence[Finding] = ()
    covered: bool = True
    reason: str | None = None


@dataclass(frozen=True)
class TreeResult:
    """What one verifier says of all files: `covered` holds the paths that it looked at wholly."""

    findings: Sequence[Finding] = ()
    covered: Collection[str] = ()
    reason: str | None = None


class AbstractVerifier(ABC):
    """Looks at every file of an import before anything of it is visible. May be used for several imports at once.

    `name` is how the configuration and reports call it; `version` changes when its answers may.
    """

    name: str
    version: str


class FileVerifier(AbstractVerifier):
    """Examines one file at a time by waiting for somebody else: a service on a socket, a process of its own."""

    @abstractmethod
    async def examine_file(self, file: StagedFile, policy: Policy) -> FileResult:
        """Return what speaks against publishing the file. Cancelled when `policy.limits.seconds` are over.

        May raise anything: that counts as an error of this verifier, and the file as not covered. Blocks nothing.
        """


class SandboxedVerifier(AbstractVerifier):
    """Examines one file at a time with blocking code, in a worker process with little memory, no network and no writing.

    The worker makes its own instance, `type(self)(**self.arguments)`; `arguments` are JSON. Death of the process,
    too much memory or time are an error of this verifier for that file, and the file counts as not covered.
    """

    arguments: Mapping[str, Any] = {}

    @abstractmethod
    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:
        """Return what speaks against publishing the file at `path` (a name, not a place), whose bytes are `stream`.

        The stream is at its beginning, seekable, has a `fileno()` and is closed by the caller. Streams of many gigabytes
        come: read what is needed and keep little.
        """


class TreeVerifier(AbstractVerifier):
    """Examines all files together, once the last of them is whole."""

    @abstractmethod
    async def examine_tree(
        self, files: Sequence[StagedFile], planned: Sequence[PlannedFile], policy: Policy
    ) -> TreeResult:
        """Return what speaks against publishing. `planned` is what should be there, `files` what is, both in the plan's order."""


@dataclass
class Outcome:
    """What one verifier said in one import: findings, the paths it covered, and why it did not cover others."""

    name: str
    version: str
    required: bool
    covered: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def worst_severity(findings: Iterable[Finding]) -> Literal["clean", "flagged", "blocked"]:
    """Return what the findings alone amount to; a severity that is not known blocks."""
    verdicts = {_SEVERITIES.get(finding.severity, "blocked") for finding in findings}
    return "blocked" if "blocked" in verdicts else "flagged" if "flagged" in verdicts else "clean"


def waive(verifier: str, finding: Finding, waivers: Sequence[Waiver]) -> Finding:
    """Return the finding with the first waiver that holds for it, and with no other one: a verifier cannot waive.

    Files with bytes that are not the registry's are no matter of opinion: nothing waives what `integrity` finds.
    """
    holding: UUID | None = None
    if verifier != "integrity" and finding.severity != "note":
        for waiver in waivers:
            if (
                waiver.verifier == verifier
                and waiver.rule in {None, finding.rule}
                and waiver.file in {None, plain(finding.file, LONGEST_PATH)}
            ):
                holding = waiver.id
                break
    return finding if finding.waiver == holding else finding.model_copy(update={"waiver": holding})


def judge(outcomes: Sequence[Outcome], planned: Collection[str]) -> Verdict:
    """Return the verdict: clean < flagged < incomplete < blocked, the worst of all.

    Pure and monotone: a further finding, a higher severity, one more error or one covered file less never
    makes it better. Incomplete is: no planned file, no required verifier, an error of a required verifier, or a planned
    file that one of them did not cover. A waiver lets a finding pass, never a gap. What a verifier that is not required found counts in full, its gaps do not.
    """
    found = worst_severity(
        finding for outcome in outcomes for finding in outcome.findings if finding.waiver is None
    )
    if found == "blocked":
        return "blocked"
    required = [outcome for outcome in outcomes if outcome.required]
    whole = all(not outcome.errors and outcome.covered.issuperset(planned) for outcome in required)
    return found if planned and required and whole else "incomplete"


def plain(text: str, longest: int = _LONGEST_TEXT) -> str:
    r"""Return a stranger's text as it may stand in a report: control characters and lone surrogates escaped, then cut."""
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[: longest + 1]
    )
    return escaped if len(escaped) <= longest else f"{escaped[: longest - 1]}…"
