"""`stowage up`, `stowage hub` and `stowage version`."""

from pathlib import Path
from typing import Annotated

import typer

from proxy_client.errors import BadRequest
from proxy_client.loading import loading
from stowage.commands import epilog

app = typer.Typer(rich_markup_mode=None)

UP_LISTEN = "127.0.0.1:8765"
HUB_LISTEN = "127.0.0.1:8086"
_LARGEST_PORT = 65535


@app.command(
    epilog=epilog(
        ("stowage up", "all state in the default directory"),
        ("stowage up --import sample/tiny-bert", "and bring a first model"),
        ("stowage up --data-dir /srv/stowage", "all state there"),
        ("HF_ENDPOINT=https://hub.example.org stowage up", "with a registry of yours"),
        notes="""
        Starts PostgreSQL, a storage proxy with its worker and the manager; a second start continues where the
        first one ended. The administrator's token is in DIR/admin-token. HF_ENDPOINT and HF_TOKEN, or --sample-hub,
        set the registry that models come from; else it is that of the last start, at the first one huggingface.co.
        Ctrl-C stops everything.
        """,
    )
)
def up(
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="STOWAGE_DATA_DIR",
            help="Where all state lies.",
            show_default="a directory of Stowage's own below your home",
        ),
    ] = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the manager answers.")] = UP_LISTEN,
    sample_hub: Annotated[
        bool, typer.Option("--sample-hub", help="Start a hub with small sample models and import from it.")
    ] = False,
    import_model: Annotated[
        str | None,
        typer.Option(
            "--import",
            metavar="ORG/NAME",
            help="Import this model into a folder of its name once everything is up; sample/NAME, or at the first start any, comes from the sample hub unless HF_ENDPOINT is set.",
        ),
    ] = None,
) -> int:
    """Run all of Stowage on this machine, in the foreground."""
    with loading():
        from stowage.data_dir import default_data_dir  # noqa: PLC0415 -- only here
        from stowage.up import up as run  # noqa: PLC0415 -- as above

    host, port = parse_listen(listen)
    return run(data_dir or default_data_dir(), (host, port), sample_hub, import_model)


@app.command(
    epilog=epilog(
        ("stowage hub /srv/models", "serve the directory"),
        ("stowage hub /srv/models --listen 0.0.0.0:8086", "for other machines too"),
        ("HF_ENDPOINT=http://127.0.0.1:8086 stowage up", "and import from it"),
        notes="""
        The directory holds ORG/NAME/ with the files of branch `main`, and ORG/NAME/@BRANCH/ with those of another
        one. Whatever speaks to the Hugging Face Hub can read from it.
        """,
    )
)
def hub(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", exists=True, file_okay=False, show_default=False, help="The directory to serve."
        ),
    ],
    *,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the hub answers.")] = HUB_LISTEN,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Tokens, one a line; one of them is then wanted.",
            show_default="none is wanted",
        ),
    ] = None,
) -> None:
    """Serve a directory of models as a hub, read-only."""
    with loading():
        from proxy_client import logs  # noqa: PLC0415 -- as the next line
        from stowage.hub import run  # noqa: PLC0415 -- every other command starts without a web server

    host, port = parse_listen(listen)
    logs.configure("hub")
    run(directory, host, port, token_file=token_file)


@app.command(
    epilog=epilog(("stowage version", ""), ("stowage version --json", "with Python's, for a report"))
)
def version(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document on stdout and nothing else.")
    ] = False,
) -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # noqa: PLC0415 -- only here

    if as_json:
        import json  # noqa: PLC0415 -- only here
        import platform  # noqa: PLC0415 -- only here

        document = {"stowage": installed("stowage"), "python": platform.python_version()}
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo(f"stowage {installed('stowage')}")


def parse_listen(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` (`[::1]:8765` for IPv6); raises `BadRequest` for what is no such address."""
    host, _colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not port.isascii() or int(port) > _LARGEST_PORT:
        raise BadRequest(
            f"{text!r} is no address to listen on; write HOST:PORT, as {UP_LISTEN}", field="--listen"
        )
    return host, int(port)
