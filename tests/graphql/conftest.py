from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from manager.app import create_app
from manager.auth import new_token, token_hash
from manager.graphql.context import Services
from manager.models import ApiToken, User
from tests.graphql.served import Manager, Person, WireProxy, settings_in


@pytest.fixture
async def manager(manager_database_url: str, tmp_path: Path) -> AsyncIterator[Manager]:
    settings = settings_in(tmp_path, manager_database_url)
    token, _ = new_token()
    (tmp_path / "admin-token").write_text(token)
    proxy = WireProxy()
    app = create_app(
        settings, admin_token_file=tmp_path / "admin-token", proxy_transports={"local": proxy.transport}
    )
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://manager") as http,
    ):
        services: Services = app.state.services
        async with services.database.read() as session:
            found = await session.execute(
                User.__table__.select().join(ApiToken).where(ApiToken.token_hash == token_hash(token))
            )
            admin = User(**found.mappings().one())
        yield Manager(http, services, proxy, Person(admin, token), settings)
