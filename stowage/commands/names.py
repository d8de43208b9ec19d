"""How commands let people name things."""

from typing import Annotated

import typer

from stowage.commands.completion import complete_folder

FolderName = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER",
        show_default=False,
        help="Name or id of the folder.",
        autocompletion=complete_folder,
    ),
]
Address = Annotated[
    str, typer.Argument(metavar="ADDRESS", show_default=False, help="The address of whom it is about.")
]
UserName = Annotated[
    str, typer.Argument(metavar="USER", show_default=False, help="The user's address, or id.")
]
ProjectName = Annotated[
    str, typer.Argument(metavar="PROJECT", show_default=False, help="The project's name, or id.")
]
OfUser = Annotated[
    str | None,
    typer.Option("--user", metavar="USER", help="A user's address, or id.", show_default="not set"),
]
OfProject = Annotated[
    str | None,
    typer.Option("--project", metavar="PROJECT", help="A project's name, or id.", show_default="not set"),
]
