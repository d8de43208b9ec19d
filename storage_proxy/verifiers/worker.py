"""The worker process of a `Sandbox`: takes open files from a socket, runs verifiers over them, answers."""

import importlib
import json
import os
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

from storage_proxy.verifiers.base import FileResult, SandboxedVerifier
from storage_proxy.verifiers.confinement import allow_cpu, confine
from storage_proxy.verifiers.policy import Policy

_LENGTH = struct.Struct("!I")


def main() -> None:
    """Serve the socket whose descriptor is the first argument until it is closed."""
    descriptor, memory, parent = map(int, sys.argv[1:])
    confine(memory, parent)
    verifiers: dict[str, SandboxedVerifier] = {}
    policies: dict[str, Policy] = {}
    with socket.socket(fileno=descriptor) as connection:
        while True:
            mark, files, _flags, _address = socket.recv_fds(connection, 1, 1)
            if not mark:
                return
            request = json.loads(_receive(connection, _LENGTH.unpack(_receive(connection, _LENGTH.size))[0]))
            key = json.dumps(request["policy"], sort_keys=True)
            if key not in policies:
                policies.clear()
                policies[key] = Policy.model_validate(request["policy"])
            try:
                for chosen in request["verifiers"]:
                    os.lseek(files[0], 0, os.SEEK_SET)
                    answer = _run(chosen, verifiers, files[0], request, policies[key])
                    body = json.dumps(answer).encode()
                    connection.sendall(_LENGTH.pack(len(body)) + body)
            finally:
                os.close(files[0])


def _run(
    chosen: list[Any],
    verifiers: dict[str, SandboxedVerifier],
    descriptor: int,
    request: Mapping[str, Any],
    policy: Policy,
) -> dict[str, Any]:
    module, name, arguments = chosen
    allow_cpu(policy.limits.seconds)
    try:
        if (key := json.dumps(chosen)) not in verifiers:
            verifiers[key] = getattr(importlib.import_module(module), name)(**arguments)
        with open(descriptor, "rb", closefd=False) as stream:
            result = verifiers[key].examine(request["path"], stream, request["size"], policy)
        return _answer(result)
    except Exception as exc:  # noqa: BLE001 -- a verifier's run over one file ends here; its failure is never a pass
        return {"error": type(exc).__name__}


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
