"""Scanning: everything a registry shows, or an error and no rows."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from manager.catalog import Catalog
from manager.models import (
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactRevision,
    ArtifactStatus,
    ArtifactType,
)
from proxy_client import errors
from proxy_client.errors import StowageError
from proxy_client.wire import RegistryModel, RegistryRevision
from tests.manager.stand_in import SECRET
from tests.manager.world import World, commit_of, settings_in

pytestmark = pytest.mark.anyio


def catalog(world: World) -> Catalog:
    return Catalog(world.database, world.settings, world.proxies)


def offer(world: World, name: str, **versions: str) -> None:
    """Let the registry have a model; the values are what each version's commit is made of."""
    world.near.models[name] = RegistryModel(
        model_id=name,
        description=f"about {name}\0",
        tags=["x\0"],
        revisions=[
            RegistryRevision(name=version, commit=commit_of(seed), size=len(seed), readme=f"# {seed}\0")
            for version, seed in versions.items()
        ],
    )


async def scan(
    world: World, *targets: tuple[str, str | None], registry: UUID | None = None
) -> list[ArtifactRevision]:
    return await catalog(world).scan_models(world.admin, list(targets), registry)


async def test_a_model_comes_with_all_its_branches_and_tags(world: World) -> None:
    offer(world, "org/new", main="one", dev="two")
    found = await scan(world, ("org/new", None))
    assert [(row.version, row.digest, row.size, row.readme) for row in found] == [
        ("main", commit_of("one"), 3, "# one\ufffd"),
        ("dev", commit_of("two"), 3, "# two\ufffd"),
    ]
    assert {row.status for row in found} == {ArtifactStatus.SCANNED}
    artifact = found[0].artifact
    assert (artifact.name, artifact.description) == ("org/new", "about org/new\ufffd")
    assert artifact.origin.name == "hub"


async def test_a_named_revision_comes_alone(world: World) -> None:
    offer(world, "org/new", main="one", dev="two")
    (found,) = await scan(world, ("org/new", "dev"))
    assert found.version == "dev"
    assert world.near.asked_models == [("org/new", "dev")]


async def test_targets_are_answered_in_their_order_and_each_revision_once(world: World) -> None:
    offer(world, "org/b", main="b", dev="bd")
    offer(world, "org/a", main="a")
    found = await scan(world, ("org/b", "dev"), ("org/a", None), ("org/b", None), ("org/a", "main"))
    assert [(row.artifact.name, row.version) for row in found] == [
        ("org/b", "dev"),
        ("org/a", "main"),
        ("org/b", "main"),
    ]


async def test_a_second_scan_moves_the_digest_and_keeps_what_was_imported(world: World) -> None:
    offer(world, "org/new", main="one", dev="same")
    first, unchanged = await scan(world, ("org/new", None))
    stored = commit_of("one")
    await world.execute("UPDATE artifact_revisions SET status = 'AVAILABLE', stored_commit = :c", c=stored)
    offer(world, "org/new", main="other", dev="same")
    second, still = await scan(world, ("org/new", None))
    assert (second.id, second.digest, second.size) == (first.id, commit_of("other"), 5)
    assert (second.status, second.stored_commit) == (ArtifactStatus.AVAILABLE, stored)
    assert second.updated_at > first.updated_at
    assert (still.id, still.updated_at) == (unchanged.id, unchanged.updated_at)


async def test_a_model_with_thousands_of_revisions_is_kept(world: World) -> None:
    offer(world, "org/many", **{f"v{number}": str(number) for number in range(4500)})
    assert len(await scan(world, ("org/many", None))) == 4500


@pytest.mark.parametrize(
    "failure",
    [
        errors.SourceUnavailable("down"),
        errors.SourceInvalid("HTML"),
        errors.SourceForbidden("gated"),
        errors.Unavailable("proxy"),
    ],
)
async def test_one_failure_is_an_error_without_rows(world: World, failure: StowageError) -> None:
    offer(world, "org/good", main="one")
    world.near.refuse_model["org/bad"] = failure
    before = await world.rows()
    with pytest.raises(type(failure)):
        await scan(world, ("org/good", None), ("org/bad", None))
    assert await world.rows() == before


async def test_an_unknown_model_or_revision_is_named(world: World) -> None:
    offer(world, "org/good", main="one")
    for targets in ([("org/good", "main"), ("org/none", None)], [("org/good", "main"), ("org/good", "none")]):
        with pytest.raises(errors.SourceNotFound) as refusal:
            await scan(world, *targets)
        assert refusal.value.field == "input.models[1]"


@pytest.mark.parametrize("name", ["..", "a/../b", "a\n"])
async def test_a_revision_that_is_no_name_is_the_registrys_fault(world: World, name: str) -> None:
    offer(world, "org/new", **{name: "one"})
    before = await world.rows()
    with pytest.raises(errors.SourceInvalid):
        await scan(world, ("org/new", None))
    assert await world.rows() == before


