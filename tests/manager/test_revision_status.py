"""The life of a revision in the artifact storage."""

from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.import_options import ImportOptions
from manager.models import (
    ArtifactRevision,
    ArtifactStatus,
    ImportStep,
    ImportTask,
    ImportTaskStatus,
)
from manager.revision_status import MAY_BECOME, RESTING, move, revision_status, status_before
from tests.manager.stand_in import until
from tests.manager.test_reconciler import reached, reconciling
from tests.manager.world import World

WAYS = st.lists(
    st.tuples(
        st.sampled_from([ImportTaskStatus.RUNNING, ImportTaskStatus.NEEDS_APPROVAL]),
        st.sampled_from([None, *ImportStep]),
        st.sampled_from([None, 0, 1]),
    ),
    max_size=6,
)
ENDS = st.sampled_from([ImportTaskStatus.SUCCEEDED, ImportTaskStatus.FAILED, ImportTaskStatus.CANCELLED])


@settings(max_examples=300)
@given(st.sampled_from(sorted(RESTING)), WAYS, ENDS, st.booleans())
def test_no_import_leads_out_of_the_table(
    begin: ArtifactStatus,
    way: list[tuple[ImportTaskStatus, ImportStep | None, int | None]],
    end: ImportTaskStatus,
    rejected: bool,
) -> None:
    """Whatever is reported and whatever reports are left out: each change is one that the table allows."""
    revision = ArtifactRevision(id=uuid4(), status=begin)
    task = ImportTask(status=ImportTaskStatus.PENDING, status_before=status_before(revision), files_done=1)
    for status, step, total in [(ImportTaskStatus.PENDING, None, None), *way, (end, None, None)]:
        task.status, task.step, task.files_total = status, step, total
        task.error = {"code": "REJECTED" if rejected else "DISK_FULL"} if end is status else None
        wanted = revision_status(task)
        assert move(revision, wanted) or revision.status is wanted
    assert revision.status in RESTING
    if end is ImportTaskStatus.CANCELLED or (begin is ArtifactStatus.AVAILABLE):
        assert revision.status in {begin, ArtifactStatus.AVAILABLE}


def test_a_status_that_may_not_follow_is_not_taken() -> None:
    for status in ArtifactStatus:
        for following in set(ArtifactStatus) - MAY_BECOME[status]:
            revision = ArtifactRevision(id=uuid4(), status=status)
            assert not move(revision, following)
            assert revision.status is status


def test_every_status_is_reached() -> None:
    reached, todo = set(), {ArtifactStatus.SCANNED}
    while todo:
        reached |= todo
        todo = set().union(*(MAY_BECOME[status] for status in todo)) - reached
    assert reached == set(ArtifactStatus)


@pytest.mark.anyio
async def test_a_clean_up_is_finished_when_the_proxy_is_back(world: World) -> None:
    place = {"proxy": "near", "storage_name": "archive", "path": "org/model/main"}
    async with world.database.begin() as session:
        (await session.get_one(ArtifactRevision, world.revision)).cleanup = place
    await world.near.stop()
    async with reconciling(world):
        await world.near.start()

        async def done() -> bool:
            return (await world.revision_row(world.revision)).cleanup is None

        await until(done)
    ((name, stored),) = world.near.unpublished
    assert (name, stored.model_id, stored.revision, stored.path) == (
        "archive",
        "org/model",
        "main",
        "org/model/main",
    )


@pytest.mark.anyio
async def test_a_decision_is_told_until_the_proxy_answers(world: World) -> None:
    await world.service().import_revisions(world.admin, [world.revision], None, ImportOptions())
    (task_id,) = world.near.orders
    await world.near.report(task_id, "needs_approval")
    async with reconciling(world):
        await reached(world, task_id, ImportTaskStatus.NEEDS_APPROVAL)
        await world.execute(
            "UPDATE import_tasks SET decision = 'REJECTED', decision_reason = 'no', "
            "decided_at = now() - interval '1 minute'"
        )
        await until(lambda: (task_id, "reject: no") in world.near.decided)
