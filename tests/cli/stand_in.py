"""A manager that stands in for the real one: it speaks the published schema on a real socket and answers what a test says."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from graphql import GraphQLError, GraphQLSchema, graphql_sync, parse, validate

TOKEN = "stw_of-the-test"
TASK_ID = "3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11"
FOLDER_ID = "0b8e5c1a-6f0d-4c57-8d8e-0f6a2b9d4c33"


class StandIn:
    """Answers each root field with what `answers` holds under its name: a value, or a function of the arguments.

    `raw`, while it holds any, answers whole requests instead: a status and a body each, None for a dropped connection.
    """

    def __init__(self, schema: GraphQLSchema) -> None:
        self.schema = schema
        self.answers: dict[str, Any] = {}
        self.raw: list[tuple[int, str] | None] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._requests())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def refuse(self, field: str, code: str, message: str, *, at: str | None = None) -> None:
        """Answer a root field with an error."""

        def refusal(**_arguments: object) -> None:
            raise GraphQLError(message, extensions={"code": code} | ({"field": at} if at else {}))

        self.answers[field] = refusal

    def arguments(self, field: str) -> list[dict[str, Any]]:
        """The arguments of every request for this root field."""
        return [arguments for name, arguments in self.asked if name == field]

    def _requests(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Requests(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if stand_in.raw:
                    if (raw := stand_in.raw.pop(0)) is None:
                        self.connection.close()
                        return
                    status, text = raw
                elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                    error = {"message": "the token is unknown", "extensions": {"code": "UNAUTHENTICATED"}}
                    status, text = 401, json.dumps({"data": None, "errors": [error]})
                else:
                    status, text = 200, json.dumps(stand_in._execute(body))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_arguments: object) -> None:
                return

        return Requests

    def _execute(self, body: dict[str, Any]) -> dict[str, Any]:
        assert validate(self.schema, parse(body["query"])) == []

        def resolver(name: str, answer: Any) -> Callable[..., Any]:
            def resolve(_info: object, **arguments: Any) -> Any:
                self.asked.append((name, arguments))
                return answer(**arguments) if callable(answer) else answer

            return resolve

        root = {name: resolver(name, answer) for name, answer in self.answers.items()}
        return graphql_sync(self.schema, body["query"], root, variable_values=body["variables"]).formatted


class Outcome:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def steps(*answers: Any) -> Callable[..., Any]:
    """Answer one after the other; the last one for ever."""
    waiting = list(answers)
    return lambda **_arguments: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def connection(nodes: list[Any]) -> dict[str, Any]:
    edges = [{"cursor": str(number), "node": node} for number, node in enumerate(nodes)]
    page = {"hasNextPage": False, "hasPreviousPage": False, "endCursor": None}
    return {"count": len(nodes), "edges": edges, "pageInfo": page}


def artifact(name: str = "sample/tiny-bert") -> dict[str, Any]:
    registry = {"name": "huggingface", "url": "http://hub.test"}
    return {"id": "a-1", "name": name, "registry": registry, "source": registry}


def revision(version: str = "main") -> dict[str, Any]:
    return {
        "id": "r-1",
        "version": version,
        "status": "SCANNED",
        "size": "100",
        "digest": "c" * 40,
        "artifact": artifact(),
    }


def vfolder(
    name: str = "models", *, identity: str = FOLDER_ID, permission: str = "RW_DELETE"
) -> dict[str, Any]:
    return {
        "__typename": "VFolder",
        "id": identity,
        "name": name,
        "host": "local:volume1",
        "usageMode": "MODEL",
        "ownershipType": "USER",
        "permission": permission,
        "status": "READY",
        "createdAt": "2026-11-22T12:00:00+00:00",
    }


def file(path: str, size: int, *, directory: bool = False) -> dict[str, Any]:
    return {
        "path": path,
        "size": str(size),
        "isDirectory": directory,
        "modifiedAt": "2026-11-22T12:00:01+00:00",
    }


def task(status: str, *, step: str | None = None, done: int = 100, **changed: Any) -> dict[str, Any]:
    """An import of 100 bytes in two files into the folder."""
    return {
        "id": TASK_ID,
        "status": status,
        "step": step,
        "path": "sample/tiny-bert/main",
        "commit": "c" * 40,
        "filesDone": done // 50,
        "filesTotal": 2,
        "bytesDone": str(done if status != "PENDING" else 0),
        "bytesTotal": None if status == "PENDING" else "100",
        "bytesPerSecond": 25.0,
        "artifactRevision": revision(),
        "destination": {"__typename": "VFolderDestination", "vfolder": vfolder()},
        "error": None,
        "verificationResult": None,
        "requestId": "request-1",
        "requestedBy": {"id": "u-1", "email": "admin@localhost"},
        "createdAt": "2026-11-22T12:00:00+00:00",
        "startedAt": None if status == "PENDING" else "2026-11-22T12:00:00+00:00",
        "finishedAt": "2026-11-22T12:00:04+00:00" if status in {"SUCCEEDED", "FAILED", "CANCELLED"} else None,
    } | changed


def order(ordered: dict[str, Any] | None) -> dict[str, Any]:
    return {"taskId": ordered and ordered["id"], "task": ordered, "artifactRevision": revision()}
