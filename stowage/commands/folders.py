"""`stowage folder`: the folders that models are imported into."""

from typing import Annotated, Literal

import typer

from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.following import print_files
from stowage.commands.imports import Json
from stowage.commands.output import local_time, print_facts, print_json, print_table

app = typer.Typer(rich_markup_mode=None)
folder = typer.Typer(
    name="folder",
    invoke_without_command=True,
    callback=help_without_command,
    help="List, make and look into folders.",
)
app.add_typer(folder)


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
    )


@folder.command(
    epilog=epilog(
        ("stowage folder create models", "for models, on the default volume"),
        ("stowage folder create corpora --mode data", "for data"),
        ("stowage folder create big --host local:volume1", "on a volume of your choice"),
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
            metavar="PROXY:VOLUME", help="The volume to make it on.", show_default="the default volume"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a folder of your own."""
    with connect() as client:
        made = client.create_vfolder(name, usage_mode=mode.upper(), host=host)
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
    name: Annotated[
        str, typer.Argument(metavar="FOLDER", show_default=False, help="Name or id of the folder.")
    ],
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
