"""What a command does with an import that was ordered: wait for it, then say what became of it."""

import json
from typing import Any

from rich.text import Text

from stowage.client import StowageClient, for_commands
from stowage.commands.output import (
    console,
    error,
    human_duration,
    human_size,
    local_time,
    moment,
    note,
    plain,
    print_facts,
    print_json,
    print_table,
)
from stowage.commands.waiting import (
    TERMINAL,
    amounts,
    model_name,
    progress_console,
    stage_name,
    view_for,
    wait_for_import,
)
from stowage.documents import ImportTask, VFolderFile

SUCCEEDED, FAILED, INTERRUPTED = 0, 1, 130
FILES_SHOWN = 50


def follow(client: StowageClient, task: ImportTask, *, as_json: bool) -> int:
    """Wait until the import ends, show how it goes and what came of it; return the exit status.

    Ctrl-C leaves the import running and says how to come back to it.
    """
    try:
        if not as_json:
            console().print(Text(f"Importing {plain(model_name(task))} into {plain(destination_name(task))}"))
            console().print(Text(f"Task {plain(task['id'])}", style="dim"))
        with view_for(progress_console(as_json=as_json)) as view:
            task = wait_for_import(client, task, view.show)
    except KeyboardInterrupt:
        note("")
        note("The import goes on without you.")
        note(f"  watch it:   stowage task watch {task['id']}")
        note(f"  cancel it:  stowage task cancel {task['id']}")
        return INTERRUPTED
    return report(client, task, as_json=as_json)


def report(client: StowageClient, task: ImportTask, *, as_json: bool) -> int:
    """Say where the import stands, with its files where it filled a folder; return the exit status."""
    vfolder = task["destination"].get("vfolder")
    files = None
    if task["status"] == "SUCCEEDED" and vfolder is not None:
        files = client.vfolder_tree(vfolder["id"], None if task["path"] == "/" else task["path"])
    if as_json:
        print_json(document(task, files))
    else:
        _print_outcome(task, files)
    if task["status"] in {"FAILED", "CANCELLED"}:
        error(outcome(task))
        return FAILED
    return SUCCEEDED


def document(task: ImportTask, files: list[VFolderFile] | None) -> dict[str, Any]:
    """Return the JSON document of an import: the task, and `files`, null where no folder was filled."""
    return {**task, "files": files}


def outcome(task: ImportTask) -> str:
    """Write why an import brought nothing."""
    if task["status"] == "CANCELLED":
        return f"the import of {model_name(task)} was cancelled; the destination is as it was"
    fault = task["error"]
    if fault is None:
        return f"the import of {model_name(task)} failed"
    at = f", at {fault['step'].lower()}" if fault["step"] else ""
    return f"the import of {model_name(task)} failed: {for_commands(fault['message'])} ({fault['code']}{at})"


def destination_name(task: ImportTask) -> str:
    """Write where an import goes."""
    if vfolder := task["destination"].get("vfolder"):
        return f"folder {vfolder['name']}"
    return f"artifact storage {task['destination'].get('storageName')}"


def print_task(task: ImportTask) -> None:
    """Write everything about one import."""
    vfolder = task["destination"].get("vfolder")
    fault = task["error"]
    verifiers = (task["verificationResult"] or {}).get("verifiers", [])
    print_facts(
        [
            ("task", task["id"]),
            ("model", model_name(task)),
            ("commit", task["commit"]),
            ("state", stage_name(task)),
            ("progress", amounts(task).strip("()")),
            ("error", None if fault is None else f"{for_commands(fault['message'])} ({fault['code']})"),
            ("storage", task["destination"].get("storageName")),
            ("folder", None if vfolder is None else f"{vfolder['name']} ({vfolder['id']})"),
            ("host", None if vfolder is None else vfolder["host"]),
            ("path", task["path"]),
            *(("verifier", verifier_line(entry)) for entry in verifiers),
            *(("finding", line) for entry in verifiers for line in finding_lines(entry)),
            ("requested by", task["requestedBy"]["email"]),
            ("request", task["requestId"]),
            ("ordered", local_time(task["createdAt"])),
            ("started", local_time(task["startedAt"])),
            ("ended", local_time(task["finishedAt"])),
        ]
    )


def verifier_line(entry: dict[str, Any]) -> str:
    """Write what one verifier said."""
    result = entry["result"]
    verdict = "passed" if result["success"] else "did not pass"
    reason = f": {result['error']}" if result["error"] else ""
    return f"{entry['name']} {verdict}, {result['scannedCount']} files, {result['infectedCount']} infected{reason}"


def finding_lines(entry: dict[str, Any]) -> list[str]:
    """Write what one verifier found, a line for each finding."""
    facts = entry["result"].get("metadata", {}).get("entries", [])
    lines = []
    for fact in facts:
        if fact["key"].startswith("finding."):
            found = json.loads(fact["value"])
            severity = f"waived {found['severity']}" if found.get("waiver") else found["severity"]
            lines.append(f"{severity} {found['rule']}: {found['message']}")
    return lines


def _print_outcome(task: ImportTask, files: list[VFolderFile] | None) -> None:
    if task["status"] not in TERMINAL:
        print_facts(
            [
                ("task", task["id"]),
                ("model", model_name(task)),
                ("destination", destination_name(task)),
                ("path", task["path"]),
                ("state", stage_name(task)),
            ]
        )
        note("It goes on by itself. Watch it:")
        note(f"  stowage task watch {task['id']}")
        return
    if task["status"] != "SUCCEEDED":
        return
    out = console()
    brought = f"Imported {plain(model_name(task))}: {file_count(task['filesDone'])}, {human_size(task['bytesDone'])}"
    if task["startedAt"] and task["finishedAt"]:
        took = moment(task["finishedAt"]) - moment(task["startedAt"])
        brought += f" in {human_duration(took.total_seconds())}"
    out.print(Text(brought, style="green"))
    if files is not None:
        out.print()
        print_files(files, limit=FILES_SHOWN)
        out.print()
    vfolder = task["destination"].get("vfolder")
    print_facts(
        [
            ("folder", None if vfolder is None else f"{vfolder['name']} ({vfolder['id']})"),
            ("host", None if vfolder is None else vfolder["host"]),
            ("storage", task["destination"].get("storageName")),
            ("path", task["path"]),
            ("commit", task["commit"]),
        ]
    )


def print_files(files: list[VFolderFile], *, limit: int | None = None) -> None:
    """Write a table of files with sizes and their sum; of more than `limit` only the first are shown."""
    shown = files if limit is None or len(files) <= limit else files[:limit]
    print_table(
        ["SIZE", "CHANGED", "FILE"],
        [
            [
                "-" if entry["isDirectory"] else human_size(entry["size"]),
                local_time(entry["modifiedAt"]),
                entry["path"] + ("/" if entry["isDirectory"] else ""),
            ]
            for entry in shown
        ],
        right=["SIZE"],
        spare=["CHANGED"],
    )
    if len(shown) < len(files):
        console().print(f"… and {len(files) - len(shown)} more")
    plain_files = [entry for entry in files if not entry["isDirectory"]]
    total = human_size(sum(entry["size"] for entry in plain_files))
    console().print(f"{file_count(len(plain_files))}, {total}")


def file_count(count: int) -> str:
    """Write a number of files."""
    return "1 file" if count == 1 else f"{count} files"
