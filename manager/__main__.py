"""`python -m manager --config manager.toml`: one manager process."""

import argparse
import os
import sys
from pathlib import Path

import uvicorn

from manager.app import create_app
from manager.settings import load_settings
from proxy_client import logs
from proxy_client.errors import BadRequest

ADMIN_TOKEN_FILE = "STOWAGE_ADMIN_TOKEN_FILE"  # noqa: S105 -- the name of a variable
SHUTDOWN_SECONDS = 3


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status, 2 for settings that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m manager", description="Run Stowage's manager.")
    parser.add_argument("--config", type=Path, required=True, help="the manager's TOML file")
    config: Path = parser.parse_args().config
    logs.configure("manager")
    token_file = os.environ.get(ADMIN_TOKEN_FILE)
    try:
        settings = load_settings(config)
        host, port = _address(settings.manager.listen)
        app = create_app(settings, admin_token_file=Path(token_file) if token_file else None)
    except BadRequest as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return 0


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise BadRequest(f"manager.listen is HOST:PORT, not {listen!r}", field="manager.listen")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
