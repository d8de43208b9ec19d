import base64
import itertools
import json

import pytest

from manager.models import ArtifactRevision, ArtifactType
from tests.graphql.served import Json, Manager

pytestmark = pytest.mark.anyio

NAMES = """query($first: Int, $after: String, $last: Int, $before: String, $limit: Int, $offset: Int,
                 $order: [ArtifactOrderBy!]) {
  artifacts(first: $first, after: $after, last: $last, before: $before, limit: $limit, offset: $offset,
            orderBy: $order) {
    edges { cursor node { name } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""
SIZES = """query($first: Int, $after: String, $last: Int, $before: String, $order: [ArtifactRevisionOrderBy!]) {
  artifactRevisions(first: $first, after: $after, last: $last, before: $before, orderBy: $order) {
    edges { node { version size } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


def names(data: Json) -> list[str]:
    return [edge["node"]["name"] for edge in data["artifacts"]["edges"]]


async def with_artifacts(manager: Manager, number: int) -> list[str]:
    wanted = [f"org/model-{index:03}" for index in range(number)]
    for name in wanted:
        await manager.artifact(name)
    return wanted


async def test_pages_forward_meet_every_row_once(manager: Manager) -> None:
    wanted = await with_artifacts(manager, 7)
    found: list[str] = []
    page: Json = {"endCursor": None, "hasNextPage": True}
    while page["hasNextPage"]:
        data = await manager.ask(NAMES, {"first": 3, "after": page["endCursor"]})
        page = data["artifacts"]["pageInfo"]
        assert page["hasPreviousPage"] is bool(found)
        found += names(data)
    assert found == wanted


async def test_pages_backward_keep_the_order_of_the_list(manager: Manager) -> None:
    wanted = await with_artifacts(manager, 5)
    end = await manager.ask(NAMES, {"last": 2})
    assert names(end) == wanted[3:]
    assert end["artifacts"]["pageInfo"]["hasPreviousPage"]
    assert not end["artifacts"]["pageInfo"]["hasNextPage"]
    before = end["artifacts"]["pageInfo"]["startCursor"]
    assert names(await manager.ask(NAMES, {"last": 2, "before": before})) == wanted[1:3]
    assert names(await manager.ask(NAMES, {"last": 9, "before": before})) == wanted[:3]


async def test_a_row_that_appears_does_not_move_the_next_page(manager: Manager) -> None:
    wanted = await with_artifacts(manager, 4)
    first = await manager.ask(NAMES, {"first": 2})
    await manager.artifact("org/a-before-all")
    after = first["artifacts"]["pageInfo"]["endCursor"]
    assert names(await manager.ask(NAMES, {"first": 9, "after": after})) == wanted[2:]


async def test_a_range_lies_between_two_cursors(manager: Manager) -> None:
    wanted = await with_artifacts(manager, 6)
    cursors = [edge["cursor"] for edge in (await manager.ask(NAMES))["artifacts"]["edges"]]
    data = await manager.ask(NAMES, {"first": 9, "after": cursors[0], "before": cursors[4]})
    assert names(data) == wanted[1:4]


async def test_limit_and_offset(manager: Manager) -> None:
    wanted = await with_artifacts(manager, 5)
    data = await manager.ask(NAMES, {"limit": 2, "offset": 2})
    assert names(data) == wanted[2:4]
    info = data["artifacts"]["pageInfo"]
    assert info["hasNextPage"]
    assert info["hasPreviousPage"]


async def test_without_arguments_a_page_has_20_rows(manager: Manager) -> None:
    wanted = await with_artifacts(manager, 21)
    assert names(await manager.ask(NAMES)) == wanted[:20]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("backward", [False, True])
async def test_unknown_sizes_count_as_the_greatest(
    manager: Manager, descending: bool, backward: bool
) -> None:
    artifact = await manager.artifact()
    for version, size in (("a", None), ("b", 5), ("c", None), ("d", 1), ("e", 5)):
        await manager.revision(artifact, version, size=size)
    wanted = ["d", "b", "e", "a", "c"]  # SIZE ascending, then VERSION
    if descending:
        wanted = ["a", "c", "b", "e", "d"]  # SIZE descending, then VERSION ascending
    order = [{"field": "SIZE", "direction": "DESC" if descending else "ASC"}, {"field": "VERSION"}]
    found: list[str] = []
    more, cursor = True, None
    while more:
        ends = {"last": 2, "before": cursor} if backward else {"first": 2, "after": cursor}
        page = (await manager.ask(SIZES, {"order": order, **ends}))["artifactRevisions"]
        versions = [edge["node"]["version"] for edge in page["edges"]]
        found = versions + found if backward else found + versions
        info = page["pageInfo"]
        more, cursor = (
            (info["hasPreviousPage"], info["startCursor"])
            if backward
            else (info["hasNextPage"], info["endCursor"])
        )
    assert found == wanted


@pytest.mark.parametrize("field", ["NAME", "TYPE", "SIZE", "SCANNED_AT", "UPDATED_AT"])
async def test_every_order_of_artifacts_can_be_paged(manager: Manager, field: str) -> None:
    for index, kind in enumerate((ArtifactType.MODEL, ArtifactType.IMAGE, ArtifactType.MODEL)):
        artifact = await manager.artifact(f"org/{index}", type=kind)
        await manager.revision(artifact, size=index * 10)
    order = [{"field": field, "direction": "DESC"}]
    whole = names(await manager.ask(NAMES, {"order": order}))
    found: list[str] = []
    cursor = None
    for _ in range(3):
        data = await manager.ask(NAMES, {"order": order, "first": 1, "after": cursor})
        found += names(data)
        cursor = data["artifacts"]["pageInfo"]["endCursor"]
    assert found == whole
    assert len(set(found)) == 3


@pytest.mark.parametrize("field", ["VERSION", "SIZE", "CREATED_AT", "UPDATED_AT", "STATUS"])
async def test_every_order_of_revisions_can_be_paged(manager: Manager, field: str) -> None:
    artifact = await manager.artifact()
    for version in ("x", "y"):
        await manager.revision(artifact, version)
    order = [{"field": field}]
    page = (await manager.ask(SIZES, {"order": order, "first": 1}))["artifactRevisions"]
    rest = await manager.ask(SIZES, {"order": order, "after": page["pageInfo"]["endCursor"]})
    versions = [edge["node"]["version"] for edge in page["edges"] + rest["artifactRevisions"]["edges"]]
    assert sorted(versions) == ["x", "y"]


NO_PAGES: list[tuple[Json, str]] = [
    ({"first": 101}, "first"),
    ({"last": 101}, "last"),
    ({"limit": 101}, "limit"),
    ({"first": -1}, "first"),
    ({"offset": -1}, "offset"),
    ({"first": 1, "last": 1}, "last"),
    ({"first": 1, "limit": 1}, "limit"),
    ({"after": "x", "offset": 1}, "offset"),
    ({"after": "not a cursor"}, "after"),
    ({"before": "bm90IGEgY3Vyc29y"}, "before"),
]


async def test_arguments_that_make_no_page_are_refused(manager: Manager) -> None:
    for arguments, field in NO_PAGES:
        error = await manager.refusal(NAMES, arguments)
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": field}, arguments


async def test_a_cursor_of_another_order_is_refused(manager: Manager) -> None:
    await with_artifacts(manager, 1)
    cursor = (await manager.ask(NAMES))["artifacts"]["pageInfo"]["endCursor"]
    order = [{"field": "NAME", "direction": "DESC"}]
    error = await manager.refusal(NAMES, {"after": cursor, "order": order})
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": "after"}


async def test_a_forged_cursor_breaks_nothing(manager: Manager) -> None:
    values_of_each_kind: list[object] = [None, 5.5, 1 << 63, "\0", True, [], {"a": 1}, "x" * 5000]
    for key, value in itertools.product(
        ["NAME", "SIZE", "SCANNED_AT", "TYPE", "id"],
        values_of_each_kind,
    ):
        keys = ["NAME", "id"] if key == "id" else [key, "id"]
        values = [value if each == key else "org/x" for each in keys]
        cursor = base64.urlsafe_b64encode(json.dumps([",".join(keys), *values]).encode()).decode()
        error = await manager.refusal(NAMES, {"after": cursor, "order": [{"field": keys[0]}]})
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": "after"}, (key, value)


async def test_count_is_that_of_the_whole_list_and_costs_nothing_unasked(manager: Manager) -> None:
    await with_artifacts(manager, 3)
    with manager.statements() as seen:
        await manager.ask("{ artifacts(first: 1) { edges { node { name } } } }")
        unasked = len(seen)
        data = await manager.ask("{ artifacts(first: 1) { count edges { node { name } } } }")
    assert data["artifacts"]["count"] == 3
    assert len(seen) - unasked == unasked + 1


async def test_each_artifact_has_its_own_page_of_revisions(manager: Manager) -> None:
    for name in ("org/a", "org/b"):
        artifact = await manager.artifact(name)
        for version in ("v1", "v2", "v3"):
            await manager.revision(artifact, f"{name}-{version}")
    await manager.artifact("org/none")
    query = """query($after: String) { artifacts { edges { node { name
        revisions(first: 2, after: $after) { count edges { cursor node { version } } pageInfo { hasNextPage } }
    } } } }"""
    found = {
        edge["node"]["name"]: edge["node"]["revisions"]
        for edge in (await manager.ask(query))["artifacts"]["edges"]
    }
    versions = {name: [edge["node"]["version"] for edge in page["edges"]] for name, page in found.items()}
    assert versions == {
        "org/a": ["org/a-v1", "org/a-v2"],
        "org/b": ["org/b-v1", "org/b-v2"],
        "org/none": [],
    }
    assert [page["count"] for page in found.values()] == [3, 3, 0]
    assert [page["pageInfo"]["hasNextPage"] for page in found.values()] == [True, True, False]


async def test_nested_pages_go_backward_and_by_offset_too(manager: Manager) -> None:
    artifact = await manager.artifact()
    for version in ("v1", "v2", "v3"):
        await manager.revision(artifact, version)
    data = await manager.ask(
        """{ artifacts { edges { node {
          end: revisions(last: 2) { edges { node { version } } }
          middle: revisions(limit: 1, offset: 1) { edges { node { version } } }
          big: revisions(filter: {size: {greaterThan: 1000}}) { count }
        } } } }"""
    )
    node = data["artifacts"]["edges"][0]["node"]
    assert [edge["node"]["version"] for edge in node["end"]["edges"]] == ["v2", "v3"]
    assert [edge["node"]["version"] for edge in node["middle"]["edges"]] == ["v2"]
    assert node["big"]["count"] == 0


async def test_a_nested_query_costs_the_same_for_one_row_and_for_many(manager: Manager) -> None:
    query = """{ artifacts(first: 50) { count edges { node { id registry { name } source { url }
        revisions(first: 5) { count edges { node { version artifact { name registry { name } } } } } } } } }"""

    async def cost() -> int:
        with manager.statements() as seen:
            await manager.ask(query)
        return len(seen)

    await manager.revision(await manager.artifact("org/first"))
    one = await cost()
    for index in range(30):
        artifact = await manager.artifact(f"org/{index}")
        for version in ("v1", "v2"):
            await manager.revision(artifact, version)
    assert await cost() == one
    # The caller, the page, its count, registries, pages of revisions, their counts, their artifacts.
    assert one <= 8
    assert len(await manager.rows(ArtifactRevision)) == 61
