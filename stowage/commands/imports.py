"""`stowage scan` and `stowage import`."""

import re
from typing import Annotated, Literal

import typer
from rich.text import Text

from proxy_client.errors import BadRequest, Conflict, Forbidden, NotFound
from proxy_client.paths import MODEL_ID_PATTERN
from stowage.client import StowageClient, connect
from stowage.commands import epilog
from stowage.commands.completion import complete_folder
from stowage.commands.following import SUCCEEDED, follow, report
from stowage.commands.output import console, human_size, plain, print_facts, print_json, print_table
from stowage.documents import ArtifactRevision, VFolder

app = typer.Typer(rich_markup_mode=None)

DEFAULT_REVISION = "main"

Model = Annotated[
    str,
    typer.Argument(
        metavar="ORG/NAME[@REVISION]",
        help="The model, and which branch, tag or commit of it.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document on stdout and nothing else.")]


@app.command(
    epilog=epilog(
        ("stowage scan sample/tiny-bert", "every branch and tag"),
        ("stowage scan sample/tiny-gpt@v1.0", "one of them"),
        ("stowage scan sample/tiny-bert --json", ""),
        notes="A scan asks the registry what a branch holds now; an import brings what the last scan saw.",
    )
)
def scan(model: Model, *, as_json: Json = False) -> None:
    """Take a model into the catalogue (administrators).

    Asks the registry which files a branch, a tag or a commit of the model holds.
    """
    name, version = parse_model(model)
    with connect() as client:
        revisions = client.scan(name, version)
    if as_json:
        print_json(revisions)
        return
    print_table(
        ["MODEL", "REVISION", "SIZE", "COMMIT", "IN ARTIFACT STORAGE"],
        [
            [
                revision["artifact"]["name"],
                revision["version"],
                human_size(revision["size"]),
                (revision["digest"] or "-")[:12],
                revision["status"].lower(),
            ]
            for revision in revisions
        ],
        right=["SIZE"],
        spare=["IN ARTIFACT STORAGE", "COMMIT"],
    )


@app.command(
    "import",
    epilog=epilog(
        ("stowage import sample/tiny-bert --to models --create", "into a new folder"),
        ("stowage import sample/tiny-gpt@v1.0 --to models", "a revision of another one"),
        ("stowage import sample/tiny-bert --to models --path /", "into the folder's root"),
        ("stowage import sample/tiny-bert", "into the artifact storage"),
        ("stowage import sample/tiny-bert --no-wait --json", "order it and go on"),
        notes="""
        The revision is `main` unless you name another one. Files land in ORG/NAME/REVISION of the folder, all at
        once when every one of them is there and right. A file of yours in the way fails the import and stays as it
        is.

        A model that is not in the catalogue is scanned first; one that is there is imported as the last scan saw it
        (`stowage scan` looks again). Ctrl-C while waiting leaves the import running.

        Exit status: 0 imported (ordered, with --no-wait), 1 the import failed or was cancelled, 2 wrong input, 3 no
        answer or no permission, 130 interrupted.
        """,
    ),
)
def import_(
    model: Model,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Name or id of the folder to import into; without it, the artifact storage.",
            autocompletion=complete_folder,
        ),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Make the folder if you have none of that name.")
    ] = False,
    path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Where in the folder; / is its root.", show_default="ORG/NAME/REVISION"
        ),
    ] = None,
    on_conflict: Annotated[
        Literal["fail", "overwrite"] | None,
        typer.Option(
            help="What to do with a file in the way that this model did not bring.", show_default="fail"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Import again what is there already.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the import ends, or only order it.")
    ] = True,
    as_json: Json = False,
) -> int:
    """Import a model into a folder or the artifact storage."""
    name, version = parse_model(model)
    for option, given in {"--create": create, "--path": path, "--on-conflict": on_conflict}.items():
        if given and to is None:
            raise BadRequest(f"{option} speaks of a folder; name it with --to", field=option)
    options: dict[str, object] = {"force": force}
    if path is not None:
        options["path"] = path
    if on_conflict is not None:
        options["onConflict"] = on_conflict.upper()
    with connect() as client:
        folder = None if to is None else _find_folder(client, to, create=create)
        revision = revision_in_catalogue(client, name, version or DEFAULT_REVISION)
        if to is not None and folder is None:
            folder = client.create_vfolder(to, usage_mode="MODEL", host=None)
            if not as_json:
                console().print(Text(f"Made folder {plain(folder['name'])} on {plain(folder['host'])}"))
        vfolder_id = None if folder is None else folder["id"]
        task = client.import_revision(revision["id"], vfolder_id=vfolder_id, options=options)
        if task is None:
            _report_stored(revision, as_json=as_json)
            return SUCCEEDED
        if wait:
            return follow(client, task, as_json=as_json)
        report(client, task, as_json=as_json)
        return SUCCEEDED


def _find_folder(client: StowageClient, name: str, *, create: bool) -> VFolder | None:
    """Return the folder to import into, None where it is to be made."""
    folder = client.find_vfolder(name)
    if folder is None and not create:
        raise NotFound(
            f"there is no folder {name}; --create makes it, `stowage folder list` shows yours", field="--to"
        )
    if create and folder is not None and folder["name"] == name and folder["permission"] == "READ_ONLY":
        return None  # somebody else's of the same name
    return folder


def revision_in_catalogue(client: StowageClient, model: str, version: str) -> ArtifactRevision:
    """Return the revision, scanned first if the catalogue does not have it or has it of several registries."""
    found = client.find_revisions(model, version)
    if len(found) == 1:
        return found[0]
    try:
        scanned = client.scan(model, version)
    except Forbidden as exc:
        if found:
            registries = ", ".join(str(revision["artifact"]["registry"]["name"]) for revision in found)
            raise Conflict(
                f"several registries have {model}@{version} ({registries}); order the one that you mean over GraphQL"
            ) from exc
        raise Forbidden(
            f"{model}@{version} is not in the catalogue, and only administrators scan;"
            f" ask one for `stowage scan {model}@{version}`"
        ) from exc
    exact = [revision for revision in scanned if revision["version"] == version] or scanned
    if not exact:
        raise NotFound(f"the registry has no {model}@{version}")
    return exact[0]


def parse_model(text: str) -> tuple[str, str | None]:
    """Split `ORG/NAME[@REVISION]`; raises `BadRequest` for what is no model."""
    model, at, version = text.partition("@")
    if not re.fullmatch(MODEL_ID_PATTERN, model) or (at and not version):
        raise BadRequest(
            f"{text!r} is no model; write ORG/NAME or ORG/NAME@REVISION", field="ORG/NAME[@REVISION]"
        )
    return model, version or None


def _report_stored(revision: ArtifactRevision, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": None, "status": None, "artifactRevision": revision, "files": None})
        return
    print_facts(
        [
            ("model", f"{revision['artifact']['name']}@{revision['version']}"),
            ("commit", revision["digest"]),
            ("result", "the artifact storage holds it already; --force imports it again"),
        ]
    )
