"""The walk: from the mutation to files, in a vfolder and in the artifact storage."""

import stat
from pathlib import Path

from storage_proxy.verifiers.suite import OPTIONAL, REQUIRED
from tests.e2e.world import Files, World, manifest
from tests.faults.models import digest_tree

FILES: Files = {"config.json": b'{"a": 1}', "weights/part-1.bin": 1_500_000, "weights/part-2.bin": 40_000}


def modes(root: Path) -> tuple[set[int], set[int]]:
    files: set[int] = set()
    folders = {stat.S_IMODE(root.stat().st_mode)}
    for path in root.rglob("*"):
        (folders if path.is_dir() else files).add(stat.S_IMODE(path.stat().st_mode))
    return files, folders


def test_a_model_walks_into_a_vfolder_whole(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)

    (task_id,) = world.order([revision["id"]], folder)
    task = world.finished(str(task_id))

    filled = folder.path / model.id / "main"
    total = sum((model.path / path).stat().st_size for path in model.digests)
    assert folder.digests(f"{model.id}/main") == model.digests
    assert {key: task[key] for key in ("status", "step", "path", "commit", "error")} == {
        "status": "SUCCEEDED",
        "step": "ARCHIVE",
        "path": f"{model.id}/main",
        "commit": revision["digest"],
        "error": None,
    }
    assert (task["filesDone"], task["filesTotal"]) == (3, 3)
    assert int(task["bytesDone"]) == int(task["bytesTotal"]) == total == int(revision["size"])
    assert task["createdAt"] <= task["startedAt"] <= task["finishedAt"]
    assert task["requestedBy"]["id"] == world.admin.id
    assert task["destination"]["vfolder"]["id"] == folder.id
    assert {entry["name"]: entry["result"] for entry in task["verificationResult"]["verifiers"]} == {
        name: {"success": True, "scannedCount": 3} for name in [*REQUIRED, *OPTIONAL]
    }
    assert modes(filled) == ({0o644}, {0o755})
    assert world.staged(str(task_id)) == []


def test_a_projects_folder_stays_writable_for_its_members(world: World) -> None:
    model, member = world.model(FILES), world.person()
    made = world.stack.graphql(
        "mutation ($name: String!) { createProject(input: {name: $name}) { project { id } } }",
        {"name": f"project of {model.id.replace('/', ' ')}"},
    )["createProject"]["project"]["id"]
    world.stack.graphql(
        "mutation ($i: AddProjectMemberInput!) { addProjectMember(input: $i) { project { id } } }",
        {"i": {"projectId": made, "userId": member.id}},
    )
    folder = world.folder(member, project=made)

    assert world.bring(model, folder, by=member)["status"] == "SUCCEEDED"

    assert folder.digests(f"{model.id}/main") == model.digests
    assert modes(folder.path) == ({0o664}, {0o775})


def test_the_manifest_tells_what_came_and_from_where(world: World) -> None:
    model, folder = world.model(FILES), world.folder()

    task = world.bring(model, folder)

    found = manifest(folder.path / model.id / "main")
    assert found["file"] == f"{model.id.replace('/', '%2F')}@main.json"
    assert {file["path"]: (file["size"], file["sha256"]) for file in found["files"]} == {
        path: ((model.path / path).stat().st_size, digest) for path, digest in model.digests.items()
    }
    assert (found["registry"], found["artifact"], found["version"]) == ("huggingface", model.id, "main")
    assert found["commit"] == task["commit"]


