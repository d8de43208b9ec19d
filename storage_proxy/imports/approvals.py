"""Imports that wait for an administrator: how they begin to, what is said about them, and how long they do.

The staged bytes stay where they are. Whatever is decided, the import is queued again: an approved one is verified anew
and published if nothing else is found, any other removes its staging and ends.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from proxy_client.errors import Conflict, NotFound
from proxy_client.wire import Finding, ImportState, VerificationReport
from storage_proxy.imports.jobs import ImportJobs, check_held

_OVERDUE = """state = 'needs_approval' AND approval_until < now() AND finished_at IS NULL
    AND approved IS NULL AND refusal IS NULL AND NOT cancel_requested"""


class ApprovalNeeded(Exception):
    """Verification found something that an administrator has to decide about; its report is stored."""


def covers(approved: VerificationReport | None, report: VerificationReport) -> bool:
    """Whether an approval of one report holds for another: it has no flag that the approved one has not."""
    return approved is not None and _flags(report) <= _flags(approved)


def _flags(report: VerificationReport) -> set[tuple[str, Finding]]:
    return {
        (verifier.name, finding)
        for verifier in report.verifiers
        for finding in verifier.findings
        if finding.severity == "flag" and finding.waiver is None
    }


class Approvals:
    """What an import that needs approval hears, kept with it in its row."""

    def __init__(self, jobs: ImportJobs, patience: timedelta) -> None:
        """Give imports up that nobody decided about within `patience`."""
        self._jobs = jobs
        self._patience = patience

    async def wait(self, task_id: UUID, fence: int, changes: dict[str, Any]) -> None:
        """Let an import wait, and write columns of it. Raises `LeaseLost` or `CancelRequested`; then nothing is written."""
        columns = list(changes)
        sets = "".join(f', "{column}" = ${number}' for number, column in enumerate(columns, start=4))
        statement = f"""UPDATE imports SET state = 'needs_approval', approved = NULL, approval_until = now() + $3,
                   bytes_per_second = NULL, sequence = nextval('imports_sequence'){sets}
            WHERE task_id = $1 AND fence = $2 AND finished_at IS NULL RETURNING cancel_requested, publishing"""  # noqa: S608 -- names of columns, from this package
        async with self._jobs.changing() as connection:
            check_held(
                await connection.fetchrow(statement, task_id, fence, self._patience, *changes.values())
            )

    async def approve(self, task_id: UUID) -> None:
        """Let a waiting import go on: what its report says now is approved, nothing else. May be repeated.

        Raises `NotFound`, and `Conflict` for an import that does not wait.
        """
        approve = "UPDATE imports SET approved = verification, attempts = 0 WHERE task_id = $1"
        await self._decide(task_id, lambda row: row["approved"] is not None, approve)

    async def reject(self, task_id: UUID, reason: str | None) -> None:
        """Let a waiting import end REJECTED. May be repeated; raises as `approve`."""
        refusal = (
            f"an administrator rejected the import: {reason}"
            if reason
            else "an administrator rejected the import"
        )
        reject = "UPDATE imports SET refusal = $2, attempts = 0 WHERE task_id = $1"
        await self._decide(task_id, lambda row: row["refusal"] is not None, reject, refusal)

    async def _decide(
        self, task_id: UUID, same: Callable[[Mapping[str, Any]], bool], statement: str, *arguments: str
    ) -> None:
        async with self._jobs.changing() as connection:
            row = await connection.fetchrow("SELECT * FROM imports WHERE task_id = $1 FOR UPDATE", task_id)
            if row is None:
                raise NotFound(f"there is no import {task_id}", field="task_id")
            if same(row):
                return
            decided = row["approved"] is not None or row["refusal"] is not None or row["cancel_requested"]
            if row["state"] != ImportState.NEEDS_APPROVAL or decided:
                raise Conflict(f"import {task_id} does not wait for approval", field="task_id")
            await connection.execute(statement, task_id, *arguments)
            await self._jobs.enqueue(connection, task_id)

    async def give_up(self) -> Sequence[UUID]:
        """Let the imports end REJECTED that waited too long; returns them."""
        # Looked at by every worker every second: only a change may take the lock and wake the listeners.
        if not await self._jobs.ask("fetchval", f"SELECT EXISTS (SELECT FROM imports WHERE {_OVERDUE})"):  # noqa: S608 -- a constant
            return []
        async with self._jobs.changing() as connection:
            rows = await connection.fetch(
                f"UPDATE imports SET refusal = $1, attempts = 0 WHERE {_OVERDUE} RETURNING task_id",  # noqa: S608 -- as above
                "nobody approved the import in time; import it again",
            )
            for row in rows:
                await self._jobs.enqueue(connection, row["task_id"])
        return [row["task_id"] for row in rows]
