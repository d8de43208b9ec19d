"""Quotas: what is held against them at a request, and how limits and reports go to and fro."""

import asyncio
import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from manager.access import authorize_import
from manager.auth import Caller
from manager.imports import ImportOptions
from manager.models import (
    ArtifactStorage,
    ArtifactStorageType,
    ImportTaskStatus,
    Project,
    ProjectMember,
    Quota,
    StorageNamespace,
    utc_now,
)
from manager.quota import Quotas
from manager.room import QuotaPlace, QuotaState
from manager.tasks import lock_tasks
from proxy_client import errors
from proxy_client.errors import StowageError
from tests.manager.stand_in import SECRET
from tests.manager.test_imports import Statements
from tests.manager.world import World, commit_of

pytestmark = pytest.mark.anyio

PLAIN = ImportOptions()
SIZE = 1000  # of every revision of the world


def quotas(world: World) -> Quotas:
    return Quotas(world.database, world.settings, world.proxies)


class Destination:
    """A user's folder, a project's folder or the artifact storage, and who imports there."""

    def __init__(self, world: World, place: QuotaPlace, folder: UUID | None, caller: Caller) -> None:
        self.world, self.place, self.folder, self.caller = world, place, folder, caller
        self.key = "archive" if place.scope is None else f"volume1/{place.scope}"
        self.versions: dict[str, UUID] = {}
        self.field = "input.artifactRevisionIds" if folder is None else "input.vfolderId"

    async def limited(self, limit: int | None, used: int | None = None) -> QuotaState:
        self.world.near.used[self.key] = used
        return await quotas(self.world).set_limit(self.world.admin, self.place, limit)

    async def bring(self, *versions: str, options: ImportOptions = PLAIN) -> list[UUID]:
        """Import these versions; return the tasks."""
        ids = [await self.version(version) for version in versions]
        found = await self.world.service().import_revisions(self.caller, ids, self.folder, options)
        return [each.task.id for each in found if each.task]

    async def version(self, version: str) -> UUID:
        if version not in self.versions:
            self.versions[version] = await self.world.make_revision("org/model", version)
        return self.versions[version]

    async def end(self, task_id: UUID, status: ImportTaskStatus) -> None:
        if status is ImportTaskStatus.SUCCEEDED:
            task = await self.world.task(task_id)
            # The proxy's clock is behind by minutes.
            ended = {"finished_at": utc_now() - timedelta(minutes=5)}
            report = await self.world.near.report(task_id, "succeeded", commit=task.order["model"]["commit"])
            report = report.model_copy(update=ended)
            async with self.world.database.begin() as session:
                await (await lock_tasks(session, [task_id])).take([report])
            return
        async with self.world.database.begin() as session:
            await (await lock_tasks(session, [task_id])).finish(task_id, status)

    async def state(self) -> QuotaState:
        return await quotas(self.world).look(self.world.admin, self.place)


@pytest.fixture(params=["user", "project", "storage"])
async def place(request: pytest.FixtureRequest, world: World) -> Destination:
    if request.param == "storage":
        return Destination(world, QuotaPlace("near", storage_name="archive"), None, world.admin)
    if request.param == "user":
        mine = QuotaPlace("near", "volume1", user_id=world.user_a.user_id)
        return Destination(world, mine, world.folder, world.user_a)
    project = Project(id=uuid4(), name="lab")
    await world.add(project)
    await world.add(ProjectMember(project_id=project.id, user_id=world.user_a.user_id))
    folder = await world.make_folder(None, "shared", project_id=project.id)
    return Destination(world, QuotaPlace("near", "volume1", project_id=project.id), folder, world.user_a)


# What fits, and what does not.


LIMITS = [
    # limit, used, whether 2000 bytes more fit
    (None, 10**15, True),  # unlimited
    (5000, 1000, True),  # under the limit
    (3000, 1000, True),  # exactly at it
    (2999, 1000, False),  # a byte too much
    (1000, 5000, False),  # used up already
    (0, 0, False),
    (2000, None, True),  # nobody knows what is used: the proxy decides
    (1999, None, False),  # but more than the whole limit never fits
]


