"""What goes along with the examination of one file: where one is in it, what was found, what was not looked at."""

import io
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from proxy_client.wire import Finding
from storage_proxy.verifiers import pickle_stream
from storage_proxy.verifiers.base import FileResult, Severity, plain
from storage_proxy.verifiers.policy import Policy, RemoteCode
from storage_proxy.verifiers.streams import Bomb, Broken, Budget, LimitReached, Slice, buffered

HEAD = 1 << 16
"""Bytes from the beginning that tell what content is."""

_MOST_FINDINGS = 200
_MOST_REASONS = 5


@dataclass
class Examination:
    """The examination of one file: its policy, what it may still cost, and what is known so far."""

    path: str
    policy: Policy
    budget: Budget
    opcodes: pickle_stream.Budget
    findings: list[Finding] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Keep a finding, once; of too many the first are kept, and one of each rule, lest a waiver cover others."""
        findings = self.findings
        if finding in findings[-20:]:
            return
        if len(findings) < _MOST_FINDINGS:
            findings.append(finding)
        elif all(_kind(found) != _kind(finding) for found in findings):
            kinds = Counter(map(_kind, findings))
            place = next(
                (at for at in range(len(findings) - 1, -1, -1) if kinds[_kind(findings[at])] > 1), None
            )
            if place is None:
                self.gap("it has findings of too many rules")
            else:
                findings[place] = finding

    def gap(self, reason: str) -> None:
        """Note that something was not looked at."""
        if len(self.gaps) < _MOST_FINDINGS:
            self.gaps.append(reason)

    def result(self) -> FileResult:
        """Return findings and coverage. A gap anywhere means that the file is not covered."""
        shown = [plain(gap, 200) for gap in self.gaps[:_MOST_REASONS]]
        return FileResult(
            findings=self.findings, covered=not self.gaps, reason=plain("; ".join(shown)) if shown else None
        )


def _kind(finding: Finding) -> tuple[str, str]:
    return finding.rule, finding.severity


@dataclass(frozen=True)
class Content:
    """Some content: a whole file, or what lies inside a container.

    name: what decides which loader would take it (a path; only its end matters). member: how reports call it, None for the file
    itself, else names separated by `!`. depth: containers around it. size: None where it is known only after unpacking.
    """

    examination: Examination
    stream: BinaryIO
    known_size: int | None
    name: str
    member: str | None = None
    depth: int = 0

    @property
    def budget(self) -> Budget:
        """What the whole examination may still cost."""
        return self.examination.budget

    @property
    def size(self) -> int:
        """The size in bytes; may have to unpack everything."""
        return self.stream.seek(0, io.SEEK_END) if self.known_size is None else self.known_size

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on, lower case; empty where there is none."""
        last = self.name.rpartition("/")[2]
        return last[last.rfind(".") :].lower() if "." in last else ""

    def read_at(self, offset: int, size: int) -> bytes:
        """Read at most `size` bytes; fewer only where the content ends."""
        self.stream.seek(offset)
        return self.stream.read(size)

    def part(self, offset: int, size: int, name: str | None = None) -> "Content":
        """Return a part of this content that lies in it as it is."""
        stream = buffered(Slice(self.stream, offset, size))
        if name is None:
            return replace(self, stream=stream, known_size=size)
        return self.inside(stream, size, name)

    def inside(self, stream: BinaryIO, size: int | None, name: str | None) -> "Content":
        """Return what this container holds under `name`, or with `name` None what it unpacks to."""
        if name is None:
            return replace(self, stream=stream, known_size=size, depth=self.depth + 1)
        member = name if self.member is None else f"{self.member}!{name}"
        return replace(self, stream=stream, known_size=size, depth=self.depth + 1, name=name, member=member)

    def renamed(self, name: str) -> "Content":
        """Return the same content under another name."""
        return replace(self, name=name)

    def block(self, rule: str, category: str, message: str, member: str | None = None) -> None:
        """Note what refuses the file."""
        self._note("block", rule, category, message, member)

    def flag(self, rule: str, category: str, message: str, member: str | None = None) -> None:
        """Note what somebody has to look at."""
        self._note("flag", rule, category, message, member)

    def remote_code(self, rule: str, message: str, member: str | None = None) -> None:
        """Note code that a loader may run; the policy says how grave that is."""
        severities: dict[RemoteCode, Severity] = {
            RemoteCode.ALLOW: "note",
            RemoteCode.FLAG: "flag",
            RemoteCode.BLOCK: "block",
        }
        self._note(severities[self.examination.policy.remote_code], rule, "remote-code", message, member)

    def gap(self, reason: str | Exception) -> None:
        """Note that something was not looked at. A bomb is not merely that."""
        if isinstance(reason, Bomb):
            self.block("bomb", "archive", str(reason))
        where = "" if self.member is None else f"{self.member}: "
        self.examination.gap(f"{where}{reason}")

    def _note(self, severity: Severity, rule: str, category: str, message: str, member: str | None) -> None:
        where = self.member if member is None else self.inside(self.stream, 0, member).member
        finding = Finding(
            file=self.examination.path,
            member=None if where is None else plain(where),
            rule=rule,
            category=category,
            severity=severity,
            message=plain(message),
        )
        self.examination.add(finding)


STOPS = (Broken, LimitReached)
"""What ends the look at one content and leaves a gap."""