async def test_a_commit_that_is_none_is_the_registrys_fault(world: World) -> None:
    offer(world, "org/new", main="one")
    broken = RegistryRevision(name="main", commit="<html>")
    world.near.models["org/new"] = world.near.models["org/new"].model_copy(update={"revisions": [broken]})
    before = await world.rows()
    with pytest.raises(errors.SourceInvalid):
        await scan(world, ("org/new", None))
    assert await world.rows() == before


BAD_TARGETS: list[tuple[list[tuple[str, str | None]], str]] = [
    ([], "input.models"),
    ([("org/x", None)] * 101, "input.models"),
    ([("org/x", None), ("../x", None)], "input.models[1].modelId"),
    ([("x", None)], "input.models[0].modelId"),
    ([("org/x", "")], "input.models[0].revision"),
    ([("org/x", "a\0")], "input.models[0].revision"),
    ([("org/x", "x" * 256)], "input.models[0].revision"),
]


async def test_a_bad_target_is_refused(world: World) -> None:
    for targets, field in BAD_TARGETS:
        with pytest.raises(errors.BadRequest) as refusal:
            await scan(world, *targets)
        assert refusal.value.field == field
    assert world.near.asked_models == []


@pytest.mark.parametrize(
    "name", [".", "..", "a/../b", "a/./b", "a//b", "/a", "a/", " a", "a ", "a\\b", ".stowage", "a\u200bb"]
)
async def test_what_names_no_revision_is_refused_before_the_proxy_is_asked(world: World, name: str) -> None:
    with pytest.raises(errors.BadRequest) as refusal:
        await scan(world, ("org/x", "main"), ("org/x", name))
    assert refusal.value.field == "input.models[1].revision"
    assert world.near.asked_models == []


async def test_a_search_keeps_what_it_finds_in_the_registrys_order(world: World) -> None:
    for name in ("org/zebra", "org/ape", "org/other"):
        offer(world, name, main=name)
    world.near.refuse_model["org/other"] = errors.SourceNotFound("listed but not shown")
    found = await catalog(world).scan_artifacts(
        world.admin, registry_id=world.hub.id, limit=10, artifact_type=ArtifactType.MODEL, search="org"
    )
    assert [artifact.name for artifact in found] == ["org/zebra", "org/ape"]
    assert found[0].origin.name == "hub"
    assert len((await world.rows())["artifact_revisions"]) == 3


async def test_a_search_respects_its_limit_and_may_find_nothing(world: World) -> None:
    offer(world, "org/a", main="a")
    offer(world, "org/b", main="b")
    service = catalog(world)
    one = await service.scan_artifacts(
        world.admin, registry_id=None, limit=1, artifact_type=None, search=None
    )
    assert [artifact.name for artifact in one] == ["org/a"]
    nothing = await service.scan_artifacts(
        world.admin, registry_id=None, limit=1, artifact_type=None, search="zzz"
    )
    assert nothing == []


async def test_a_limit_out_of_bounds_is_refused(world: World) -> None:
    for limit in (0, -1, 101):
        with pytest.raises(errors.BadRequest) as refusal:
            await catalog(world).scan_artifacts(
                world.admin, registry_id=None, limit=limit, artifact_type=None, search=None
            )
        assert refusal.value.field == "input.limit"


async def test_only_administrators_scan(world: World) -> None:
    service = catalog(world)
    with pytest.raises(errors.Forbidden):
        await service.scan_models(world.user_a, [("org/model", None)], None)
    with pytest.raises(errors.Forbidden):
        await service.scan_artifacts(world.user_a, registry_id=None, limit=1, artifact_type=None, search=None)
    assert world.near.asked_models == []


async def test_what_a_registry_does_not_offer_is_said(world: World) -> None:
    reservoir = ArtifactRegistry(id=uuid4(), name="res", type=ArtifactRegistryType.RESERVOIR, url="http://x")
    await world.add(reservoir)
    with pytest.raises(errors.UnsupportedRegistry) as refusal:
        await scan(world, ("org/model", None), registry=reservoir.id)
    assert refusal.value.field == "input.registryId"
    with pytest.raises(errors.UnsupportedRegistry):
        await catalog(world).scan_artifacts(
            world.admin, registry_id=None, limit=1, artifact_type=ArtifactType.IMAGE, search=None
        )
    with pytest.raises(errors.NotFound):
        await scan(world, ("org/model", None), registry=uuid4())


async def test_without_configuration_a_scan_says_what_is_missing(world: World, tmp_path: Path) -> None:
    secrets = dict.fromkeys(world.proxies, SECRET)
    world.settings = settings_in(tmp_path, secrets, without="artifact-registry")
    with pytest.raises(errors.Conflict, match=r"\[artifact-registry\]"):
        await scan(world, ("org/model", None))
