"""Start the storage proxy's API: `python -m storage_proxy --config storage-proxy.toml`."""

import argparse
import sys
from pathlib import Path

import uvicorn

from proxy_client import logs
from proxy_client.errors import BadRequest
from storage_proxy.app import create_app
from storage_proxy.settings import load_settings

GRACE_SECONDS = 3


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="storage_proxy", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="path of storage-proxy.toml")
    arguments = parser.parse_args()
    try:
        settings = load_settings(arguments.config)
    except BadRequest as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    logs.configure("storage-proxy")
    host, _, port = settings.proxy.listen.rpartition(":")
    uvicorn.run(
        create_app(settings),
        host=host.strip("[]"),
        port=int(port),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