async def test_two_revisions_are_held_against_the_limit(place: Destination) -> None:
    for limit, used, fits in LIMITS:
        await place.limited(limit, used)
        if fits:
            for task in await place.bring("a", "b"):
                await place.end(task, ImportTaskStatus.CANCELLED)
        else:
            with pytest.raises(errors.QuotaExceeded):
                await place.bring("a", "b")


async def test_a_refusal_names_the_numbers_and_changes_nothing(place: Destination) -> None:
    await place.limited(4321, 1234)
    await place.bring("a")
    versions = [await place.version(version) for version in ("b", "c", "d")]
    before, received = await place.world.rows(), list(place.world.near.received)
    with pytest.raises(errors.QuotaExceeded) as refusal:
        await place.world.service().import_revisions(place.caller, versions, place.folder, PLAIN)
    assert refusal.value.field == place.field
    numbers = re.findall(r"(?<![-\w])\d{3,4}(?![-\w])", refusal.value.message)
    assert numbers == ["3000", "2087", "4321", "1234", "1000"]
    assert "ask an administrator for a larger quota" in refusal.value.message
    assert await place.world.rows() == before
    assert place.world.near.received == received


async def test_nothing_is_refused_where_no_row_speaks(place: Destination) -> None:
    place.world.near.limits[place.key] = 1  # the proxy's own, which decides while it writes
    assert len(await place.bring("a")) == 1


async def test_a_size_that_nobody_knows_is_accepted(place: Destination) -> None:
    await place.limited(SIZE, 0)
    await place.bring("a")
    unknown = await place.version("b")
    await place.world.execute("UPDATE artifact_revisions SET size = NULL WHERE version = 'b'")
    await place.world.service().import_revisions(place.caller, [unknown], place.folder, PLAIN)


async def test_running_imports_are_counted_in_and_released_at_their_end(place: Destination) -> None:
    await place.limited(2500, 0)
    for ended in (ImportTaskStatus.CANCELLED, ImportTaskStatus.FAILED):
        first, second = [(await place.bring(version))[0] for version in ("a", "b")]
        assert (await place.state()).reserved == 2000
        with pytest.raises(errors.QuotaExceeded, match="2000 are reserved"):
            await place.bring("c")
        await place.end(first, ended)
        (third,) = await place.bring("c")
        for task in (second, third):
            await place.end(task, ended)
        assert (await place.state()).reserved == 0


async def test_a_repeat_of_an_open_import_needs_no_more_room(place: Destination) -> None:
    await place.limited(SIZE, 0)
    first = await place.bring("a")
    assert await place.bring("a") == first


async def test_what_succeeded_counts_before_and_after_the_proxy_reports_it(place: Destination) -> None:
    await place.limited(2500, 0)
    (task,) = await place.bring("a")
    await place.end(task, ImportTaskStatus.SUCCEEDED)
    with pytest.raises(errors.QuotaExceeded):
        await place.bring("b", "c")
    place.world.near.used[place.key] = SIZE
    state = await place.state()
    assert (state.used, state.reserved, state.available) == (SIZE, 0, 1500)
    with pytest.raises(errors.QuotaExceeded):
        await place.bring("b", "c")
    assert len(await place.bring("b")) == 1


async def test_an_artifact_storage_whose_usage_nobody_reports_is_counted_by_its_revisions(
    world: World,
) -> None:
    archive = Destination(world, QuotaPlace("near", storage_name="archive"), None, world.admin)
    await archive.limited(2500, None)
    (task,) = await archive.bring("a")
    await archive.end(task, ImportTaskStatus.SUCCEEDED)
    state = await archive.state()
    assert (state.used, state.reserved) == (SIZE, 0)
    with pytest.raises(errors.QuotaExceeded):
        await archive.bring("b", "c")


