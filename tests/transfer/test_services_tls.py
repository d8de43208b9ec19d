"""The two services call each other by https, and trust an authority of the installation's own."""

from uuid import UUID

import pytest

from proxy_client.client import StorageProxyClient
from proxy_client.errors import Unavailable
from storage_proxy import auth
from storage_proxy.auth import ManagerAuthorizer
from storage_proxy.settings import Settings
from tests.transfer.conftest import Certificates
from tests.transfer.raw import RawServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("trusted", [True, False])
async def test_both_directions_go_over_tls(
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    trusted: bool,
) -> None:
    monkeypatch.setattr(auth, "RETRY_SECONDS", 0.01)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    directory = tmp_path_factory.mktemp("service")
    (directory / "secret").write_text("shared")
    body = b'{"allowed": true, "ready": true}'
    with RawServer(lambda peer: peer.answer(body), tls=certificates.server) as server:
        client = StorageProxyClient("local", server.url, "shared")
        settings = Settings.model_validate(
            {
                "proxy": {
                    "name": "local",
                    "database-file": directory / "database",
                    "secret-file": directory / "secret",
                    "manager-url": server.url,
                    "authorize-deadline": 0.1,
                },
                "volume": {"volume1": {"path": directory}},
            }
        )
        authorizer = ManagerAuthorizer(settings)
        try:
            if trusted:
                await client.ready()
                assert (await authorizer.insist(UUID(int=1))).allowed
                assert {asked.header("authorization") for asked in server.asked} == {"Bearer shared"}
            else:
                for call in (client.ready(), authorizer.insist(UUID(int=1))):
                    with pytest.raises(Unavailable):
                        await call
                assert server.asked == []
        finally:
            await authorizer.aclose()
            await client.aclose()
