"""Scans that nobody waits for."""

from datetime import timedelta

import pytest

from manager.catalog import Catalog
from manager.models import Artifact, ArtifactAvailability, ArtifactRevision, utc_now
from manager.scanner import Scanner
from manager.settings import Settings
from proxy_client import errors, wire
from tests.manager.world import World, commit_of

pytestmark = pytest.mark.anyio


def publish(world: World, name: str, *versions: str, commit: str = "") -> None:
    revisions = [
        wire.RegistryRevision(
            name=version, commit=commit or commit_of(version), size=10, readme=f"# {version}"
        )
        for version in versions
    ]
    world.near.models[name] = wire.RegistryModel(model_id=name, revisions=revisions)


async def scan(world: World, *names: str) -> list[ArtifactRevision]:
    catalog = Catalog(world.database, world.settings, world.proxies)
    return await catalog.scan_models(world.admin, [(name, None) for name in names], None)


def rescanning(world: World, seconds: float = 3600) -> Settings:
    section = world.settings.artifact_registry
    assert section is not None
    changed = section.model_copy(update={"rescan_interval": seconds})
    return world.settings.model_copy(update={"artifact_registry": changed})


async def test_one_model_is_described_at_once(world: World) -> None:
    publish(world, "org/one", "main", "v1")
    rows = await scan(world, "org/one")
    assert [(row.size, row.readme, row.details_due_at) for row in rows] == [
        (10, "# main", None),
        (10, "# v1", None),
    ]


async def test_a_large_scan_knows_every_revision_at_once_and_the_rest_soon(world: World) -> None:
    names = [f"org/model{number}" for number in range(6)]
    for name in names:
        publish(world, name, "main", "v1")
    rows = await scan(world, *names)
    assert len(rows) == 12
    assert {(row.digest, row.size) for row in rows} == {(commit_of("main"), None), (commit_of("v1"), None)}
    scanner = Scanner(world.database, world.settings, world.proxies)
    assert await scanner.scan_due() == 12
    for row in rows:
        found = await world.revision_row(row.id)
        assert (found.size, found.readme, found.details_due_at) == (10, f"# {found.version}", None)
    assert await scanner.scan_due() == 0


async def test_a_model_of_many_revisions_is_described_later(world: World) -> None:
    publish(world, "org/many", *(f"v{number}" for number in range(9)))
    rows = await scan(world, "org/many")
    assert [row.size for row in rows] == [None] * 9
    assert await Scanner(world.database, world.settings, world.proxies).scan_due() == 9


async def test_what_is_known_of_a_commit_is_not_asked_again(world: World) -> None:
    versions = [f"v{number}" for number in range(9)]
    publish(world, "org/many", *versions)
    await scan(world, "org/many")
    scanner = Scanner(world.database, world.settings, world.proxies)
    await scanner.scan_due()
    rows = await scan(world, "org/many")
    assert [row.size for row in rows] == [10] * 9
    assert await scanner.scan_due() == 0
    # All branches move to one commit.
    publish(world, "org/many", *versions, commit="f" * 40)
    rows = await scan(world, "org/many")
    assert {(row.digest, row.size) for row in rows} == {("f" * 40, None)}
    assert await scanner.scan_due() == 9


@pytest.mark.parametrize(
    "fault",
    [
        errors.SourceUnavailable("no answer"),
        errors.NotFound("this proxy has no registry", field="registry_name"),
    ],
)
async def test_a_registry_that_is_away_is_asked_again_later(world: World, fault: errors.StowageError) -> None:
    publish(world, "org/many", *(f"v{number}" for number in range(9)))
    rows = await scan(world, "org/many")
    world.near.refuse["get_model"] = fault
    scanner = Scanner(world.database, world.settings, world.proxies)
    assert await scanner.scan_due() == 9
    due = (await world.revision_row(rows[0].id)).details_due_at
    assert due is not None
    assert due > utc_now() + timedelta(seconds=10)
    assert await scanner.scan_due() == 0
    # One that refuses for good is not asked again and again.
    await world.execute(
        "UPDATE artifact_revisions SET details_due_at = now() WHERE details_due_at IS NOT NULL"
    )
    world.near.refuse["get_model"] = errors.SourceForbidden("gated")
    assert await scanner.scan_due() == 9
    assert (await world.revision_row(rows[0].id)).details_due_at is None


async def test_old_models_are_scanned_again_and_keep_what_was_imported(world: World) -> None:
    publish(world, "org/model", "main", commit="e" * 40)
    scanner = Scanner(world.database, rescanning(world), world.proxies)
    assert await scanner.scan_due() == 0
    await world.execute("UPDATE artifacts SET scanned_at = now() - interval '2 hours'")
    await world.execute("UPDATE artifact_revisions SET status = 'AVAILABLE', stored_commit = digest")
    before = await world.revision_row(world.revision)
    assert await scanner.scan_due() == 1
    after = await world.revision_row(world.revision)
    assert (after.digest, after.stored_commit) == ("e" * 40, before.stored_commit)
    assert after.status is before.status
    # Its size and readme follow.
    assert await scanner.scan_due() == 1
    assert (await world.revision_row(world.revision)).size == 10


async def test_a_model_that_is_gone_rests_and_a_deleted_one_is_left_alone(world: World) -> None:
    await world.execute("UPDATE artifacts SET scanned_at = now() - interval '2 hours'")
    scanner = Scanner(world.database, rescanning(world), world.proxies)
    assert await scanner.scan_due() == 1
    assert await scanner.scan_due() == 0
    async with world.database.begin() as session:
        revision = await session.get_one(ArtifactRevision, world.revision)
        artifact = await session.get_one(Artifact, revision.artifact_id)
        artifact.availability = ArtifactAvailability.DELETED
    assert await Scanner(world.database, rescanning(world), world.proxies).scan_due() == 0