async def test_what_is_staged_is_not_counted_twice(place: Destination) -> None:
    await place.limited(2000, 0)
    (task,) = await place.bring("a")
    async with place.world.database.begin() as session:
        report = await place.world.near.report(task, "running", bytes_done=800)
        await (await lock_tasks(session, [task])).take([report])
    place.world.near.used[place.key] = 800
    state = await place.state()
    assert (state.used, state.reserved, state.available) == (0, SIZE, SIZE)
    assert len(await place.bring("b")) == 1


async def test_what_a_folder_got_before_needs_no_room_again_but_by_force(world: World) -> None:
    mine = QuotaPlace("near", "volume1", user_id=world.user_a.user_id)
    folder = Destination(world, mine, world.folder, world.user_a)
    await folder.limited(SIZE, 0)
    (task,) = await folder.bring("a")
    await folder.end(task, ImportTaskStatus.SUCCEEDED)
    world.near.used[folder.key] = SIZE
    await folder.state()
    with pytest.raises(errors.QuotaExceeded):
        await folder.bring("a", options=ImportOptions(force=True))
    (again,) = await folder.bring("a")
    await folder.end(again, ImportTaskStatus.SUCCEEDED)
    await world.execute("UPDATE artifact_revisions SET digest = :commit", commit=commit_of("moved on"))
    with pytest.raises(errors.QuotaExceeded):
        await folder.bring("a")


