"""The worker process of a `Sandbox`: takes open files from a socket, runs verifiers over them, answers."""

import gc
import importlib
import json
import logging
import os
import socket
import struct
import sys
import time
from typing import Any

from proxy_client.loading import loading

with loading():
    from storage_proxy.verifiers.base import FileResult, SandboxedVerifier
    from storage_proxy.verifiers.confinement import allow_cpu, confine
    from storage_proxy.verifiers.policy import Policy

MOST_FILES = 32
"""Files that this process is handed at once; it may have 64 descriptors open."""
PAUSE = 0.1
"""Seconds; an answer that comes later than so long after the last ring rings at once."""
_MOST_SILENT = 64 << 10  # bytes that wait unread without a ring; a socket holds more
_COST = 1 << 10  # bytes that a socket needs beside each answer
NOTHING_FOUND = struct.Struct("!xd")
"""The answer over a file that was looked at wholly and in which nothing was found: a NUL, and the seconds. All others are JSON."""
_LENGTH = struct.Struct("!I")
_COLLECT = (
    20_000  # objects from one look for rubbish to the next: opcodes and findings are many and make no circles
)


def main() -> None:
    """Serve the sockets whose descriptors are the first arguments, until the first is closed: requests and rings, answers."""
    descriptor, answering, memory, parent = map(int, sys.argv[1:])
    confine(memory, parent)
    gc.set_threshold(_COLLECT)
    logging.disable()  # nobody reads what a scanner has to say beside its answer
    verifiers: dict[str, SandboxedVerifier] = {}
    with socket.socket(fileno=descriptor) as connection, socket.socket(fileno=answering) as answers:
        connection.sendall(b"\0")
        while True:
            mark, files, _flags, _address = socket.recv_fds(connection, 1, MOST_FILES)
            if not mark:
                return
            request = json.loads(_receive(connection, _LENGTH.unpack(_receive(connection, _LENGTH.size))[0]))
            policy = Policy.model_validate(request["policy"])
            outlet = _Outlet(connection, answers)
            done = request["done"]
            chosen = [(json.dumps(each), *each) for each in request["verifiers"]]
            for file, (path, size) in zip(files, request["files"], strict=True):
                for verifier in chosen[done:]:
                    os.lseek(file, 0, os.SEEK_SET)
                    outlet.put(_run(verifier, verifiers, file, path, size, policy))
                os.close(file)
                done = 0
            outlet.ring()


class _Outlet:
    """Where answers go. Each is on its way at once, and stays if this process ends; who waits is woken for several together."""

    def __init__(self, bell: socket.socket, answers: socket.socket) -> None:
        self._bell = bell
        self._answers = answers
        self._rang = time.monotonic()
        self._silent = 0

    def put(self, body: bytes) -> None:
        self._silent += len(body) + _COST
        if self._silent > _MOST_SILENT:
            # Its length first, so that who is woken waits for the rest, which may not fit.
            self._answers.sendall(_LENGTH.pack(len(body)))
            self.ring()
            self._answers.sendall(body)
        else:
            self._answers.sendall(_LENGTH.pack(len(body)) + body)
            if time.monotonic() - self._rang >= PAUSE:
                self.ring()

    def ring(self) -> None:
        self._bell.sendall(b"\0")
        self._rang, self._silent = time.monotonic(), 0


def _run(
    chosen: tuple[str, str, str, dict[str, Any]],
    verifiers: dict[str, SandboxedVerifier],
    descriptor: int,
    path: str,
    size: int,
    policy: Policy,
) -> bytes:
    key, module, name, arguments = chosen
    allow_cpu(policy.limits.seconds)
    started = time.monotonic()
    try:
        if key not in verifiers:
            verifiers[key] = getattr(importlib.import_module(module), name)(**arguments)
        with open(descriptor, "rb", closefd=False) as stream:
            result = verifiers[key].examine(path, stream, size, policy)
        if result.covered and not result.findings and result.reason is None:
            return NOTHING_FOUND.pack(time.monotonic() - started)
        answer = _answer(result)
    except Exception as exc:  # noqa: BLE001 -- a verifier's run over one file ends here; its failure is never a pass
        answer = {"error": type(exc).__name__}
    return json.dumps(answer | {"seconds": time.monotonic() - started}).encode()


def _answer(result: FileResult) -> dict[str, Any]:
    return {
        "findings": [finding.model_dump(mode="json") for finding in result.findings],
        "covered": result.covered,
        "reason": result.reason,
    }


def _receive(connection: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        if not (some := connection.recv(length - len(received))):
            sys.exit(0)
        received += some
    return bytes(received)


if __name__ == "__main__":
    main()
