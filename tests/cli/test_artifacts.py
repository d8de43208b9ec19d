from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.stand_in import Outcome, StandIn, connection

Run = Callable[..., Outcome]

ARTIFACT_ID = "33333333-3333-4333-8333-333333333333"
NOW = "2026-11-22T12:00:00+00:00"


def given(condition: Any) -> Any:
    """A filter without the conditions that were left out."""
    if not isinstance(condition, dict):
        return condition
    return {name: given(value) for name, value in condition.items() if value is not None}


def artifact(name: str = "sample/tiny-bert", registry: str = "huggingface", **counts: int) -> dict[str, Any]:
    source = {"name": registry, "url": f"http://{registry}.test"}

    def revisions(filter: dict[str, Any] | None = None, **_arguments: object) -> dict[str, Any]:  # noqa: A002 -- the schema's name
        status = given((filter or {}).get("status") or {})
        wanted = [status["equals"]] if "equals" in status else status.get("in")
        number = sum(counts.values()) if wanted is None else sum(counts.get(each, 0) for each in wanted)
        return connection([]) | {"count": number}

    return {
        "id": ARTIFACT_ID,
        "name": name,
        "type": "MODEL",
        "description": "a small one",
        "registry": source,
        "source": source,
        "scannedAt": NOW,
        "updatedAt": NOW,
        "revisions": lambda _info, **arguments: revisions(**arguments),
    }


def verification(*verdicts: str) -> dict[str, Any]:
    return {
        "verifiers": [
            {
                "name": f"verifier{number}",
                "result": {
                    "success": verdict == "passed",
                    "infectedCount": int(verdict != "passed"),
                    "scannedCount": 3,
                    "scannedAt": NOW,
                    "scanTime": 0.1,
                    "error": None,
                    "metadata": {"entries": []},
                },
            }
            for number, verdict in enumerate(verdicts)
        ]
    }


def revision(version: str = "main", **changed: Any) -> dict[str, Any]:
    return {
        "id": "r-1",
        "version": version,
        "status": "AVAILABLE",
        "size": "2048",
        "digest": "c" * 40,
        "createdAt": NOW,
        "updatedAt": NOW,
        "verificationResult": None,
    } | changed


def rows(outcome: Outcome) -> list[list[str]]:
    return [line.split() for line in outcome.out.splitlines()[1:]]


def test_artifact_list_counts_revisions(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([artifact(AVAILABLE=2, SCANNED=3), artifact("a/b")])
    assert [row[:4] for row in rows(stowage("artifact", "list"))] == [
        ["sample/tiny-bert", "huggingface", "5", "2"],
        ["a/b", "huggingface", "0", "0"],
    ]
    document = stowage("artifact", "list", "--json").json
    assert [(each["name"], each["revisions"], each["available"]) for each in document] == [
        ("sample/tiny-bert", 5, 2),
        ("a/b", 0, 0),
    ]


def test_artifact_list_filters_by_name_registry_and_status(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([artifact(AVAILABLE=1), artifact("a/b", FAILED=1)])
    found = stowage(
        *("artifact", "list", "--search", "bert", "--registry", "huggingface"),
        *("--status", "available", "--status", "pulling"),
    )
    assert [row[0] for row in rows(found)] == ["sample/tiny-bert"]
    [asked] = manager.arguments("artifacts")
    assert given(asked["filter"]) == {
        "availability": ["ALIVE"],
        "name": {"iContains": "bert"},
        "registry": {"equals": "huggingface"},
    }


def test_artifact_list_says_when_there_are_more(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([artifact(), artifact("a/b")])
    assert "--limit shows them" in stowage("artifact", "list", "--limit", "1").err
    assert stowage("artifact", "list", "--limit", "2").err == ""


def test_artifact_show_is_a_table_of_revisions(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([artifact()])
    manager.answers["artifactRevisions"] = connection(
        [
            revision(verificationResult=verification("passed", "passed")),
            revision("v1.0", status="FAILED", size=None, verificationResult=verification("passed", "failed")),
            revision("v2.0", status="SCANNED", digest=None),
        ]
    )
    lines = stowage("artifact", "show", "sample/tiny-bert").out.splitlines()
    assert "registry     huggingface (http://huggingface.test)" in lines
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["REVISION", "SIZE", "STATUS", "VERIFICATION", "UPDATED", "COMMIT"]
    for line, told in zip(
        table[1:],
        [
            ("main", "2.0 KiB", "available", "passed (2 verifiers)", "c" * 40),
            ("v1.0", "-", "failed", "not passed: verifier1", "c" * 40),
            ("v2.0", "2.0 KiB", "scanned", "-", "-"),
        ],
        strict=True,
    ):
        assert all(text in line for text in told)
    [asked] = manager.arguments("artifactRevisions")
    assert given(asked["filter"]) == {"artifactId": {"equals": ARTIFACT_ID}}


def test_artifact_show_of_one_revision_tells_what_each_verifier_said(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([artifact()])
    manager.answers["artifactRevisions"] = connection([revision(verificationResult=verification("passed"))])
    lines = stowage("artifact", "show", "sample/tiny-bert@main").out.splitlines()
    assert "verifier     verifier0 passed, 3 files, 0 infected" in lines
    [asked] = manager.arguments("artifactRevisions")
    assert given(asked["filter"])["version"] == {"equals": "main"}


def test_artifact_show_writes_json(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([artifact()])
    manager.answers["artifactRevisions"] = connection([revision()])
    document = stowage("artifact", "show", "sample/tiny-bert", "--json").json
    assert (document["name"], document["revisions"][0]["size"]) == ("sample/tiny-bert", 2048)


@pytest.mark.parametrize("model", ["a/b", "a/b@main"])
def test_a_model_that_is_not_there_can_be_scanned(manager: StandIn, stowage: Run, model: str) -> None:
    found = [artifact("a/b")] if "@" in model else []
    manager.answers |= {"artifacts": connection(found), "artifactRevisions": connection([])}
    outcome = stowage("artifact", "show", model)
    assert outcome.status == 2
    assert f"`stowage scan {model}` takes it in" in outcome.err


def test_a_model_of_several_registries_needs_one_of_them(manager: StandIn, stowage: Run) -> None:
    manager.answers["artifacts"] = connection([artifact(), artifact(registry="mirror")])
    outcome = stowage("artifact", "show", "sample/tiny-bert")
    assert outcome.status == 2
    assert "(huggingface, mirror); choose one with --registry" in outcome.err
