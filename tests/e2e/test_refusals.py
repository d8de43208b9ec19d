"""A request that is refused changes nothing and moves no byte; one bad revision in a batch harms no other."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.world import Files, Folder, Person, World
from tests.faults.hub import Rule

FILES: Files = {"big.bin": 200_000, "config.json": b"{}"}


def refusal(answer: dict[str, Any]) -> tuple[str, str | None]:
    (error,) = answer["errors"]
    assert error["message"]
    return error["extensions"]["code"], error["extensions"].get("field")


def foreign(world: World) -> tuple[Folder, Person]:
    return world.folder(), world.person()


def read_only(world: World) -> tuple[Folder, Person]:
    folder, guest = world.folder(), world.person()
    world.grant(folder, guest, "READ_ONLY")
    return folder, guest


def with_column(column: str, value: str) -> Callable[[World], tuple[Folder, Person]]:
    def make(world: World) -> tuple[Folder, Person]:
        owner = world.person()
        folder = world.folder(owner)
        world.rows(f"UPDATE vfolders SET {column} = $2 WHERE id = $1", folder.vfid.folder, value)
        return folder, owner

    return make


def without_upload(world: World) -> tuple[Folder, Person]:
    owner = world.person()
    folder = world.folder(owner)
    world.rows("UPDATE vfolders SET host = 'local:other' WHERE id = $1", folder.vfid.folder)
    return folder, owner


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (foreign, "NOT_FOUND"),
        (read_only, "FORBIDDEN"),
        (with_column("status", "DELETE_PENDING"), "CONFLICT or NOT_FOUND"),  # the manager removes it soon
        (with_column("status", "DELETE_COMPLETE"), "NOT_FOUND"),
        (with_column("status", "PERFORMING"), "CONFLICT"),
        (with_column("unmanaged_path", "/mnt/elsewhere"), "FORBIDDEN"),
        (without_upload, "FORBIDDEN"),
    ],
    ids=["foreign", "read-only", "trashed", "deleted", "busy", "unmanaged", "no upload-file"],
)
def test_a_vfolder_that_may_not_be_written_to_is_refused_before_any_byte(
    world: World, make: Callable[[World], tuple[Folder, Person]], code: str
) -> None:
    model = world.model(FILES)
    revision = world.scan(model)
    folder, person = make(world)
    before = world.unchanged()
    world.hub.forget()

    answer = world.request([revision["id"]], folder, by=person)

    found, field = refusal(answer)
    assert found in code.split(" or ")
    assert field == "input.vfolderId"
    assert world.unchanged() == before
    assert world.hub.requests == []
    assert folder.everything() == {}


def test_a_vfolder_that_does_not_exist_is_answered_as_a_foreign_one(world: World) -> None:
    revision = world.scan(world.model(FILES))
    foreign_folder, person = foreign(world)

    answers = [
        world.request([revision["id"]], folder, by=person) for folder in (str(uuid.uuid4()), foreign_folder)
    ]

    assert answers[0]["errors"][0]["message"] == answers[1]["errors"][0]["message"]
    assert refusal(answers[0]) == refusal(answers[1])


def test_a_guest_who_may_write_imports_into_a_shared_folder(world: World) -> None:
    model, folder, guest = world.model(FILES), world.folder(), world.person()
    world.grant(folder, guest, "READ_WRITE")

    task = world.bring(model, folder, by=guest)

    assert task["status"] == "SUCCEEDED"
    assert task["requestedBy"]["id"] == guest.id
    assert folder.digests(f"{model.id}/main") == model.digests


def test_a_user_without_the_grant_does_not_fill_the_artifact_storage(world: World) -> None:
    revision = world.scan(world.model(FILES))
    before = world.unchanged()

    answer = world.request([revision["id"]], by=world.person())

    assert refusal(answer)[0] == "FORBIDDEN"
    assert world.unchanged() == before


@pytest.mark.parametrize(
    "path",
    [
        *("../x", "a/../../x", "/abs", "a//b", "a/", "", "a\\b", "a\nb", "a/ b", "a\u202eb", "x" * 256),
        *("a/.stowage", ".staging/x", ".StOwAgE/x", "a/.\u017ftaging", "a/" * 64 + "a"),
    ],
)
def test_a_path_that_is_none_is_refused(world: World, path: str) -> None:
    revision, folder = world.scan(world.model(FILES)), world.folder()
    before = world.unchanged()

    answer = world.request([revision["id"]], folder, path=path)

    assert refusal(answer) == ("BAD_REQUEST", "input.options.path")
    assert world.unchanged() == before
    assert folder.everything() == {}


# Batches.


def test_one_revision_that_cannot_be_imported_loses_no_other(world: World) -> None:
    models = [world.model(FILES) for _ in range(3)]
    folder = world.folder()
    revisions = [world.scan(model)["id"] for model in models]
    world.hub.set(Rule(path=models[1].id, status=404, headers={"x-error-code": "RepoNotFound"}))

    tasks = world.order(revisions, folder)

    assert None not in tasks
    assert len(set(tasks)) == 3
    ended = [world.finished(str(task_id)) for task_id in tasks]
    assert [task["status"] for task in ended] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert ended[1]["error"]["code"] == "SOURCE_NOT_FOUND"
    for model, there in zip(models, (True, False, True), strict=True):
        assert folder.digests(f"{model.id}/main") == (model.digests if there else {})


def test_one_revision_that_cannot_be_stored_loses_no_other(world: World) -> None:
    models = [world.model(FILES) for _ in range(3)]
    revisions = [world.scan(model)["id"] for model in models]
    world.bring(models[0])
    world.hub.set(Rule(path=models[1].id, status=404, headers={"x-error-code": "RepoNotFound"}))

    tasks = world.order(revisions)

    assert tasks[0] is None
    assert [world.finished(str(task_id))["status"] for task_id in tasks[1:]] == ["FAILED", "SUCCEEDED"]
    assert [world.revision(revision)["status"] for revision in revisions] == [
        "AVAILABLE",
        "FAILED",
        "AVAILABLE",
    ]


@pytest.mark.parametrize(
    ("spoil", "code", "field"),
    [
        (lambda good: [*good, str(uuid.uuid4())], "NOT_FOUND", "input.artifactRevisionIds[2]"),
        (lambda good: [good[0], "no id", good[1]], "BAD_REQUEST", "input.artifactRevisionIds[1]"),
        (lambda good: [*good, good[0]], "BAD_REQUEST", "input.artifactRevisionIds[2]"),
        (lambda _good: [], "BAD_REQUEST", "input.artifactRevisionIds"),
    ],
    ids=["unknown", "malformed", "repeated", "empty"],
)
@pytest.mark.parametrize("into_folder", [True, False], ids=["vfolder", "artifact storage"])
def test_a_batch_with_a_wrong_id_is_refused_whole(
    world: World, spoil: Callable[[list[str]], list[str]], code: str, field: str, into_folder: bool
) -> None:
    good = [world.scan(world.model(FILES))["id"] for _ in range(2)]
    folder = world.folder() if into_folder else None
    before = world.unchanged()
    world.hub.forget()

    answer = world.request(spoil(good), folder)

    assert refusal(answer) == (code, field)
    assert world.unchanged() == before
    assert world.hub.requests == []


def test_a_batch_into_a_folder_of_somebody_else_is_refused_whole(world: World) -> None:
    revisions = [world.scan(world.model(FILES))["id"] for _ in range(2)]
    folder, person = foreign(world)
    before = world.unchanged()

    answer = world.request(revisions, folder, by=person)

    assert refusal(answer) == ("NOT_FOUND", "input.vfolderId")
    assert world.unchanged() == before


def test_a_deleted_artifact_refuses_the_batch_whole(world: World) -> None:
    models = [world.model(FILES) for _ in range(2)]
    revisions = [world.scan(model)["id"] for model in models]
    world.rows("UPDATE artifacts SET availability = 'DELETED' WHERE name = $1", models[1].id)
    before = world.unchanged()

    answer = world.request(revisions, world.folder())

    assert refusal(answer) == ("CONFLICT", "input.artifactRevisionIds[1]")
    assert world.unchanged() == before
