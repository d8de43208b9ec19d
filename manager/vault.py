"""Secrets that administrators enter, as they rest in the manager's tables."""

import json
from collections.abc import Mapping
from uuid import UUID

from manager.settings import Settings
from proxy_client.errors import Conflict
from proxy_client.sealing import Seal


class Vault:
    """Encrypts the secrets of a row with the keys of the settings, bound to the row's id."""

    def __init__(self, settings: Settings) -> None:
        keys = settings.keys
        self._seal = Seal(keys, "manager") if keys else None

    def close(self, row_id: UUID, secrets: Mapping[str, str]) -> str:
        """Encrypt the secrets of a row. Raises `Conflict` where the settings name no key."""
        if self._seal is None:
            raise Conflict(
                "secrets cannot be kept without a key; ask the operator for key-file in the section [manager] "
                "of the manager's configuration"
            )
        return self._seal.close(json.dumps(dict(secrets)), str(row_id))

    def open(self, row_id: UUID, sealed: str | None) -> dict[str, str]:
        """Decrypt the secrets of a row; none where nothing is sealed. Raises `Unavailable` where the key is gone."""
        if sealed is None:
            return {}
        if self._seal is None:
            raise Conflict("the key of the secrets is gone; ask the operator to restore manager.key-file")
        opened: dict[str, str] = json.loads(self._seal.open(sealed, str(row_id)))
        return opened
