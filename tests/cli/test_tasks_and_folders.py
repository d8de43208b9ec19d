from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.stand_in import FOLDER_ID, TASK_ID, Outcome, StandIn, connection, file, steps, task, vfolder

Run = Callable[..., Outcome]

FAULT = {"code": "DISK_FULL", "message": "the volume is full", "step": "DOWNLOAD"}


def test_task_list_is_an_aligned_table(manager: StandIn, stowage: Run) -> None:
    stored = {"destination": {"__typename": "ArtifactStorageDestination", "storageName": "archive"}}
    running = task("RUNNING", step="DOWNLOAD", done=50, **stored)
    manager.answers["importTasks"] = connection([task("SUCCEEDED"), running])
    lines = stowage("task", "list").out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["ID", TASK_ID, TASK_ID]
    for title, first, second in [
        ("INTO", "folder models", "artifact storage archive"),
        ("STATE", "succeeded", "download"),
    ]:
        column = lines[0].index(title)
        assert lines[1][column:].startswith(first)
        assert lines[2][column:].startswith(second)


def test_task_list_filters_by_state_and_folder(manager: StandIn, stowage: Run) -> None:
    manager.answers["importTasks"] = connection([])
    stowage(
        "task", "list", "--status", "running", "--status", "pending", "--folder", "models", "--limit", "5"
    )
    [asked] = manager.arguments("importTasks")
    assert asked == {"status": ["RUNNING", "PENDING"], "vfolderId": FOLDER_ID, "first": 5}


def test_task_list_says_when_there_are_more(manager: StandIn, stowage: Run) -> None:
    manager.answers["importTasks"] = connection([task("SUCCEEDED")]) | {"count": 42}
    assert "1 of 42" in stowage("task", "list").err


def test_task_show_tells_everything(manager: StandIn, stowage: Run) -> None:
    result = {
        "success": False,
        "infectedCount": 1,
        "scannedCount": 2,
        "scannedAt": "2026-11-22T12:00:00+00:00",
        "scanTime": 0.5,
        "error": "os.system in model.bin",
        "metadata": {"entries": []},
    }
    verification = {"verifiers": [{"name": "pickle", "result": result}]}
    manager.answers["importTask"] = task("FAILED", error=FAULT, verificationResult=verification)
    lines = stowage("task", "show", TASK_ID).out.splitlines()
    assert "error         the volume is full (DISK_FULL)" in lines
    assert "verifier      pickle did not pass, 2 files, 1 infected: os.system in model.bin" in lines
    assert f"folder        models ({FOLDER_ID})" in lines


def test_task_show_of_an_unknown_task_names_the_remedy(manager: StandIn, stowage: Run) -> None:
    manager.answers["importTask"] = None
    outcome = stowage("task", "show", TASK_ID)
    assert outcome.status == 2
    assert "`stowage task list` shows yours" in outcome.err


def test_task_watch_waits_for_the_end(manager: StandIn, stowage: Run) -> None:
    outcome = stowage("task", "watch", TASK_ID, "--json")
    assert outcome.status == 0
    assert outcome.json["status"] == "SUCCEEDED"
    assert len(outcome.json["files"]) == 2


@pytest.mark.parametrize(("ended", "status"), [("CANCELLED", 0), ("SUCCEEDED", 1), ("FAILED", 1)])
def test_task_cancel_waits_for_the_end_and_its_status_tells_which(
    manager: StandIn, stowage: Run, ended: str, status: int
) -> None:
    manager.answers["cancelImportTask"] = {"task": task("RUNNING", step="DOWNLOAD")}
    manager.answers["importTask"] = steps(task("RUNNING", step="DOWNLOAD"), task(ended))
    outcome = stowage("task", "cancel", TASK_ID, "--json")
    assert outcome.status == status
    assert outcome.json["status"] == ended


def test_task_cancel_without_waiting_only_asks(manager: StandIn, stowage: Run) -> None:
    manager.answers["cancelImportTask"] = {"task": task("RUNNING", step="DOWNLOAD")}
    outcome = stowage("task", "cancel", TASK_ID, "--no-wait")
    assert (outcome.status, outcome.err) == (0, "The import of sample/tiny-bert@main is asked to stop.\n")


def test_folder_list_shows_every_page(manager: StandIn, stowage: Run) -> None:
    first = connection([vfolder()])
    first["pageInfo"] |= {"hasNextPage": True, "endCursor": "here"}
    second = connection([vfolder("other", permission="READ_ONLY")])

    def pages(after: str | None = None, **_arguments: object) -> dict[str, Any]:
        return second if after else first

    manager.answers["vfolders"] = pages
    rows = [line.split() for line in stowage("folder", "list").out.splitlines()[1:]]
    assert [(row[0], row[4]) for row in rows] == [("models", "rw_delete"), ("other", "read_only")]


def test_folder_list_filters(manager: StandIn, stowage: Run) -> None:
    stowage("folder", "list", "--search", "mod", "--writable")
    [asked] = manager.arguments("vfolders")
    assert (asked["search"], asked["writableOnly"]) == ("mod", True)


def test_folder_create_makes_one_for_models_unless_told_otherwise(manager: StandIn, stowage: Run) -> None:
    manager.answers["createVfolder"] = {"vfolder": vfolder("new")}
    assert stowage("folder", "create", "new", "--json").json["id"] == FOLDER_ID
    stowage("folder", "create", "new", "--mode", "data", "--host", "local:volume1")
    made = [asked["input"] for asked in manager.arguments("createVfolder")]
    assert [(each["usageMode"], each["host"]) for each in made] == [
        ("MODEL", None),
        ("DATA", "local:volume1"),
    ]


