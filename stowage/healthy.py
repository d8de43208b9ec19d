"""`python -m stowage.healthy URL` ends with status 0 when the URL answers 200: the containers' health check."""

import sys
import urllib.error
import urllib.request

_SECONDS = 5.0


def main(url: str) -> int:
    """Ask once, never through a proxy of the environment; what is wrong is one line on standard error."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS):
            return 0
    except urllib.error.HTTPError as exc:
        # /readyz says why.
        sys.stderr.write(f"{url} answers {exc.code}: {exc.read(2000).decode(errors='replace')}\n")
    except OSError as exc:
        sys.stderr.write(f"{url} does not answer: {exc}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
