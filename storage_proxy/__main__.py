"""Start the storage proxy's API: `python -m storage_proxy --config storage-proxy.toml`."""

import argparse
import sys
from pathlib import Path

from proxy_client.loading import loading

with loading():
    import uvicorn

    from proxy_client import logs
    from proxy_client.configuration import parse_listen
    from proxy_client.errors import StowageError
    from storage_proxy.app import create_app
    from storage_proxy.settings import load_settings

GRACE_SECONDS = 3


def run(config: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises `StowageError` for settings that cannot be used."""
    settings = load_settings(config)
    settings.check_secrets()
    logs.configure("storage-proxy")
    host, port = parse_listen(settings.proxy.listen)
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def main() -> int:
    """Read the command line; the exit status is 2 for settings that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m storage_proxy", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="path of storage-proxy.toml")
    try:
        run(parser.parse_args().config)
    except StowageError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
