r"""The `stowage` command.

Exit status   meaning
0             done
1             failed: an import ended FAILED or CANCELLED, or Stowage or the registry could not do what was asked
2             the command or what it names is wrong; the same command will never succeed
3             no answer from the manager, no or a wrong token, or no permission
130           interrupted; an import that was waited for goes on

`stowage verify` alone tells more: 0 clean, 1 blocked, 2 flagged, 3 incomplete.
"""

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from proxy_client.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PathRefused,
    SourceNotFound,
    StowageError,
    Unauthenticated,
    Unavailable,
    UnsupportedRegistry,
)
from proxy_client.loading import loading
from stowage.commands import epilog, help_without_command

DONE, FAILED, WRONG, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130

_MODULES = {
    "up": "parts",
    "scan": "imports",
    "import": "imports",
    "folder": "folders",
    "task": "tasks",
    "artifact": "artifacts",
    "verify": "verify",
    "user": "users",
    "token": "tokens",
    "project": "projects",
    "host": "hosts",
    "quota": "quotas",
    "waiver": "waivers",
    "audit": "audit",
    "hub": "parts",
    "manager": "services",
    "proxy": "services",
    "worker": "services",
    "migrate": "services",
    "version": "parts",
}
_EPILOG = epilog(
    ("stowage up", "run Stowage on this machine"),
    ("stowage import sample/tiny-bert --to models --create", "bring a model"),
    ("stowage folder files models", "see what came"),
    notes="""
        Commands talk to the stack that `stowage up` runs on this machine (below STOWAGE_DATA_DIR, if that is set),
        or to the manager that STOWAGE_URL and STOWAGE_TOKEN name. `stowage --install-completion` lets bash, zsh or
        fish complete commands, folders and tasks.

        Exit status: 0 done, 1 failed, 2 wrong command or input, 3 no answer or no permission, 130 interrupted.
        """,
)


class Commands(TyperGroup):
    """The commands, whose modules are imported when they are asked for: `stowage version` needs no HTTP client.

    The contexts are of a class that typer keeps private.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 -- the base's signature
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ARG002 -- the base's signature
        # An unknown name loads all, so that the base can suggest the nearest.
        modules = {_MODULES[cmd_name]} if cmd_name in _MODULES else set(_MODULES.values())
        if cmd_name not in self.commands:
            for module in modules:
                with loading():
                    app = import_module(f"stowage.commands.{module}").app
                self.commands.update(get_group(app).commands)
        found = self.commands.get(cmd_name)
        return found if isinstance(found, TyperCommand | TyperGroup) else None


app = typer.Typer(
    name="stowage",
    cls=Commands,
    invoke_without_command=True,
    callback=help_without_command,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Bring machine-learning models from a registry into your folders: complete, exact, verified, or not at all.",
    epilog=_EPILOG,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no file name breaks a pipe whose encoding cannot write it
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(arguments, prog_name="stowage", standalone_mode=False)
    except StowageError as error:
        where = f"{error.code}, {error.field}" if error.field else error.code
        _print_error(f"{error.message} ({where})")
        _print_json_error(arguments, error.code, error.message, error.field)
        return exit_status(error)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        _print_error(error.format_message() + (f" Try `{context.command_path} --help`." if context else ""))
        _print_json_error(arguments, BadRequest.code, error.format_message(), None)
        return error.exit_code
    except typer.Abort:
        return INTERRUPTED
    return status or DONE


def _print_error(message: str) -> None:
    from stowage.commands.output import error  # noqa: PLC0415 -- rich costs a third of `stowage version`

    error(message)


def _print_json_error(arguments: Sequence[str] | None, code: str, message: str, field: str | None) -> None:
    if "--json" in (sys.argv[1:] if arguments is None else arguments):
        from stowage.commands.output import print_json  # noqa: PLC0415 -- as above

        print_json({"error": {"code": code, "message": message, "field": field}})


def exit_status(error: StowageError) -> int:
    """Return the exit status that stands for an error."""
    if isinstance(error, Unauthenticated | Forbidden | Unavailable):
        return REFUSED
    wrong = BadRequest | NotFound | Conflict | UnsupportedRegistry | SourceNotFound | PathRefused
    return WRONG if isinstance(error, wrong) else FAILED


if __name__ == "__main__":
    sys.exit(main())
