"""What every verifier offers, and how their reports become one verdict."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from proxy_client.wire import Finding, VerificationReport, VerifierReport
from storage_proxy.storages.base import Digests, ImportPlan, StagingArea


class AbstractVerifier(ABC):
    """Looks at every file of an import before anything of it is visible."""

    name: str
    version: str

    @abstractmethod
    async def examine(
        self, plan: ImportPlan, digests: Mapping[str, Digests], staging: StagingArea
    ) -> list[Finding]:
        """Return what speaks against publishing, in the files' order; an empty list is a clean bill.

        `digests` holds, by path, what each file's present bytes hash to; a path of the plan that is not in it was not found.
        `staging` gives the bytes of files that were fetched.
        """


async def verify(
    verifiers: Sequence[AbstractVerifier],
    plan: ImportPlan,
    digests: Mapping[str, Digests],
    staging: StagingArea,
) -> VerificationReport:
    """Run the verifiers one after the other. The verdict is the worst of all, and never clean without coverage.

    A verifier that raises counts as one that did not look: incomplete, never clean.
    """
    reports = [await _run(verifier, plan, digests, staging) for verifier in verifiers]
    covered = (
        bool(plan.files) and bool(reports) and all(report.scanned >= len(plan.files) for report in reports)
    )
    statuses = {report.status for report in reports}
    if "blocked" in statuses:
        verdict = "blocked"
    elif not covered or statuses & {"incomplete", "error"}:
        verdict = "incomplete"
    else:
        verdict = "flagged" if "flagged" in statuses else "clean"
    return VerificationReport.model_validate({"verdict": verdict, "verifiers": reports})


async def _run(
    verifier: AbstractVerifier, plan: ImportPlan, digests: Mapping[str, Digests], staging: StagingArea
) -> VerifierReport:
    started_at, started = datetime.now(UTC), time.monotonic()
    findings: list[Finding] = []
    error: str | None = None
    scanned = sum(file.path in digests for file in plan.files)
    try:
        findings = await verifier.examine(plan, digests, staging)
    except asyncio.CancelledError:
        raise
    except Exception as exc:  # noqa: BLE001 -- a verifier is foreign code whose run ends here; its failure is never a pass
        error, scanned = type(exc).__name__, 0
    if error is not None:
        status = "error"
    elif findings:
        status = "blocked" if any(finding.severity == "block" for finding in findings) else "flagged"
    else:
        status = "clean" if scanned == len(plan.files) else "incomplete"
    return VerifierReport.model_validate(
        {
            "name": verifier.name,
            "status": status,
            "version": verifier.version,
            "scanned": scanned,
            "infected": len({finding.file for finding in findings if finding.severity == "block"}),
            "skipped": len(plan.files) - scanned,
            "error": error,
            "started_at": started_at,
            "duration": time.monotonic() - started,
            "findings": findings,
        }
    )
