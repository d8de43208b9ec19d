"""A hub that is down, or is none at all."""

from typing import Any

import pytest

from tests.e2e.world import Files, Model, World, wait_until
from tests.faults.hub import Rule

FILES: Files = {"big.bin": 500_000, "config.json": b"{}"}


@pytest.mark.parametrize("fault", ["down", "HTML", "HTML error"])
def test_a_scan_of_a_hub_that_is_none_is_an_error_without_rows(world: World, fault: str) -> None:
    model = world.model(FILES)
    before = rows_of_catalog(world)
    code = break_hub(world, model, fault)
    try:
        answer = world.stack.post(
            "mutation ($m: String!) { scanArtifactModels(input: {models: [{modelId: $m}]}) { __typename } }",
            {"m": model.id},
        )
    finally:
        mend_hub(world)

    assert [error["extensions"]["code"] for error in answer["errors"]] == [code]
    assert rows_of_catalog(world) == before


@pytest.mark.parametrize("fault", ["down", "HTML", "HTML error"])
def test_an_import_from_a_hub_that_is_none_fails_with_a_code(world: World, fault: str) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)
    code = break_hub(world, model, fault)
    try:
        (task_id,) = world.order([revision["id"]], folder)
        task = world.finished(str(task_id))
    finally:
        mend_hub(world)

    assert (task["status"], task["error"]["code"]) == ("FAILED", code)
    assert folder.everything() == {}
    assert world.staged(task["id"]) == []


def break_hub(world: World, model: Model, fault: str) -> str:
    if fault == "down":
        world.hub.stop()
        return "SOURCE_UNAVAILABLE"
    world.hub.set(Rule(path=model.id, html=True, status=None if fault == "HTML" else 502))
    return "SOURCE_INVALID" if fault == "HTML" else "SOURCE_UNAVAILABLE"


def mend_hub(world: World) -> None:
    world.hub.clear()
    if world.hub._server is None:
        world.hub.start()


def rows_of_catalog(world: World) -> list[Any]:
    return [
        [str(dict(row)) for row in world.rows(f"SELECT * FROM {table} ORDER BY id")]
        for table in ("artifacts", "artifact_revisions")
    ]


def test_a_hub_that_comes_back_in_time_is_no_failure(world: World) -> None:
    model, folder = world.model({"big.bin": 400_000}), world.folder()
    world.hub.set(Rule(path=f"{model.id}/resolve/", rate=300_000))
    task_id = world.begin(model, folder)
    world.bytes_flow(model)

    world.hub.stop()
    world.hub.clear()
    world.hub.start()

    assert world.finished(task_id)["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    wait_until(lambda: not world.staged(task_id), "staging is left")
