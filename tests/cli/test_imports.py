import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.stand_in import (
    FOLDER_ID,
    TASK_ID,
    Outcome,
    StandIn,
    connection,
    file,
    order,
    revision,
    steps,
    task,
    vfolder,
)

Run = Callable[..., Outcome]

FAULT = {"code": "SOURCE_UNAVAILABLE", "message": "the hub gave no answer", "step": "DOWNLOAD"}


def test_an_import_is_waited_for_and_says_where_its_files_lie(manager: StandIn, stowage: Run) -> None:
    outcome = stowage("import", "sample/tiny-bert", "--to", "models")
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert [line.split() for line in lines if "sample/tiny-bert/main/" in line] == [
        ["30", "B", "2026-11-22", "12:00:01", "sample/tiny-bert/main/config.json"],
        ["70", "B", "2026-11-22", "12:00:01", "sample/tiny-bert/main/model.safetensors"],
    ]
    assert "Imported sample/tiny-bert@main: 2 files, 100 B in 4.0 s" in lines
    assert "2 files, 100 B" in lines
    assert f"folder  models ({FOLDER_ID})" in lines
    assert "host    local:volume1" in lines
    assert "path    sample/tiny-bert/main" in lines


def test_a_pipe_gets_a_line_for_every_change_of_state_or_step(manager: StandIn, stowage: Run) -> None:
    out = stowage("import", "sample/tiny-bert", "--to", "models").out
    progress = [line for line in out.splitlines() if line.startswith("sample/tiny-bert@main: ")]
    assert progress == [
        "sample/tiny-bert@main: pending",
        "sample/tiny-bert@main: download 50% (50 B of 100 B, 1 of 2 files)",
        "sample/tiny-bert@main: verify 100% (100 B of 100 B, 2 of 2 files)",
        "sample/tiny-bert@main: succeeded (100 B of 100 B, 2 of 2 files)",
    ]


def test_a_pipe_gets_a_line_for_about_every_tenth_and_none_twice(manager: StandIn, stowage: Run) -> None:
    manager.answers["importTask"] = steps(
        *(task("RUNNING", step="DOWNLOAD", done=done) for done in (0, 3, 9, 10, 11, 34, 38, 100)),
        task("SUCCEEDED"),
    )
    out = stowage("import", "sample/tiny-bert", "--to", "models").out
    shares = [line.split()[2] for line in out.splitlines() if ": download" in line]
    assert shares == ["0%", "10%", "34%", "100%"]


def test_json_is_one_document_with_the_task_its_destination_and_files(manager: StandIn, stowage: Run) -> None:
    outcome = stowage("import", "sample/tiny-bert", "--to", "models", "--json")
    assert outcome.status == 0
    assert outcome.json["id"] == TASK_ID
    assert outcome.json["status"] == "SUCCEEDED"
    assert outcome.json["error"] is None
    assert outcome.json["destination"]["vfolder"] == {
        "id": FOLDER_ID,
        "name": "models",
        "host": "local:volume1",
    }
    assert [(entry["path"], entry["size"]) for entry in outcome.json["files"]] == [
        ("sample/tiny-bert/main/config.json", 30),
        ("sample/tiny-bert/main/model.safetensors", 70),
    ]
    assert outcome.err == ""


@pytest.mark.parametrize("ended", ["FAILED", "CANCELLED"])
def test_an_import_that_brought_nothing_exits_with_1(manager: StandIn, stowage: Run, ended: str) -> None:
    manager.answers["importTask"] = task(ended, error=FAULT if ended == "FAILED" else None)
    outcome = stowage("import", "sample/tiny-bert", "--to", "models")
    assert outcome.status == 1
    reason = "failed: the hub gave no answer (SOURCE_UNAVAILABLE, at download)"
    assert (reason if ended == "FAILED" else "was cancelled") in outcome.err


def test_json_of_a_failed_import_holds_the_error_and_no_files(manager: StandIn, stowage: Run) -> None:
    manager.answers["importTask"] = task("FAILED", error=FAULT)
    outcome = stowage("import", "sample/tiny-bert", "--to", "models", "--json")
    assert outcome.status == 1
    assert outcome.json["error"] == FAULT
    assert outcome.json["files"] is None


def test_no_wait_orders_and_says_how_to_watch(manager: StandIn, stowage: Run) -> None:
    outcome = stowage("import", "sample/tiny-bert", "--to", "models", "--no-wait")
    assert outcome.status == 0
    assert manager.arguments("importTask") == []
    assert TASK_ID in outcome.out
    assert f"stowage task watch {TASK_ID}" in outcome.err


