"""`stowage manager`, `proxy`, `worker` and `migrate`: each part by itself, as an installation runs them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy_client.errors import BadRequest, StowageError
from stowage.commands import epilog

if TYPE_CHECKING:
    from stowage.checks import Outcome

app = typer.Typer(rich_markup_mode=None)

MANAGER_FILE, PROXY_FILE = "manager.toml", "storage-proxy.toml"

_SETTINGS = """
Every setting may also come from the environment, by one rule: {prefix}__TABLE__KEY, in capitals, with _ for each hyphen.
docs/operations.md has them all, docs/examples/{file} is a file to begin with.
"""

CheckConfig = Annotated[
    bool,
    typer.Option(
        "--check-config",
        help="Start nothing: say what is wrong with the settings, where, and what to do; exit status 2 then.",
    ),
]
ProxyConfig = Annotated[
    Path,
    typer.Option("--config", metavar="FILE", show_default=False, help="The storage proxy's TOML file."),
]


@app.command(
    epilog=epilog(
        ("stowage manager --config manager.toml", "serve GraphQL"),
        ("stowage manager --config manager.toml --check-config", "would it start?"),
        notes=_SETTINGS.format(prefix="STOWAGE_MANAGER", file="manager.example.toml"),
        more="""
        STOWAGE_ADMIN_TOKEN_FILE names a file whose token becomes one of the administrator. The tables are those
        that `stowage migrate` makes; the manager waits for them. Any number of managers share one database.
        """,
    )
)
def manager(
    *,
    config: Annotated[
        Path, typer.Option(metavar="FILE", show_default=False, help="The manager's TOML file.")
    ],
    check_config: CheckConfig = False,
) -> int:
    """Run the manager by itself: GraphQL and the pages."""
    if check_config:
        from stowage.checks import check_manager  # noqa: PLC0415 -- brings SQLAlchemy

        return _report(check_manager(config, admin_token_file=os.environ.get("STOWAGE_ADMIN_TOKEN_FILE")))
    from manager.__main__ import run  # noqa: PLC0415 -- every other command starts without a web server

    return _serve(run, config)


@app.command(
    epilog=epilog(
        ("stowage proxy --config storage-proxy.toml", "serve the manager"),
        ("stowage proxy --config storage-proxy.toml --check-config", "would it start?"),
        notes=_SETTINGS.format(prefix="STOWAGE_PROXY", file="storage-proxy.example.toml"),
        more="""
        It lists, keeps orders and answers questions; imports run in `stowage worker`.
        """,
    )
)
def proxy(*, config: ProxyConfig, check_config: CheckConfig = False) -> int:
    """Run a storage proxy's API by itself."""
    if check_config:
        return _check_proxy(config)
    from storage_proxy.__main__ import run  # noqa: PLC0415 -- as for the manager

    return _serve(run, config)


@app.command(
    epilog=epilog(
        ("stowage worker --config storage-proxy.toml", "run imports"),
        ("stowage worker --config storage-proxy.toml --check-config", "would it start?"),
        notes=_SETTINGS.format(prefix="STOWAGE_PROXY", file="storage-proxy.example.toml"),
        more="""
        Start as many as you like, with the same file, on every machine that mounts the volumes. When one is killed,
        another goes on with its imports from the bytes on disk.
        """,
    )
)
def worker(*, config: ProxyConfig, check_config: CheckConfig = False) -> int:
    """Run a storage proxy's imports, one process of any number."""
    if check_config:
        return _check_proxy(config)
    from storage_proxy.worker import run  # noqa: PLC0415 -- as for the manager

    return _serve(run, config)


@app.command(
    epilog=epilog(
        ("stowage migrate --manager manager.toml --proxy storage-proxy.toml", "both services"),
        ("stowage migrate --proxy east.toml --proxy west.toml", "two proxies"),
        ("stowage migrate --manager manager.toml --check-config", "only look"),
        notes="""
        Run it before the services of a new version start; it may be repeated, and several at once do no harm. It makes
        tables and schemas, never a database. There is no way back but a backup: make one before.
        """,
    )
)
def migrate(
    *,
    manager_files: Annotated[
        list[Path] | None,
        typer.Option("--manager", metavar="FILE", show_default=False, help="A manager's TOML file."),
    ] = None,
    proxy_files: Annotated[
        list[Path] | None,
        typer.Option("--proxy", metavar="FILE", show_default=False, help="A storage proxy's TOML file."),
    ] = None,
    check_config: CheckConfig = False,
) -> int:
    """Bring the tables of the given files' databases to this version."""
    named = [(file, True) for file in manager_files or ()] + [(file, False) for file in proxy_files or ()]
    if not named:
        raise BadRequest(
            f"name the files of the services to migrate: --manager {MANAGER_FILE}, --proxy {PROXY_FILE}"
        )
    from stowage import checks  # noqa: PLC0415 -- brings SQLAlchemy

    disagreements = checks.disagreements(manager_files or (), proxy_files or ())
    if check_config:
        outcomes = [
            checks.check_manager(file, migrated=False)
            if of_manager
            else checks.check_proxy(file, migrated=False)
            for file, of_manager in named
        ]
        if disagreements:
            outcomes.append(checks.Outcome(disagreements))
        return max(_report(outcome) for outcome in outcomes)
    if disagreements:
        raise BadRequest("\n".join(disagreements))
    for file, of_manager in named:
        _migrate(file, of_manager=of_manager)
    return 0


def _check_proxy(config: Path) -> int:
    from stowage.checks import check_proxy  # noqa: PLC0415 -- brings SQLAlchemy

    return _report(check_proxy(config))


def _report(outcome: "Outcome") -> int:
    from stowage.commands.output import error, note, print_facts  # noqa: PLC0415 -- services start without rich

    if not outcome.faults:
        print_facts(outcome.facts)
        return 0
    for line in outcome.faults:
        note(line)
    error("these settings cannot be used; nothing was started or changed")
    return 2


def _serve(run: Callable[[Path], None], config: Path) -> int:
    try:
        run(config)
    except StowageError as exc:
        from stowage.commands.output import note  # noqa: PLC0415 -- as above

        for line in exc.message.splitlines():
            note(line)
        return 2
    return 0


def _migrate(file: Path, *, of_manager: bool) -> None:
    from stowage.checks import migrate_manager, migrate_proxy  # noqa: PLC0415 -- brings SQLAlchemy

    applied = (migrate_manager if of_manager else migrate_proxy)(file)
    typer.echo(f"{file}: {applied}")
