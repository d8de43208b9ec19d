"""One import's verification: each file as soon as it is whole, then all of them together, then one report."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from proxy_client.wire import Finding, VerificationReport, VerifierReport, Waiver
from storage_proxy.storages.base import PlannedFile
from storage_proxy.verifiers.base import (
    LONGEST_PATH,
    AbstractVerifier,
    FileVerifier,
    Outcome,
    SandboxedVerifier,
    StagedFile,
    TreeResult,
    TreeVerifier,
    judge,
    plain,
    waive,
    worst_severity,
)
from storage_proxy.verifiers.policy import Policy
from storage_proxy.verifiers.sandbox import Answer, Sandbox

MOST_FINDINGS = 1000
"""Of one verifier in a report; the gravest are kept, and one more says how many there were."""
_GRAVEST_FIRST = ("block", "flag", "note")


@dataclass
class _Record:
    """What one verifier has said so far. A file that is given again counts with its last bytes."""

    verifier: AbstractVerifier
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    answers: dict[str, Answer] = field(default_factory=dict)
    tree: TreeResult = field(default_factory=TreeResult)
    tree_error: str | None = None


class Verification:
    """Runs the verifiers over one import: `files` for all of them, some at a time, then `conclude` once."""

    def __init__(
        self,
        verifiers: Sequence[AbstractVerifier],
        policy: Policy,
        files: Sequence[PlannedFile],
        *,
        optional: frozenset[str] = frozenset(),
        waivers: Sequence[Waiver] = (),
        sandbox: Sandbox | None = None,
    ) -> None:
        """Prepare for `files`, the whole plan.

        optional: names of verifiers that need not cover every file; what they find counts all the same.
        waivers: what findings they hold for stands in nobody's way, and in the report.
        sandbox: where each `SandboxedVerifier` runs; without one they count as not having looked.
        """
        self._policy = policy
        self._planned = {file.path: file for file in files}
        self._optional = optional
        self._waivers = waivers
        self._sandbox = sandbox
        self._records = [_Record(verifier) for verifier in verifiers]
        self._files: dict[str, StagedFile] = {}
        self.relied_on: frozenset[UUID] = frozenset()
        """The waivers without which the report would say something else; known when there is one."""

    async def files(self, files: Sequence[StagedFile]) -> None:
        """Examine files of the plan, which are whole. One that is given again is examined again.

        Many small ones at a time cost much less than one after the other. Raises nothing that a verifier does wrong;
        `KeyError` for a file that the plan does not have.
        """
        self._files |= {self._planned[file.path].path: file for file in files}
        await asyncio.gather(
            *(
                self._examine_files(record, record.verifier, files)
                for record in self._records
                if isinstance(record.verifier, FileVerifier)
            ),
            self._examine_sandboxed(files),
        )

    async def conclude(self) -> VerificationReport:
        """Examine the files together, and return the report with the verdict."""
        for record in self._records:
            if isinstance(record.verifier, TreeVerifier):
                await self._examine_tree(record, record.verifier)
        outcomes = [self._outcome(record) for record in self._records]
        self.relied_on = frozenset(
            finding.waiver
            for outcome in outcomes
            for finding in outcome.findings
            if finding.waiver is not None
        )
        return VerificationReport(
            verdict=judge(outcomes, self._planned),
            verifiers=[
                self._report(record, outcome) for record, outcome in zip(self._records, outcomes, strict=True)
            ],
        )

    async def _examine_files(
        self, record: _Record, verifier: FileVerifier, files: Sequence[StagedFile]
    ) -> None:
        for file in files:
            await self._examine_file(record, verifier, file)

    async def _examine_file(self, record: _Record, verifier: FileVerifier, file: StagedFile) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._policy.limits.seconds):
                answer = Answer(await verifier.examine_file(file, self._policy))
        except Exception as exc:  # noqa: BLE001 -- a verifier is foreign code whose run ends here; its failure is never a pass
            answer = Answer(error=_told(exc))
        record.answers[file.path] = answer
        record.seconds += time.monotonic() - started

    async def _examine_sandboxed(self, files: Sequence[StagedFile]) -> None:
        chosen = [
            (record, record.verifier)
            for record in self._records
            if isinstance(record.verifier, SandboxedVerifier)
        ]
        if not chosen:
            return
        if self._sandbox is None:
            found = [[Answer(error="there is no worker process") for _ in chosen] for _ in files]
        else:
            found = await self._sandbox.examine([verifier for _, verifier in chosen], files, self._policy)
        for file, answers in zip(files, found, strict=True):
            for (record, _), answer in zip(chosen, answers, strict=True):
                record.answers[file.path] = answer
                record.seconds += answer.seconds

    async def _examine_tree(self, record: _Record, verifier: TreeVerifier) -> None:
        record.started_at, started = datetime.now(UTC), time.monotonic()
        there = [self._files[path] for path in self._planned if path in self._files]
        try:
            async with asyncio.timeout(self._policy.limits.seconds):
                record.tree = await verifier.examine_tree(there, list(self._planned.values()), self._policy)
        except Exception as exc:  # noqa: BLE001 -- as above
            record.tree_error = _told(exc)
        record.seconds = time.monotonic() - started

    def _outcome(self, record: _Record) -> Outcome:
        results = {path: answer.result for path, answer in record.answers.items() if answer.result}
        errors = [f"{path}: {answer.error}" for path, answer in record.answers.items() if answer.error]
        reasons = [f"{path}: {result.reason}" for path, result in results.items() if result.reason]
        tree = record.tree
        found = [finding for path in self._planned if path in results for finding in results[path].findings]
        found += tree.findings
        return Outcome(
            name=record.verifier.name,
            version=record.verifier.version,
            required=record.verifier.name not in self._optional,
            covered={path for path, result in results.items() if result.covered}
            | (set(tree.covered) & self._planned.keys()),
            findings=[waive(record.verifier.name, finding, self._waivers) for finding in found],
            errors=[record.tree_error, *errors] if record.tree_error else errors,
            reasons=[tree.reason, *reasons] if tree.reason else reasons,
        )

    def _report(self, record: _Record, outcome: Outcome) -> VerifierReport:
        found = worst_severity(finding for finding in outcome.findings if finding.waiver is None)
        scanned = len(outcome.covered)
        skipped = len(self._planned) - scanned
        told = outcome.errors or (outcome.reasons if skipped else [])
        more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        gap = "error" if outcome.errors else "incomplete" if skipped and outcome.required else None
        return VerifierReport(
            name=outcome.name,
            status="blocked" if found == "blocked" else gap or found,
            version=plain(outcome.version),
            scanned=scanned,
            infected=len({finding.file for finding in outcome.findings if finding.severity == "block"}),
            skipped=skipped,
            error=f"{plain(told[0])}{more}" if told else None,
            started_at=record.started_at,
            duration=record.seconds,
            findings=_bounded(outcome.findings),
        )


def _told(error: Exception) -> str:
    return "took too long" if isinstance(error, TimeoutError) else type(error).__name__


def _bounded(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings as they may be stored: printable, and not more than `MOST_FINDINGS`, the gravest first."""
    kept = findings
    if len(findings) > MOST_FINDINGS:
        rank = {severity: place for place, severity in enumerate(_GRAVEST_FIRST)}
        kept = sorted(findings, key=lambda finding: rank.get(finding.severity, 0))[:MOST_FINDINGS]
        counts = Counter(finding.severity for finding in findings)
        told = ", ".join(
            f"{count} of severity {plain(severity)}" for severity, count in sorted(counts.items())
        )
        kept.append(
            Finding(
                file=kept[0].file,
                rule="more-findings",
                category="limit",
                severity="note",
                message=f"only the first {MOST_FINDINGS} findings are kept of {told}",
            )
        )
    return [
        Finding(
            file=plain(finding.file, LONGEST_PATH),
            member=None if finding.member is None else plain(finding.member),
            rule=plain(finding.rule, 100),
            category=plain(finding.category, 100),
            severity=plain(finding.severity, 100),
            message=plain(finding.message),
            waiver=finding.waiver,
        )
        for finding in kept
    ]