def test_options_reach_the_manager(manager: StandIn, stowage: Run) -> None:
    stowage(
        *("import", "sample/tiny-bert@v1.0", "--to", "models", "--path", "here"),
        *("--on-conflict", "overwrite", "--force"),
    )
    [ordered] = manager.arguments("importArtifacts")
    assert ordered["input"] == {
        "artifactRevisionIds": ["r-1"],
        "vfolderId": FOLDER_ID,
        "options": {"path": "here", "onConflict": "OVERWRITE", "force": True},
    }


def test_the_revision_is_main_unless_another_one_is_named(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([])
    manager.answers["scanArtifactModels"] = {"artifactRevision": connection([revision()])}
    stowage("import", "sample/tiny-bert", "--to", "models")
    stowage("import", "sample/tiny-bert@feature/x", "--to", "models")
    scanned = [asked["input"]["models"][0]["revision"] for asked in manager.arguments("scanArtifactModels")]
    assert scanned == ["main", "feature/x"]


def test_what_is_in_the_catalogue_is_not_scanned(manager: StandIn, stowage: Run) -> None:
    manager.refuse("scanArtifactModels", "FORBIDDEN", "only administrators scan")
    assert stowage("import", "sample/tiny-bert", "--to", "models").status == 0


def test_what_is_not_in_the_catalogue_is_scanned(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([])
    manager.answers["scanArtifactModels"] = {"artifactRevision": connection([revision()])}
    assert stowage("import", "sample/tiny-bert", "--to", "models").status == 0
    [scan] = manager.arguments("scanArtifactModels")
    assert scan["input"]["models"] == [{"modelId": "sample/tiny-bert", "revision": "main"}]


def test_a_user_is_told_whom_to_ask_for_a_scan(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([])
    manager.refuse("scanArtifactModels", "FORBIDDEN", "only administrators scan")
    outcome = stowage("import", "sample/tiny-bert", "--to", "models")
    assert outcome.status == 3
    assert "ask one for `stowage scan sample/tiny-bert@main`" in outcome.err


def test_without_a_folder_the_import_goes_to_the_artifact_storage(manager: StandIn, stowage: Run) -> None:
    stored = {"destination": {"__typename": "ArtifactStorageDestination", "storageName": "archive"}}
    manager.answers["importTask"] = task("SUCCEEDED", **stored)
    outcome = stowage("import", "sample/tiny-bert")
    assert outcome.status == 0
    assert manager.arguments("importArtifacts")[0]["input"]["vfolderId"] is None
    assert "storage  archive" in outcome.out


def test_what_the_artifact_storage_holds_already_is_done(manager: StandIn, stowage: Run) -> None:
    manager.answers["importArtifacts"] = {"artifactRevisions": connection([]), "tasks": [order(None)]}
    assert "--force imports it again" in stowage("import", "sample/tiny-bert").out
    outcome = stowage("import", "sample/tiny-bert", "--json")
    assert outcome.status == 0
    assert (outcome.json["id"], outcome.json["artifactRevision"]["version"]) == (None, "main")


def test_create_makes_a_folder_for_models(manager: StandIn, stowage: Run) -> None:
    manager.answers["vfolders"] = connection([])
    manager.answers["createVfolder"] = {"vfolder": vfolder("new")}
    outcome = stowage("import", "sample/tiny-bert", "--to", "new", "--create")
    assert outcome.status == 0
    [made] = manager.arguments("createVfolder")
    assert made["input"] == {"name": "new", "usageMode": "MODEL", "host": None, "projectId": None}
    assert "Made folder new on local:volume1" in outcome.out


def test_create_takes_a_folder_that_is_there(manager: StandIn, stowage: Run) -> None:
    assert stowage("import", "sample/tiny-bert", "--to", "models", "--create").status == 0
    assert manager.arguments("createVfolder") == []


def test_create_leaves_a_folder_alone_that_the_caller_may_only_read(manager: StandIn, stowage: Run) -> None:
    theirs = vfolder(identity="9c1f4b5e-2f0d-4c57-8d8e-0f6a2b9d4c99", permission="READ_ONLY")
    manager.answers["vfolders"] = connection([theirs])
    manager.answers["createVfolder"] = {"vfolder": vfolder()}
    stowage("import", "sample/tiny-bert", "--to", "models", "--create")
    assert manager.arguments("importArtifacts")[0]["input"]["vfolderId"] == FOLDER_ID


def test_a_model_that_is_nowhere_makes_no_folder(manager: StandIn, stowage: Run) -> None:
    manager.answers["vfolders"] = manager.answers["artifacts"] = connection([])
    manager.refuse("scanArtifactModels", "SOURCE_NOT_FOUND", "the registry has no sample/nope")
    outcome = stowage("import", "sample/nope", "--to", "new", "--create")
    assert outcome.status == 2
    assert "the registry has no sample/nope (SOURCE_NOT_FOUND)" in outcome.err
    assert manager.arguments("createVfolder") == []


def test_a_folder_that_is_not_there_names_the_remedy(manager: StandIn, stowage: Run) -> None:
    outcome = stowage("import", "sample/tiny-bert", "--to", "nowhere")
    assert outcome.status == 2
    assert "--create makes it" in outcome.err
    assert manager.arguments("importArtifacts") == []


def test_a_folder_is_found_by_its_exact_name(manager: StandIn, stowage: Run) -> None:
    longer = vfolder("models-2", identity="9c1f4b5e-2f0d-4c57-8d8e-0f6a2b9d4c99")
    manager.answers["vfolders"] = connection([longer, vfolder()])
    stowage("import", "sample/tiny-bert", "--to", "models")
    assert manager.arguments("importArtifacts")[0]["input"]["vfolderId"] == FOLDER_ID


def test_a_folder_is_found_on_a_later_page(manager: StandIn, stowage: Run) -> None:
    first = connection([vfolder("models-2")])
    first["pageInfo"] |= {"hasNextPage": True, "endCursor": "here"}
    manager.answers["vfolders"] = lambda after=None, **_: (
        connection([vfolder()]) if after == "here" else first
    )
    assert stowage("import", "sample/tiny-bert", "--to", "models").status == 0


def test_a_folder_is_found_by_its_id(manager: StandIn, stowage: Run) -> None:
    manager.answers["vfolder"] = vfolder()
    assert stowage("import", "sample/tiny-bert", "--to", FOLDER_ID).status == 0
    assert manager.arguments("vfolder") == [{"id": FOLDER_ID}]


def test_of_two_folders_of_one_name_the_writable_one_is_meant(manager: StandIn, stowage: Run) -> None:
    other = vfolder(identity="9c1f4b5e-2f0d-4c57-8d8e-0f6a2b9d4c99", permission="READ_ONLY")
    manager.answers["vfolders"] = connection([other, vfolder()])
    stowage("import", "sample/tiny-bert", "--to", "models")
    assert manager.arguments("importArtifacts")[0]["input"]["vfolderId"] == FOLDER_ID


def test_two_writable_folders_of_one_name_are_told_apart_by_id(manager: StandIn, stowage: Run) -> None:
    other = "9c1f4b5e-2f0d-4c57-8d8e-0f6a2b9d4c99"
    manager.answers["vfolders"] = connection([vfolder(identity=other), vfolder()])
    outcome = stowage("import", "sample/tiny-bert", "--to", "models")
    assert outcome.status == 2
    assert other in outcome.err
    assert FOLDER_ID in outcome.err


@pytest.mark.parametrize("model", ["tiny-bert", "a/b/c", "sample/", "../x", "sample/tiny-bert@", "a b/c"])
def test_what_is_no_model_is_refused_before_anything_is_asked(
    manager: StandIn, stowage: Run, model: str
) -> None:
    outcome = stowage("import", model)
    assert outcome.status == 2
    assert "write ORG/NAME or ORG/NAME@REVISION" in outcome.err
    assert manager.asked == []


@pytest.mark.parametrize("option", [["--create"], ["--path", "x"], ["--on-conflict", "fail"]])
def test_options_of_a_folder_want_a_folder(manager: StandIn, stowage: Run, option: list[str]) -> None:
    outcome = stowage("import", "sample/tiny-bert", *option)
    assert outcome.status == 2
    assert "--to" in outcome.err
    assert manager.asked == []


def test_a_refused_import_shows_message_code_and_field(manager: StandIn, stowage: Run) -> None:
    message = "the path leaves the folder; write a relative one"
    manager.refuse("importArtifacts", "BAD_REQUEST", message, at="input.options.path")
    outcome = stowage("import", "sample/tiny-bert", "--to", "models", "--path", "../x")
    assert outcome.status == 2
    assert outcome.err == f"Error: {message} (BAD_REQUEST, --path)\n"


def test_a_remedy_names_the_option_and_json_tells_of_the_error_on_stdout(
    manager: StandIn, stowage: Run
) -> None:
    manager.refuse(
        "importArtifacts", "CONFLICT", "in the way; import with onConflict: OVERWRITE", at="input.models[0]"
    )
    outcome = stowage("import", "sample/tiny-bert", "--to", "models", "--json")
    assert (outcome.status, json.loads(outcome.out)) == (
        2,
        {
            "error": {
                "code": "CONFLICT",
                "message": "in the way; import with --on-conflict overwrite",
                "field": "ORG/NAME[@REVISION]",
            }
        },
    )
    assert "--on-conflict overwrite (CONFLICT, ORG/NAME[@REVISION])" in outcome.err


def test_a_lost_connection_while_waiting_is_waited_out(manager: StandIn, stowage: Run) -> None:
    def progress(**_arguments: object) -> dict[str, Any]:
        manager.raw = [None, (502, "<html>"), (503, ""), (200, internal), None]
        manager.answers["importTask"] = task("SUCCEEDED")
        return task("RUNNING", step="DOWNLOAD", done=50)

    internal = json.dumps({"errors": [{"message": "internal error", "extensions": {"code": "INTERNAL"}}]})
    manager.answers["importTask"] = progress
    outcome = stowage("import", "sample/tiny-bert", "--to", "models")
    assert (outcome.status, outcome.err, manager.raw) == (0, "", [])


def test_a_manager_that_stays_away_ends_the_wait_and_says_how_to_come_back(
    manager: StandIn, stowage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowage.commands.waiting.PATIENCE", 0.2)

    def progress(**_arguments: object) -> dict[str, Any]:
        manager.raw = [(503, "")] * 1000
        return task("RUNNING", step="DOWNLOAD")

    manager.answers["importTask"] = progress
    outcome = stowage("import", "sample/tiny-bert", "--to", "models")
    assert outcome.status == 3
    assert f"stowage task watch {TASK_ID}" in outcome.err


def test_an_import_that_awaits_approval_is_waited_for(manager: StandIn, stowage: Run) -> None:
    manager.answers["importTask"] = steps(task("NEEDS_APPROVAL", step="VERIFY"), task("SUCCEEDED"))
    outcome = stowage("import", "sample/tiny-bert", "--to", "models")
    assert outcome.status == 0
    assert "sample/tiny-bert@main: waits for an administrator's approval" in outcome.out


def test_names_from_servers_cannot_steer_the_terminal(manager: StandIn, stowage: Run) -> None:
    hostile = "[red]\x1b[31m\u202egnp.exe\r\n\x9b2J"
    manager.answers["vfolderFiles"] = [file(hostile, 1)]
    manager.answers["importTask"] = task("SUCCEEDED", path=hostile)
    out = stowage("import", "sample/tiny-bert", "--to", "models").out
    assert out.count(r"[red]\x1b[31m\u202egnp.exe\r\n\x9b2J") == 2
    assert not {character for character in out if not character.isprintable()} - {"\n"}


def test_names_from_servers_are_no_markup(manager: StandIn, stowage: Run) -> None:
    named = {"artifactRevision": revision("[red]v1[/red]:smile:")}
    manager.answers["importTask"] = steps(task("RUNNING", step="VERIFY", **named), task("SUCCEEDED", **named))
    assert (
        "sample/tiny-bert@[red]v1[/red]:smile:: verify"
        in stowage("import", "sample/tiny-bert", "--to", "models").out
    )


def test_files_of_inner_directories_are_listed_and_our_manifest_is_not(
    manager: StandIn, stowage: Run
) -> None:
    tree = {
        "sample/tiny-bert/main": [file("m/.stowage", 0, directory=True), file("m/onnx", 0, directory=True)],
        "m/onnx": [file("m/onnx/model.onnx", 5)],
    }
    manager.answers["vfolderFiles"] = lambda path, **_: tree[path]
    outcome = stowage("import", "sample/tiny-bert", "--to", "models", "--json")
    assert [entry["path"] for entry in outcome.json["files"]] == ["m/onnx/model.onnx"]


def test_a_long_list_of_files_is_cut_for_people_and_whole_for_programs(
    manager: StandIn, stowage: Run
) -> None:
    manager.answers["vfolderFiles"] = [file(f"f{number:03}", 1) for number in range(120)]
    manager.answers["importTask"] = task("SUCCEEDED")
    out = stowage("import", "sample/tiny-bert", "--to", "models").out
    assert "… and 70 more" in out
    assert "120 files, 120 B" in out
    assert len(stowage("import", "sample/tiny-bert", "--to", "models", "--json").json["files"]) == 120


def test_scan_lists_revisions_with_size_and_commit(manager: StandIn, stowage: Run) -> None:
    scanned = [revision(), revision("v1.0") | {"size": str(3 << 20), "digest": "d" * 40}]
    manager.answers["scanArtifactModels"] = {"artifactRevision": connection(scanned)}
    outcome = stowage("scan", "sample/tiny-bert")
    assert [line.split() for line in outcome.out.splitlines()[1:]] == [
        ["sample/tiny-bert", "main", "100", "B", "cccccccccccc", "scanned"],
        ["sample/tiny-bert", "v1.0", "3.0", "MiB", "dddddddddddd", "scanned"],
    ]
    assert manager.arguments("scanArtifactModels")[0]["input"]["models"][0]["revision"] is None


def test_scan_json_holds_every_revision(manager: StandIn, stowage: Run) -> None:
    manager.answers["scanArtifactModels"] = {"artifactRevision": connection([revision()])}
    [scanned] = stowage("scan", "sample/tiny-bert@main", "--json").json
    assert (scanned["artifact"]["name"], scanned["size"]) == ("sample/tiny-bert", 100)
