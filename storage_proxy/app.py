"""The storage proxy's HTTP service."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.routing import Mount, Router

from storage_proxy.api import routes
from storage_proxy.settings import Settings
from storage_proxy.site import Site


def create_app(settings: Settings) -> Starlette:
    """Make the service of one storage proxy; its parts are opened when it starts."""
    router = Router()

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with Site.open(settings) as site:
            router.routes[:] = routes(site)
            yield

    return Starlette(routes=[Mount("/", app=router)], lifespan=lifespan)