async def test_of_requests_that_fit_alone_but_not_together_one_is_refused(place: Destination) -> None:
    await place.limited(2500, 0)
    answers = await asyncio.gather(
        *(place.bring(f"v{number}") for number in range(6)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert (len(answers) - len(refused), {type(each) for each in refused}) == (2, {errors.QuotaExceeded})


async def test_a_limit_that_shrinks_while_an_import_runs_refuses_the_next_and_lets_that_one_be(
    place: Destination,
) -> None:
    await place.limited(10_000, 0)
    (task,) = await place.bring("a")
    state = await place.limited(500, 0)
    assert (state.available, state.reserved) == (0, SIZE)
    assert (await place.world.task(task)).finished_at is None
    with pytest.raises(errors.QuotaExceeded):
        await place.bring("b")
    await place.limited(None, 0)
    await place.bring("b")


async def test_a_limit_speaks_of_its_own_scope_alone(world: World) -> None:
    mine = QuotaPlace("near", "volume1", user_id=world.user_a.user_id)
    limited = Destination(world, mine, world.folder, world.user_a)
    await limited.limited(0)
    others = {
        "volume": await world.make_folder(world.user_a, "far", host="far:volume1"),
        "owner": await world.make_folder(world.user_b, "b"),
    }
    await limited.world.service().import_revisions(world.user_a, [world.revision], others["volume"], PLAIN)
    await limited.world.service().import_revisions(world.user_b, [world.revision], others["owner"], PLAIN)
    await limited.world.service().import_revisions(world.admin, [world.revision], None, PLAIN)
    assert (await limited.state()).reserved == 0
    with pytest.raises(errors.QuotaExceeded):
        await limited.bring("a")


async def test_the_check_costs_as_many_statements_for_one_as_for_two_hundred(place: Destination) -> None:
    await place.limited(10**9, 0)
    ids = [await place.version(f"v{number}") for number in range(201)]
    counts = []
    for asked in (ids[:1], ids[1:]):
        with Statements(place.world.database) as statements:
            await place.world.service().import_revisions(place.caller, asked, place.folder, PLAIN)
        counts.append(statements.seen)
    assert counts[0] == counts[1]
    assert len(counts[0]) <= 10, counts[0]


async def test_any_artifact_storage_and_namespace_has_a_quota(world: World) -> None:
    buckets = ArtifactStorage(id=uuid4(), type=ArtifactStorageType.OBJECT, proxy="near", name="buckets")
    await world.add(buckets)
    await world.add(StorageNamespace(storage_id=buckets.id, namespace="models"))
    world.near.used |= {"buckets.models": None, "scratch": None}
    service = quotas(world)
    names = {"host": None, "user_id": None, "project_id": None}
    for number, (name, known) in enumerate(
        {
            "near:buckets.models": True,
            "near:scratch": True,
            "near:buckets.others": False,
            "near:none": False,
            "far:buckets.models": False,
        }.items()
    ):
        place = service.place(**names, storage_name=name)
        if not known:
            with pytest.raises(errors.NotFound):
                await service.set_limit(world.admin, place, SIZE)
            continue
        await service.set_limit(world.admin, place, SIZE)
        options = ImportOptions(storage=name)
        wanted = [await world.make_revision(f"org/of{number}", version) for version in ("a", "b")]
        with pytest.raises(errors.QuotaExceeded):
            await world.service().import_revisions(world.admin, wanted, None, options)
        (found,) = await world.service().import_revisions(world.admin, wanted[:1], None, options)
        assert found.task is not None
        header = f"Bearer near-{SECRET}"
        answer = await authorize_import(world.database, world.settings, found.task.id, header)
        assert (answer.allowed, answer.limit_bytes) == (True, SIZE)
    assert service.place(**names, storage_name="archive") == service.place(
        **names, storage_name="near:archive"
    )


# Limits and reports.


async def row(world: World, place: QuotaPlace) -> Quota:
    async with world.database.read() as session:
        return await session.get_one(Quota, place.id)


@pytest.fixture
def mine(world: World) -> Destination:
    place = QuotaPlace("near", "volume1", user_id=world.user_a.user_id)
    return Destination(world, place, world.folder, world.user_a)


async def test_a_limit_is_brought_to_the_proxy_and_audited(mine: Destination) -> None:
    state = await mine.limited(5000, 1200)
    assert (state.row.limit_bytes, state.row.enforced_bytes, state.used) == (5000, 5000, 1200)
    assert mine.world.near.limits == {mine.key: 5000}
    await mine.limited(None, 1200)
    assert mine.world.near.limits == {mine.key: None}
    entries = [each for each in (await mine.world.rows())["audit_log"] if "quota.set" in each]
    details = [entry[5] for entry in sorted(entries, key=lambda entry: entry[1])]
    assert [(each["before"], each["limit"]) for each in details] == [(None, 5000), (5000, None)]


async def test_a_limit_that_the_proxy_did_not_hear_of_holds_and_is_brought_later(mine: Destination) -> None:
    await mine.world.near.stop()
    state = await quotas(mine.world).set_limit(mine.world.admin, mine.place, 500)
    assert (state.row.limit_bytes, state.row.enforced_bytes, state.used) == (500, None, None)
    with pytest.raises(errors.QuotaExceeded):
        await mine.bring("a")
    await mine.world.near.start()
    await mine.world.execute("UPDATE quotas SET asked_at = asked_at - interval '1 minute'")
    await followed(mine.world)
    assert mine.world.near.limits == {mine.key: 500}
    assert (await row(mine.world, mine.place)).enforced_bytes == 500


async def followed(world: World) -> None:
    """Let the follower look once."""
    service = quotas(world)
    await service._refresh(await service._due(), deadline=None)


async def test_reports_are_asked_for_when_they_are_old_or_an_import_ended_since(mine: Destination) -> None:
    await mine.limited(5000, 1)
    (task,) = await mine.bring("a")
    mine.world.near.used[mine.key] = 2
    await followed(mine.world)
    assert (await row(mine.world, mine.place)).used_bytes == 1
    await mine.world.execute("UPDATE quotas SET asked_at = asked_at - interval '1 minute'")
    await followed(mine.world)
    assert (await row(mine.world, mine.place)).used_bytes == 1
    await mine.end(task, ImportTaskStatus.SUCCEEDED)
    await followed(mine.world)
    assert (await row(mine.world, mine.place)).used_bytes == 2
    mine.world.near.used[mine.key] = 3
    await mine.world.execute("UPDATE quotas SET asked_at = asked_at - interval '10 minutes'")
    await followed(mine.world)
    assert (await row(mine.world, mine.place)).used_bytes == 3


async def test_of_two_limits_set_at_once_the_last_one_reaches_the_proxy(mine: Destination) -> None:
    arrived = asyncio.Event()
    later = asyncio.Event()

    async def the_first_word_is_slow() -> None:
        if not arrived.is_set():
            arrived.set()
            await later.wait()

    mine.world.near.before_limit = the_first_word_is_slow
    service = quotas(mine.world)
    first = asyncio.create_task(service.set_limit(mine.world.admin, mine.place, 1))
    await arrived.wait()
    await service.set_limit(mine.world.admin, mine.place, 2)
    assert mine.world.near.limits == {mine.key: 2}
    later.set()
    await first
    assert mine.world.near.limits == {mine.key: 2}
    assert (await row(mine.world, mine.place)).enforced_bytes == 2


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"user_id": uuid4()}, "NOT_FOUND", "input.userId"),
        ({"user_id": None, "project_id": uuid4()}, "NOT_FOUND", "input.projectId"),
        ({"limit": 1 << 63}, "BAD_REQUEST", "input.limitBytes"),
        ({"user_id": None}, "BAD_REQUEST", "input.userId"),
        ({"storage_name": "archive"}, "BAD_REQUEST", "input.userId"),
        ({"user_id": None, "storage_name": "archive", "host": "near:volume1"}, "BAD_REQUEST", "input.host"),
        ({"user_id": None, "storage_name": "other"}, "NOT_FOUND", "input.storageName"),
        ({"host": "nowhere:volume1"}, "BAD_REQUEST", "input.host"),
        ({"host": "near:../x"}, "BAD_REQUEST", "input.host"),
        ({"caller": "user_a"}, "FORBIDDEN", None),
    ],
)
async def test_a_refused_limit_changes_nothing(
    world: World, change: dict[str, Any], code: str, field: str | None
) -> None:
    asked: dict[str, Any] = {"user_id": world.user_a.user_id, "limit": 5, "caller": "admin"} | change
    caller: Caller = getattr(world, asked.pop("caller"))
    limit = asked.pop("limit")
    before = await world.rows()
    names = {"host": None, "project_id": None, "storage_name": None}
    with pytest.raises(StowageError) as refusal:
        await quotas(world).set_limit(caller, quotas(world).place(**names | asked, within="input."), limit)
    assert (refusal.value.code, refusal.value.field) == (code, field)
    assert await world.rows() == before
    assert world.near.limits == {}


