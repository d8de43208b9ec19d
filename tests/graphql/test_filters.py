import pytest

from manager.models import ArtifactAvailability, ArtifactStatus, ArtifactType
from tests.graphql.served import Json, Manager

pytestmark = pytest.mark.anyio

ARTIFACTS = "query($filter: ArtifactFilter) { artifacts(filter: $filter) { edges { node { name } } } }"
REVISIONS = """query($filter: ArtifactRevisionFilter) {
  artifactRevisions(filter: $filter, orderBy: [{field: VERSION}]) { edges { node { version } } } }"""

BY_NAME: list[tuple[Json, set[str]]] = [
    ({"contains": "ert"}, {"org/bert", "org/Bert_x"}),
    ({"startsWith": "org/B"}, {"org/Bert_x"}),
    ({"endsWith": "bert"}, {"org/bert"}),
    ({"equals": "org/bert"}, {"org/bert"}),
    ({"notContains": "ert"}, {"org/100%", "org/gpt"}),
    ({"notStartsWith": "org/b"}, {"org/100%", "org/Bert_x", "org/gpt"}),
    ({"notEndsWith": "t"}, {"org/100%", "org/Bert_x"}),
    ({"notEquals": "org/bert"}, {"org/100%", "org/Bert_x", "org/gpt"}),
    ({"iContains": "BERT"}, {"org/bert", "org/Bert_x"}),
    ({"iStartsWith": "ORG/b"}, {"org/bert", "org/Bert_x"}),
    ({"iEndsWith": "_X"}, {"org/Bert_x"}),
    ({"iEquals": "ORG/BERT"}, {"org/bert"}),
    ({"iNotContains": "BERT"}, {"org/100%", "org/gpt"}),
    ({"iNotStartsWith": "ORG/B"}, {"org/100%", "org/gpt"}),
    ({"iNotEndsWith": "T"}, {"org/100%", "org/Bert_x"}),
    ({"iNotEquals": "ORG/BERT"}, {"org/100%", "org/Bert_x", "org/gpt"}),
    ({"in": ["org/bert", "org/gpt"]}, {"org/bert", "org/gpt"}),
    ({"notIn": ["org/bert", "org/gpt"]}, {"org/100%", "org/Bert_x"}),
    ({"iIn": ["ORG/BERT_X"]}, {"org/Bert_x"}),
    ({"iNotIn": ["ORG/BERT_X"]}, {"org/100%", "org/bert", "org/gpt"}),
    ({"in": []}, set()),
    ({"contains": "%"}, {"org/100%"}),
    ({"contains": "_"}, {"org/Bert_x"}),
    ({"contains": "/"}, {"org/bert", "org/Bert_x", "org/100%", "org/gpt"}),
    ({"startsWith": "org/", "endsWith": "t", "notEquals": "org/gpt"}, {"org/bert"}),
]


async def test_every_operator_on_texts(manager: Manager) -> None:
    for name in ("org/bert", "org/Bert_x", "org/100%", "org/gpt"):
        await manager.artifact(name)
    for wanted, names in BY_NAME:
        data = await manager.ask(ARTIFACTS, {"filter": {"name": wanted}})
        assert {edge["node"]["name"] for edge in data["artifacts"]["edges"]} == names, wanted


async def test_filters_on_artifacts(manager: Manager) -> None:
    await manager.artifact("org/model")
    await manager.artifact("org/image", type=ArtifactType.IMAGE)
    await manager.artifact("org/gone", availability=ArtifactAvailability.DELETED)
    cases: list[tuple[Json, set[str]]] = [
        ({"type": ["IMAGE"]}, {"org/image"}),
        ({"type": []}, set()),
        ({"availability": ["DELETED"]}, {"org/gone"}),
        ({"registry": {"equals": "hub"}}, {"org/model", "org/image", "org/gone"}),
        ({"source": {"notEquals": "hub"}}, set()),
        ({"AND": [{"type": ["MODEL"]}, {"availability": ["ALIVE"]}]}, {"org/model"}),
        ({"OR": [{"type": ["IMAGE"]}, {"availability": ["DELETED"]}]}, {"org/image", "org/gone"}),
        ({"NOT": [{"type": ["IMAGE"]}, {"availability": ["DELETED"]}]}, {"org/model"}),
        ({"type": ["MODEL"], "NOT": [{"OR": [{"name": {"contains": "gone"}}]}]}, {"org/model"}),
        ({"OR": [{}, {"type": ["IMAGE"]}]}, {"org/model", "org/image", "org/gone"}),
        ({"AND": None, "name": None}, {"org/model", "org/image", "org/gone"}),
    ]
    for wanted, names in cases:
        data = await manager.ask(ARTIFACTS, {"filter": wanted})
        assert {edge["node"]["name"] for edge in data["artifacts"]["edges"]} == names, wanted