def test_folder_files_lists_the_tree_or_one_directory(manager: StandIn, stowage: Run) -> None:
    tree = {None: [file("a", 0, directory=True), file("z", 2048)], "a": [file("a/b", 1)]}
    manager.answers["vfolderFiles"] = lambda path=None, **_: tree[path]
    paths = [entry["path"] for entry in stowage("folder", "files", "models", "--json").json]
    assert paths == ["a/b", "z"]
    flat = stowage("folder", "files", "models", "--flat").out.splitlines()
    assert [line.split()[-1] for line in flat[1:3]] == ["a/", "z"]
    assert stowage("folder", "files", "models", "--path", "/a/", "--json").json[0]["path"] == "a/b"


def test_folder_files_of_an_unknown_folder_names_the_remedy(manager: StandIn, stowage: Run) -> None:
    outcome = stowage("folder", "files", "nowhere")
    assert outcome.status == 2
    assert "`stowage folder list` shows yours" in outcome.err


# Retries.


def test_task_retry_waits_for_the_new_import(manager: StandIn, stowage: Run) -> None:
    again = "99999999-9999-4999-8999-999999999999"
    manager.answers["retryImportTask"] = {"task": task("PENDING", id=again)}
    manager.answers["importTask"] = steps(task("RUNNING", id=again), task("SUCCEEDED", id=again))
    outcome = stowage("task", "retry", TASK_ID, "--json")
    assert (outcome.status, outcome.json["status"]) == (0, "SUCCEEDED")
    assert manager.arguments("retryImportTask") == [{"input": {"taskId": TASK_ID}}]
    assert {asked["id"] for asked in manager.arguments("importTask")} == {again}


def test_task_retry_without_waiting_names_the_new_task(manager: StandIn, stowage: Run) -> None:
    manager.answers["retryImportTask"] = {"task": task("PENDING")}
    outcome = stowage("task", "retry", TASK_ID, "--no-wait")
    assert outcome.status == 0
    assert f"stowage task watch {TASK_ID}" in outcome.err
    assert manager.arguments("importTask") == []


def test_task_retry_of_what_succeeded_is_wrong(manager: StandIn, stowage: Run) -> None:
    manager.refuse("retryImportTask", "CONFLICT", "this import succeeded", at="input.taskId")
    assert stowage("task", "retry", TASK_ID).status == 2


# Deletions.


def deletes(manager: StandIn, status: str = "DELETE_COMPLETE") -> None:
    manager.answers["deleteVfolder"] = {"vfolder": vfolder() | {"status": status}}


def test_folder_delete_in_a_pipe_needs_yes(manager: StandIn, stowage: Run) -> None:
    deletes(manager)
    outcome = stowage("folder", "delete", "models")
    assert (outcome.status, outcome.out) == (2, "")
    assert "--yes deletes without asking" in outcome.err
    assert manager.arguments("deleteVfolder") == []


def test_folder_delete_with_yes_deletes_that_folder(manager: StandIn, stowage: Run) -> None:
    deletes(manager)
    outcome = stowage("folder", "delete", "models", "--yes")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "Deleted folder models on local:volume1.\n")
    assert manager.arguments("deleteVfolder") == [{"input": {"vfolderId": FOLDER_ID}}]
    assert stowage("folder", "delete", "models", "--yes", "--json").json["status"] == "DELETE_COMPLETE"


def test_folder_delete_says_that_the_files_go_later(manager: StandIn, stowage: Run) -> None:
    deletes(manager, "DELETE_PENDING")
    outcome = stowage("folder", "delete", "models", "--yes")
    assert outcome.status == 0
    assert "deletes its files when it is back" in outcome.err


def test_folder_delete_of_one_that_is_in_use_is_wrong(manager: StandIn, stowage: Run) -> None:
    manager.refuse("deleteVfolder", "CONFLICT", "the import x into this folder is not finished")
    assert stowage("folder", "delete", "models", "--yes").status == 2


def test_a_name_is_that_of_the_folder_that_is_not_being_deleted(manager: StandIn, stowage: Run) -> None:
    other = "77777777-7777-4777-8777-777777777777"
    leaving = vfolder(identity=other) | {"status": "DELETE_PENDING"}
    manager.answers["vfolders"] = connection([leaving, vfolder()])
    deletes(manager)
    stowage("folder", "delete", "models", "--yes")
    assert manager.arguments("deleteVfolder") == [{"input": {"vfolderId": FOLDER_ID}}]
    manager.answers["vfolders"] = connection([leaving])
    stowage("folder", "delete", "models", "--yes")
    assert manager.arguments("deleteVfolder")[1] == {"input": {"vfolderId": other}}


def test_folder_hosts_lists_volumes(manager: StandIn, stowage: Run) -> None:
    manager.answers["volumes"] = [
        {
            "host": "local:volume1",
            "backend": "vfs",
            "capabilities": [],
            "totalBytes": "2048",
            "usedBytes": None,
        }
    ]
    assert stowage("folder", "hosts").out.splitlines()[1].split() == [
        "local:volume1",
        "vfs",
        "2.0",
        "KiB",
        "-",
    ]
    assert stowage("folder", "hosts", "--json").json[0]["totalBytes"] == 2048
