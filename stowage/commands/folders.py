"""`stowage folder`: the folders that models are imported into."""

import sys
from typing import Annotated, Literal

import typer

from proxy_client.errors import BadRequest, Forbidden
from stowage.administration import Administration
from stowage.client import StowageClient, connect
from stowage.commands import epilog, help_without_command
from stowage.commands.following import file_count, print_files
from stowage.commands.imports import Json
from stowage.commands.names import FolderName, OfProject
from stowage.commands.output import (
    human_size,
    local_time,
    note,
    plain,
    print_facts,
    print_json,
    print_table,
)
from stowage.commands.sharing import sharing
from stowage.documents import VFolder

app = typer.Typer(rich_markup_mode=None)
folder = typer.Typer(
    name="folder",
    invoke_without_command=True,
    callback=help_without_command,
    help="List, make, look into, share and delete folders.",
)
app.add_typer(folder)
folder.add_typer(sharing)


@folder.command(
    "list",
    epilog=epilog(
        ("stowage folder list", "all that you can see"),
        ("stowage folder list --writable", "those that you can import into"),
        ("stowage folder list --search llama --json", ""),
    ),
)
def list_(
    *,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only names that hold this text.")
    ] = None,
    writable: Annotated[bool, typer.Option("--writable", help="Only those that you may write to.")] = False,
    as_json: Json = False,
) -> None:
    """List the folders that you can see."""
    with connect() as client:
        folders = list(client.vfolders(search=search, writable=writable))
    if as_json:
        print_json(folders)
        return
    print_table(
        ["NAME", "ID", "HOST", "MODE", "PERMISSION", "STATUS", "CREATED"],
        [
            [
                found["name"],
                found["id"],
                found["host"],
                found["usageMode"].lower(),
                found["permission"].lower(),
                found["status"].lower(),
                local_time(found["createdAt"]),
            ]
            for found in folders
        ],
        spare=["CREATED", "MODE", "PERMISSION", "HOST"],
    )


@folder.command(
    epilog=epilog(
        ("stowage folder create models", "for models, on the default volume"),
        ("stowage folder create corpora --mode data", "for data"),
        ("stowage folder create big --host local:volume1", "on a volume of your choice"),
        ("stowage folder create shared --project research", "a project's"),
    )
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The new folder's name.")],
    *,
    mode: Annotated[
        Literal["model", "general", "data"], typer.Option(help="What the folder is for.")
    ] = "model",
    host: Annotated[
        str | None,
        typer.Option(
            metavar="PROXY:VOLUME",
            help="The volume to make it on; `stowage folder hosts` lists them.",
            show_default="the default volume",
        ),
    ] = None,
    project: OfProject = None,
    as_json: Json = False,
) -> None:
    """Make a folder of your own, or of a project of yours."""
    with connect() as client:
        project_id = Administration(client).project_id(project)
        try:
            made = client.create_vfolder(name, usage_mode=mode.upper(), host=host, project_id=project_id)
        except (BadRequest, Forbidden) as exc:
            if exc.field != "--host":
                raise
            raise type(exc)(f"{exc.message} (`stowage folder hosts` lists them)", field="--host") from exc
    if as_json:
        print_json(made)
        return
    print_facts(
        [
            ("folder", made["name"]),
            ("id", made["id"]),
            ("host", made["host"]),
            ("mode", made["usageMode"].lower()),
        ]
    )


@folder.command(
    epilog=epilog(
        ("stowage folder files models", "everything in it"),
        ("stowage folder files models --path sample/tiny-bert", "one directory of it"),
        ("stowage folder files models --flat", "only what lies directly there"),
    )
)
def files(
    name: FolderName,
    *,
    path: Annotated[
        str | None, typer.Option(metavar="PATH", help="A directory of the folder.", show_default="its root")
    ] = None,
    flat: Annotated[bool, typer.Option("--flat", help="Do not look into directories.")] = False,
    as_json: Json = False,
) -> None:
    """List the files of a folder with their sizes."""
    with connect() as client:
        found = client.vfolder(name)
        inside = None if path is None else path.strip("/")
        entries = (
            client.vfolder_files(found["id"], inside) if flat else client.vfolder_tree(found["id"], inside)
        )
    if as_json:
        print_json(entries)
        return
    print_files(entries)


@folder.command(
    epilog=epilog(
        ("stowage folder hosts", "what --host of `stowage folder create` takes"),
        ("stowage folder hosts --json", ""),
    )
)
def hosts(*, as_json: Json = False) -> None:
    """List the volumes that you can make folders on."""
    with connect() as client:
        volumes = client.volumes()
    if as_json:
        print_json(volumes)
        return
    print_table(
        ["HOST", "KIND", "SIZE", "USED"],
        [
            [
                volume["host"],
                volume["backend"],
                human_size(volume["totalBytes"]),
                human_size(volume["usedBytes"]),
            ]
            for volume in volumes
        ],
        right=["SIZE", "USED"],
    )


@folder.command(
    epilog=epilog(
        ("stowage folder delete models", "asks before it does"),
        ("stowage folder delete models --yes", "does not ask, as in a script"),
        ("stowage folder delete models --yes --json", ""),
        notes="""
        Everything in the folder goes, and nothing outside it. Only who owns the folder can do that, and not while an
        import into it is open (`stowage task list --folder FOLDER`). The name is free at once; a storage proxy that is
        away deletes the files when it is back.

        Exit status: 0 deleted, 1 you said no or the volume failed, 2 no such folder or something is in the way, 3 no
        answer or no permission.
        """,
    )
)
def delete(
    name: FolderName,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> int:
    """Delete a folder with everything in it."""
    with connect() as client:
        found = client.vfolder(name)
        if not yes and not _confirmed(client, found):
            note("Nothing was deleted.")
            return 1
        deleted = client.delete_vfolder(found["id"])
    if as_json:
        print_json(deleted)
    elif deleted["status"] == "DELETE_COMPLETE":
        note(f"Deleted folder {deleted['name']} on {deleted['host']}.")
    else:
        note(
            f"Folder {deleted['name']} is out of use; {deleted['host']} gives no answer now and deletes its files "
            "when it is back."
        )
    return 0


def _confirmed(client: StowageClient, found: VFolder) -> bool:
    """Ask on a terminal. Raises `BadRequest` where there is nobody to ask."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadRequest("there is no terminal to ask on; --yes deletes without asking", field="--yes")
    usage = client.vfolder_usage(found["id"])
    holds = "what it holds" if usage is None else human_size(usage["usedBytes"])
    if usage is not None and usage["fileCount"] is not None:
        holds = f"{file_count(usage['fileCount'])}, {holds}"
    what = f"{found['name']} on {found['host']} ({holds})"
    return typer.confirm(f"Delete folder {plain(what)}? It cannot be undone.", err=True)