async def test_artifacts_by_the_status_of_their_revisions(manager: Manager) -> None:
    both, stored = await manager.artifact("org/both"), await manager.artifact("org/stored")
    await manager.artifact("org/none")
    await manager.revision(both, "one", status=ArtifactStatus.AVAILABLE)
    await manager.revision(both, "two", status=ArtifactStatus.FAILED)
    await manager.revision(both, "three", status=ArtifactStatus.FAILED)
    await manager.revision(stored, "one", status=ArtifactStatus.AVAILABLE)
    cases: list[tuple[Json, list[str]]] = [
        ({"revisionStatus": ["AVAILABLE"]}, ["org/both", "org/stored"]),
        ({"revisionStatus": ["FAILED", "REJECTED"]}, ["org/both"]),
        ({"revisionStatus": []}, []),
        ({"NOT": [{"revisionStatus": ["FAILED"]}]}, ["org/none", "org/stored"]),
        ({"revisionStatus": ["AVAILABLE"], "name": {"endsWith": "stored"}}, ["org/stored"]),
    ]
    for wanted, names in cases:
        data = await manager.ask(ARTIFACTS, {"filter": wanted})
        assert [edge["node"]["name"] for edge in data["artifacts"]["edges"]] == names, wanted


async def test_filters_on_revisions(manager: Manager) -> None:
    artifact, other = await manager.artifact("org/a"), await manager.artifact("org/b")
    await manager.revision(artifact, "small", size=1)
    await manager.revision(artifact, "stored", size=5, status=ArtifactStatus.AVAILABLE)
    await manager.revision(other, "unknown", size=None)
    cases: list[tuple[Json, list[str]]] = [
        ({"status": {"equals": "AVAILABLE"}}, ["stored"]),
        ({"status": {"in": ["SCANNED", "FAILED"]}}, ["small", "unknown"]),
        ({"remoteStatus": {"equals": "SCANNED"}}, []),
        ({"version": {"startsWith": "s"}}, ["small", "stored"]),
        ({"artifactId": {"equals": str(other.id)}}, ["unknown"]),
        ({"artifactId": {"in": [str(other.id), str(artifact.id)]}}, ["small", "stored", "unknown"]),
        ({"artifactId": {"notEquals": str(other.id)}}, ["small", "stored"]),
        ({"artifactId": {"notIn": [str(other.id)]}}, ["small", "stored"]),
        ({"size": {"equals": 5}}, ["stored"]),
        ({"size": {"notEquals": 5}}, ["small", "unknown"]),
        ({"size": {"greaterThan": 1}}, ["stored"]),
        ({"size": {"greaterThanOrEqual": 1, "lessThan": 5}}, ["small"]),
        ({"size": {"lessThanOrEqual": 5}}, ["small", "stored"]),
        ({"NOT": [{"size": {"greaterThan": 1}}]}, ["small", "unknown"]),
    ]
    for wanted, versions in cases:
        data = await manager.ask(REVISIONS, {"filter": wanted})
        found = [edge["node"]["version"] for edge in data["artifactRevisions"]["edges"]]
        assert found == versions, wanted


async def test_a_filter_without_bounds_is_refused(manager: Manager) -> None:
    deep: Json = {"name": {"equals": "x"}}
    for _ in range(12):
        deep = {"NOT": [deep]}
    wide = {"OR": [{"name": {"equals": "x"}}] * 1001}
    lists: Json = {"NOT": [{"name": {"in": ["x"] * 400}}, {"source": {"iNotIn": ["x"] * 700}}]}
    empty: Json = {"AND": [{}] * 1001}
    for wanted in (deep, wide, lists, empty):
        error = await manager.refusal(ARTIFACTS, {"filter": wanted})
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": "filter"}
    large = {"OR": [{"name": {"in": ["org/x"] * 100}}] * 9}
    assert (await manager.ask(ARTIFACTS, {"filter": large}))["artifacts"]["edges"] == []


async def test_an_order_without_bounds_is_refused(manager: Manager) -> None:
    query = "query($order: [ArtifactOrderBy!]) { artifacts(orderBy: $order) { count } }"
    error = await manager.refusal(query, {"order": [{"field": "NAME"}] * 11})
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": "orderBy"}


async def test_a_nul_in_a_text_is_the_callers_mistake(manager: Manager) -> None:
    error = await manager.refusal(ARTIFACTS, {"filter": {"name": {"equals": "a\0b"}}})
    assert error["extensions"]["code"] == "BAD_REQUEST"