async def test_who_may_look_at_a_quota(world: World) -> None:
    project = Project(id=uuid4(), name="lab")
    await world.add(project)
    places = {
        "own": QuotaPlace("near", "volume1", user_id=world.user_a.user_id),
        "other": QuotaPlace("near", "volume1", user_id=world.user_b.user_id),
        "project": QuotaPlace("near", "volume1", project_id=project.id),
        "storage": QuotaPlace("near", storage_name="archive"),
    }

    async def seen(caller: Caller) -> dict[str, str]:
        codes = {}
        for name, place in places.items():
            try:
                await quotas(world).look(caller, place)
            except StowageError as refusal:
                codes[name] = refusal.code
        return codes

    refused = {"other": "FORBIDDEN", "project": "NOT_FOUND", "storage": "FORBIDDEN"}
    assert (await seen(world.user_a), await seen(world.admin)) == (refused, {})
    await world.add(ProjectMember(project_id=project.id, user_id=world.user_a.user_id))
    await world.execute(
        "INSERT INTO user_grants (user_id, permission) VALUES (:user, 'artifact:import')",
        user=world.user_a.user_id,
    )
    assert await seen(world.user_a) == {"other": "FORBIDDEN"}


async def test_a_place_without_a_row_shows_what_the_proxy_says(mine: Destination) -> None:
    mine.world.near.used[mine.key], mine.world.near.limits[mine.key] = 7, 9
    await mine.bring("a")
    state = await mine.state()
    assert (state.used, state.row.limit_bytes, state.reserved) == (7, 9, SIZE)
    assert mine.world.near.limits == {mine.key: 9}
    assert (await mine.world.rows())["quotas"] == []
    await mine.world.near.stop()
    assert (await mine.state()).used is None
