"""Secrets that rest in a database: encrypted, and bound to what they belong to."""

import base64
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from proxy_client.errors import Unavailable

_VERSION = "1"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class Seal:
    """AES-256-GCM (NIST SP 800-38D) with keys derived by HKDF (RFC 5869) from texts of high entropy.

    The first text encrypts; every one decrypts, so that a key can be changed without a moment in which nothing can
    be read. `purpose` keeps the keys of different uses of one text apart.
    """

    def __init__(self, texts: Sequence[str], purpose: str) -> None:
        self._ciphers: dict[str, AESGCM] = {}
        for text in texts:
            key = HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"stowage {purpose}".encode()).derive(
                text.encode()
            )
            self._ciphers[hashlib.sha256(key).hexdigest()[:8]] = AESGCM(key)
        self._newest = next(iter(self._ciphers))

    def close(self, text: str, about: str) -> str:
        """Encrypt a text that belongs to `about`; the same text never gives the same answer twice."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._newest].encrypt(nonce, text.encode(), about.encode())
        return f"{_VERSION}:{self._newest}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, about: str) -> str:
        """Decrypt what was closed for the same `about`.

        Raises `Unavailable` where the key is none of these, or the value was changed or belongs to something else.
        """
        version, _, rest = sealed.partition(":")
        key, _, packed = rest.partition(":")
        cipher = self._ciphers.get(key)
        if version != _VERSION or cipher is None:
            raise Unavailable(
                f"the secrets of {about} were encrypted with another key; give the key back, or enter the secrets again"
            )
        try:
            content = base64.b64decode(packed, validate=True)
            opened = cipher.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], about.encode())
        except (ValueError, InvalidTag) as exc:
            raise Unavailable(f"the stored secrets of {about} are damaged; enter them again") from exc
        return opened.decode()
