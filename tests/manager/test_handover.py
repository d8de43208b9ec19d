"""What is entered at the manager reaches the proxies, whatever was away meanwhile."""

from uuid import uuid4

import pytest

from manager.handover import Handover
from manager.import_options import ImportOptions
from manager.models import (
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactStorage,
    ArtifactStorageType,
    ImportTaskStatus,
    StorageNamespace,
)
from manager.vault import Vault
from proxy_client import errors, wire
from proxy_client.sealing import Seal
from tests.manager.stand_in import until
from tests.manager.test_reconciler import reconciling
from tests.manager.world import World

pytestmark = pytest.mark.anyio


async def enter(world: World, name: str = "mirror") -> ArtifactRegistry:
    key = uuid4()
    row = ArtifactRegistry(
        id=key,
        name=name,
        type=ArtifactRegistryType.HUGGINGFACE,
        url="https://mirror.example",
        sealed=Vault(world.settings).close(key, {"token": "t"}),
        has_secrets=True,
    )
    await world.add(row)
    return row


def handover(world: World) -> Handover:
    return Handover(world.database, Vault(world.settings), world.proxies)


async def test_a_proxy_that_lost_what_it_was_told_is_told_again(world: World) -> None:
    await enter(world)
    async with reconciling(world):
        await until(lambda: None not in (world.near.configuration, world.far.configuration))
        for told in (world.near.configuration, world.far.configuration):
            assert told is not None
            assert [(one.name, one.token) for one in told.registries] == [("mirror", "t")]
        world.near.configuration = None
        await until(lambda: world.near.configuration is not None)


async def test_what_a_proxy_has_is_not_told_again(world: World) -> None:
    await enter(world)
    assert await handover(world).bring(world.near.client)
    assert not await handover(world).bring(world.near.client)
    assert world.near.handed_over == 1


async def test_a_proxy_is_told_of_its_own_storages_alone(world: World) -> None:
    for name in ("near", "far"):
        storage = ArtifactStorage(
            id=uuid4(), type=ArtifactStorageType.VFS, proxy=name, name=f"{name}-shelf", base_path="/srv/x"
        )
        await world.add(storage)
        await world.add(StorageNamespace(storage_id=storage.id, namespace="team"))
    told = await handover(world).wanted("far")
    assert [one.name for one in told.artifact_storages] == ["far-shelf", "far-shelf.team"]


async def test_a_row_whose_key_is_lost_keeps_no_other_from_the_proxy(world: World) -> None:
    lost = await enter(world, "lost")
    await enter(world, "kept")
    await world.execute(
        "UPDATE artifact_registries SET sealed = :other WHERE id = :id", other="1:00:x", id=lost.id
    )
    told = await handover(world).wanted("near")
    assert [one.name for one in told.registries] == ["kept"]


def test_a_sealed_secret_opens_for_its_own_row_alone() -> None:
    old, new = "o" * 32, "n" * 32
    sealed = Seal([old], "manager").close("secret", "row 1")
    assert "secret" not in sealed
    assert Seal([old], "manager").close("secret", "row 1") != sealed
    rotated = Seal([new, old], "manager")
    assert rotated.open(sealed, "row 1") == "secret"
    damaged = sealed[:-6] + ("AAAAAA" if not sealed.endswith("AAAAAA") else "BBBBBB")
    for seal, value, about in (
        (rotated, sealed, "row 2"),
        (rotated, damaged, "row 1"),
        (Seal([new], "manager"), sealed, "row 1"),
        (Seal([old], "proxy"), sealed, "row 1"),
    ):
        with pytest.raises(errors.Unavailable):
            seal.open(value, about)


async def test_an_order_brings_what_the_proxy_has_not_heard_of(world: World) -> None:
    registry = await enter(world)
    revision = await world.make_revision("org/model", "v2", registry=registry)

    async def known(order: wire.ImportOrder) -> None:
        told = world.near.configuration
        if order.registry_name not in [one.name for one in (told.registries if told else ())]:
            raise errors.NotFound("no such registry", field="registry_name")

    world.near.before_order = known
    (imported,) = await world.service().import_revisions(world.admin, [revision], None, ImportOptions())
    assert imported.task is not None
    assert imported.task.status is ImportTaskStatus.PENDING
    assert list(world.near.orders) == [imported.task.id]
    # One that is not there at all is not asked for without end.
    gone = await world.make_revision("org/model", "v3")
    (imported,) = await world.service().import_revisions(world.admin, [gone], None, ImportOptions())
    assert imported.task is not None
    assert (imported.task.status, imported.task.error) == (
        ImportTaskStatus.FAILED,
        {"code": "NOT_FOUND", "message": "no such registry", "step": None},
    )
    assert world.near.handed_over == 1
