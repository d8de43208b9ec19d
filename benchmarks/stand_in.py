"""A storage proxy that accepts everything at once and does nothing, so that the manager alone is measured."""

import json
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def order(request: Request) -> Response:
    """Accept an import."""
    return JSONResponse({"task_id": json.loads(await request.body())["task_id"]}, 202)


async def make_folder(_request: Request) -> Response:
    """Accept a folder."""
    return Response(status_code=201)


async def nothing(_request: Request) -> Response:
    """Have nothing to tell."""
    return Response(media_type="text/event-stream")


def create_app() -> Starlette:
    """Make the application."""
    folders = "/volumes/{volume}/quota-scopes/{scope}/vfolders"
    return Starlette(
        routes=[
            Route("/imports", order, methods=["POST"]),
            Route("/imports/events", nothing),
            Route("/readyz", nothing),
            Route(folders, make_folder, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", access_log=False)
