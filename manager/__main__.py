"""`python -m manager --config manager.toml`: one manager process."""

import argparse
import os
import sys
from pathlib import Path

from proxy_client.loading import loading

with loading():
    import uvicorn

    from manager.app import MAX_MESSAGE_BYTES, create_app
    from manager.settings import load_settings
    from proxy_client import logs
    from proxy_client.configuration import parse_listen
    from proxy_client.errors import StowageError

ADMIN_TOKEN_FILE = "STOWAGE_ADMIN_TOKEN_FILE"  # noqa: S105 -- the name of a variable
SHUTDOWN_SECONDS = 3


def run(config: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises `StowageError` for settings that cannot be used."""
    logs.configure("manager")
    settings = load_settings(config)
    token_file = os.environ.get(ADMIN_TOKEN_FILE)
    app = create_app(settings, admin_token_file=Path(token_file) if token_file else None)
    host, port = parse_listen(settings.manager.listen)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.manager.trusted_proxies,
        ws_max_size=MAX_MESSAGE_BYTES,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def main() -> int:
    """Read the command line; the exit status is 2 for settings that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m manager", description="Run Stowage's manager.")
    parser.add_argument("--config", type=Path, required=True, help="the manager's TOML file")
    try:
        run(parser.parse_args().config)
    except StowageError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