def test_graphql_lists_what_arrived(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.bring(model, folder)

    listed = world.stack.graphql(
        "query ($id: ID!, $path: String) { vfolderFiles(vfolderId: $id, path: $path) { path size isDirectory } }",
        {"id": folder.id, "path": f"{model.id}/main"},
    )["vfolderFiles"]

    assert [(Path(entry["path"]).name, int(entry["size"]), entry["isDirectory"]) for entry in listed] == [
        (".stowage", 0, True),
        ("config.json", 8, False),
        ("weights", 0, True),
    ]


def test_a_model_walks_into_the_artifact_storage_whole(world: World) -> None:
    model = world.model(FILES)
    revision = world.scan(model)
    assert revision["status"] == "SCANNED"

    (task_id,) = world.order([revision["id"]])
    task = world.finished(str(task_id))

    filled = world.stack.dir.storage / model.id / "main"
    assert (task["status"], task["path"]) == ("SUCCEEDED", f"{model.id}/main")
    assert task["destination"] == {"storageName": "archive"}
    assert digest_tree(filled) == model.digests
    assert manifest(filled)["commit"] == revision["digest"]
    assert modes(filled) == ({0o644}, {0o755})
    after = world.revision(revision["id"])
    assert (after["status"], after["digest"]) == ("AVAILABLE", revision["digest"])
    assert after["verificationResult"]["verifiers"][0]["result"]["success"] is True
    assert world.staged(str(task_id)) == []


def test_one_revision_fills_two_vfolders_without_force(world: World) -> None:
    model, one, two = world.model(FILES), world.folder(), world.folder()

    tasks = [world.bring(model, one), world.bring(model, two)]

    assert [task["status"] for task in tasks] == ["SUCCEEDED", "SUCCEEDED"]
    assert one.digests(f"{model.id}/main") == two.digests(f"{model.id}/main") == model.digests


def test_two_vfolders_are_filled_at_the_same_time(world: World) -> None:
    model, one, two = world.model(FILES), world.folder(), world.folder()

    begun = [world.begin(model, one), world.begin(model, two)]

    assert begun[0] != begun[1]
    assert {world.finished(task)["status"] for task in begun} == {"SUCCEEDED"}
    assert one.digests(f"{model.id}/main") == two.digests(f"{model.id}/main") == model.digests


def test_an_import_into_a_vfolder_says_nothing_of_the_artifact_storage(world: World) -> None:
    model = world.model(FILES)
    revision = world.scan(model)
    assert world.bring(model, world.folder())["artifactRevision"]["status"] == "SCANNED"
    assert not (world.stack.dir.storage / model.id).exists()

    task = world.bring(model)

    assert task["status"] == "SUCCEEDED"
    assert digest_tree(world.stack.dir.storage / model.id / "main") == model.digests
    assert world.revision(revision["id"])["status"] == "AVAILABLE"


def test_what_the_artifact_storage_holds_already_needs_no_task(world: World) -> None:
    model = world.model(FILES)
    revision = world.scan(model)
    world.bring(model)
    world.hub.forget()

    assert world.order([revision["id"]]) == [None]
    assert world.hub.requests == []
    (forced,) = world.order([revision["id"]], force=True)

    assert world.finished(str(forced))["status"] == "SUCCEEDED"
    assert len(world.hub.downloads(model.id)) == len(FILES)


def test_what_the_artifact_storage_holds_already_still_walks_into_a_vfolder(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)
    world.bring(model)

    (task_id,) = world.order([revision["id"]], folder)

    assert world.finished(str(task_id))["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert world.revision(revision["id"])["status"] == "AVAILABLE"


def test_branches_land_side_by_side(world: World) -> None:
    half: Files = {"config.json": b"half", "weights/part-1.bin": 20_000}
    model, folder = world.model(FILES, branches={"refs/half": half}), world.folder()

    world.bring(model, folder)
    task = world.bring(model, folder, at="refs/half")

    assert task["path"] == f"{model.id}/refs%2Fhalf"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert folder.digests(f"{model.id}/refs%2Fhalf") == digest_tree(model.path / "@refs%2Fhalf")


def test_a_path_of_ones_own_takes_the_place_of_the_default(world: World) -> None:
    model, folder = world.model(FILES), world.folder()

    task = world.bring(model, folder, path="models/mine")

    assert (task["status"], task["path"]) == ("SUCCEEDED", "models/mine")
    assert folder.digests("models/mine") == model.digests
    assert sorted(path.name for path in folder.path.iterdir()) == ["models"]
