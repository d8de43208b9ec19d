"""Who may call the proxy, and what the proxy asks the manager."""

import asyncio
import hmac
import time
from uuid import UUID

import httpx
from pydantic import ValidationError

from proxy_client.errors import PermissionRevoked, Unauthenticated, Unavailable
from proxy_client.tls import tls_context
from proxy_client.wire import Authorization
from storage_proxy.settings import Settings

RETRY_SECONDS = 1.0


def check_secret(authorization: str | None, secrets: list[str]) -> None:
    """Raise `Unauthenticated` unless the header shows one of the secrets; takes the same time for every wrong one."""
    shown = (authorization or "").removeprefix("Bearer ").encode()
    # A list, not a generator: every secret is compared, whichever matches.
    if not any([hmac.compare_digest(shown, secret.encode()) for secret in secrets]):  # noqa: C419
        raise Unauthenticated("show the storage proxy's secret as a bearer token")


class ImportCancelled(Exception):
    """The manager has cancelled the import; its word to this proxy may still be on the way."""


class ManagerAuthorizer:
    """Asks the manager whether an import's requester may still write to its destination."""

    def __init__(self, settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._http = httpx.AsyncClient(
            base_url=settings.proxy.manager_url,
            timeout=10.0,
            transport=transport,
            verify=tls_context(settings.proxy.manager_url),
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def insist(self, task_id: UUID) -> Authorization:
        """Return the manager's answer if the requester may write there now.

        Waits for a manager that cannot be reached, up to the setting `authorize-deadline`.
        Raises `PermissionRevoked` or `ImportCancelled`, or `Unavailable` after the deadline.
        """
        deadline = time.monotonic() + self._settings.proxy.authorize_deadline
        while True:
            try:
                answer = await self._ask(task_id)
                break
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        if answer.cancelled:
            raise ImportCancelled
        if not answer.allowed:
            raise PermissionRevoked(answer.reason or "the requester may no longer write to the destination")
        return answer

    async def _ask(self, task_id: UUID) -> Authorization:
        headers = {"Authorization": f"Bearer {self._settings.secrets[0]}"}
        try:
            response = await self._http.post(f"/internal/imports/{task_id}/authorize", headers=headers)
        except httpx.HTTPError as exc:
            raise Unavailable("the manager could not be asked whether the import is still permitted") from exc
        if response.status_code == httpx.codes.NOT_FOUND:
            return Authorization(allowed=False, reason="the manager does not know this import")
        if response.status_code != httpx.codes.OK:
            raise Unavailable(f"the manager answered status {response.status_code} when asked for permission")
        try:
            return Authorization.model_validate_json(response.content)
        except ValidationError as exc:
            raise Unavailable("the manager's answer when asked for permission cannot be read") from exc
