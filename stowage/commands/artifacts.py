"""`stowage artifact`: the catalogue."""

import enum
from itertools import islice
from typing import Annotated, Any

import typer

from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.following import finding_lines, verifier_line
from stowage.commands.imports import Json, Model, parse_model
from stowage.commands.output import (
    console,
    human_size,
    local_time,
    note,
    print_facts,
    print_json,
    print_table,
)
from stowage.documents import WholeArtifact, WholeRevision

app = typer.Typer(rich_markup_mode=None)
artifact = typer.Typer(
    name="artifact",
    invoke_without_command=True,
    callback=help_without_command,
    help="Look into the catalogue of models.",
)
app.add_typer(artifact)


class Status(enum.StrEnum):
    """Where a revision stands in the artifact storage, as people type it."""

    SCANNED = "scanned"
    PULLING = "pulling"
    PULLED = "pulled"
    VERIFYING = "verifying"
    NEEDS_APPROVAL = "needs_approval"
    AVAILABLE = "available"
    FAILED = "failed"
    REJECTED = "rejected"


@artifact.command(
    "list",
    epilog=epilog(
        ("stowage artifact list", "by name, the first 50"),
        ("stowage artifact list --search bert", "whose name holds that text"),
        ("stowage artifact list --status available", "in the artifact storage"),
        ("stowage artifact list --limit 500 --json", ""),
        notes="`stowage scan ORG/NAME` takes a model into the catalogue.",
    ),
)
def list_(
    *,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only models whose name holds this text.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only models of this registry.")
    ] = None,
    status: Annotated[
        list[Status] | None,
        typer.Option(
            metavar="STATUS",
            help="Only models with a revision that stands there in the artifact storage: scanned, pulling, pulled,"
            " verifying, needs_approval, available, failed or rejected. May be repeated.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    as_json: Json = False,
) -> None:
    """List the models that the catalogue knows."""
    states = [state.upper() for state in status or []]
    with connect() as client:
        found = client.artifacts(search=search, registry=registry, status=states)
        models, more = list(islice(found, limit)), next(found, None)
    if as_json:
        print_json(
            [
                {
                    "id": model["id"],
                    "name": model["name"],
                    "registry": model["registry"],
                    "scannedAt": model["scannedAt"],
                    "revisions": model["revisions"]["count"],
                    "available": model["available"]["count"],
                }
                for model in models
            ]
        )
        return
    print_table(
        ["MODEL", "REGISTRY", "REVISIONS", "IN ARTIFACT STORAGE", "SCANNED"],
        [
            [
                model["name"],
                model["registry"]["name"],
                model["revisions"]["count"],
                model["available"]["count"],
                local_time(model["scannedAt"]),
            ]
            for model in models
        ],
        right=["REVISIONS", "IN ARTIFACT STORAGE"],
        spare=["SCANNED", "REGISTRY", "IN ARTIFACT STORAGE"],
    )
    if more is not None:
        note("There are more; --limit shows them, --search narrows the list.")


@artifact.command(
    epilog=epilog(
        ("stowage artifact show sample/tiny-bert", "all its revisions"),
        ("stowage artifact show sample/tiny-gpt@v1.0", "one of them, with what verified it"),
        ("stowage artifact show sample/tiny-bert --json", ""),
        notes="""
        STATUS speaks of the artifact storage alone: imports into folders are tasks (`stowage task list`). COMMIT is
        what the last scan saw; an import brings that.
        """,
    )
)
def show(
    model: Model,
    *,
    registry: Annotated[
        str | None, typer.Option(metavar="NAME", help="The registry, where several have the model.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a model's revisions with size, commit, status and verification."""
    name, version = parse_model(model)
    with connect() as client:
        found = client.artifact(name, registry, version)
    if as_json:
        print_json(found)
        return
    _print_model(found)
    if version:
        _print_revision(found["revisions"][0])
    else:
        console().print()
        _print_revisions(found["revisions"])


def _print_model(found: WholeArtifact) -> None:
    print_facts(
        [
            ("model", found["name"]),
            ("id", found["id"]),
            ("registry", _registry(found)),
            ("description", found["description"]),
            ("scanned", local_time(found["scannedAt"])),
        ]
    )


def _registry(found: WholeArtifact) -> str:
    url = found["registry"]["url"]
    return f"{found['registry']['name']} ({url})" if url else str(found["registry"]["name"])


def _print_revisions(revisions: list[WholeRevision]) -> None:
    print_table(
        ["REVISION", "SIZE", "STATUS", "VERIFICATION", "UPDATED", "COMMIT"],
        [
            [
                revision["version"],
                human_size(revision["size"]),
                revision["status"].lower(),
                verdict(revision["verificationResult"]),
                local_time(revision["updatedAt"]),
                revision["digest"] or "-",
            ]
            for revision in revisions
        ],
        right=["SIZE"],
        spare=["UPDATED", "VERIFICATION", "SIZE"],
    )


def _print_revision(revision: WholeRevision) -> None:
    verifiers = (revision["verificationResult"] or {}).get("verifiers", [])
    print_facts(
        [
            ("revision", revision["version"]),
            ("revision id", revision["id"]),
            ("commit", revision["digest"]),
            ("size", human_size(revision["size"])),
            ("status", revision["status"].lower()),
            *(("verifier", verifier_line(entry)) for entry in verifiers),
            *(("finding", line) for entry in verifiers for line in finding_lines(entry)),
            ("updated", local_time(revision["updatedAt"])),
        ]
    )


def verdict(result: dict[str, Any] | None) -> str:
    """Write in some words what the verifiers of the copy in the artifact storage said."""
    if result is None:
        return "-"
    failed = [entry["name"] for entry in result["verifiers"] if not entry["result"]["success"]]
    if failed:
        return "not passed: " + ", ".join(failed)
    count = len(result["verifiers"])
    return f"passed ({count} verifier{'' if count == 1 else 's'})" if count else "none ran"
