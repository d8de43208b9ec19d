"""The hub as a process."""

import contextlib
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from proxy_client.errors import BadRequest
from stowage.hub.app import create_app
from stowage.hub.errors import HubError
from stowage.hub.layout import model_ids, read_model

HIGHEST_PORT = 65535


def run(directory: Path, host: str, port: int, *, token_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes a free one. Says on standard output where, once it answers.
    Belongs into the main thread, for the signals' sake.

    Raises `BadRequest` for a model that is laid out wrongly, an unusable token file or an address in use.
    """
    app = create_app(directory, tokens=_read_tokens(token_file) if token_file else ())
    check_layout(directory)
    listener = _listen(host, port)
    address = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than the pools of common clients keep an idle connection
        timeout_graceful_shutdown=2,
    )
    sys.stdout.write(f"Hub of {directory} at http://{address}:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    # uvicorn stops at a signal and then raises it again: this turns both into a return.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def check_layout(directory: Path) -> int:
    """Return how many models the directory holds; warns of those without a file on standard error.

    Raises `BadRequest` that names each one laid out wrongly.
    """
    faults, count = [], 0
    for model_id in model_ids(directory):
        count += 1
        try:
            model = read_model(directory, model_id)
            if not any(path.is_file() for path in model.path.rglob("[!.]*")):
                sys.stderr.write(
                    f"Warning: {model_id} holds no file; put its files there or remove the folder\n"
                )
        except HubError as exc:
            faults.append(exc.message)
    if faults:
        raise BadRequest("\n".join(faults), field="directory")
    return count


def _read_tokens(token_file: Path) -> list[str]:
    try:
        tokens = token_file.read_text().split()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadRequest(f"{token_file}: cannot be read; name a file of tokens", field="token-file") from exc
    if not tokens:
        raise BadRequest(f"{token_file}: holds no token; write one a line", field="token-file")
    return tokens


def _listen(host: str, port: int) -> socket.socket:
    wrong = f"cannot listen on {host}:{port}"
    if not 0 <= port <= HIGHEST_PORT:
        raise BadRequest(f"{wrong}; choose a port up to {HIGHEST_PORT}", field="listen")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Made with its protocol: asyncio turns Nagle's algorithm off only where it knows that this is TCP.
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise BadRequest(f"{wrong} ({exc.strerror}); choose another", field="listen") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as exc:
        listener.close()
        raise BadRequest(f"{wrong} ({exc.strerror}); choose another", field="listen") from exc
    return listener
