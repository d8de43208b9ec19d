"""`python -m stowage.hub DIR [--listen HOST:PORT] [--token-file FILE]`."""

import argparse
import sys
from pathlib import Path

from proxy_client.loading import loading

with loading():
    from proxy_client import logs
    from proxy_client.errors import BadRequest
    from stowage.hub.server import run


def main() -> int:
    """Serve a directory as a hub; returns the exit status."""
    parser = argparse.ArgumentParser(prog="stowage hub", description="Serve a directory of models as a hub.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="holds org/name/…")
    parser.add_argument(
        "--listen", default="127.0.0.1:8086", metavar="HOST:PORT", help="default: %(default)s"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="tokens, one a line; one is then wanted"
    )
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdecimal():
        parser.error(f"--listen: {options.listen!r} is not HOST:PORT")
    logs.configure("hub")
    try:
        run(options.directory, host.strip("[]"), int(port), token_file=options.token_file)
    except BadRequest as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
