"""Which verifiers there are, by name: those of Stowage, and those that other packages bring."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from proxy_client.errors import BadRequest
from storage_proxy.verifiers.base import AbstractVerifier

GROUP = "stowage.verifiers"
"""The entry points by which an installed package offers a verifier: `NAME = "module:Class"`."""

REQUIRED = ("integrity", "structure", "pickle", "safetensors")
OPTIONAL = ("picklescan",)

_OWN = {
    "integrity": ("integrity", "IntegrityVerifier"),
    "structure": ("structure", "StructureVerifier"),
    "pickle": ("pickle", "PickleVerifier"),
    "safetensors": ("safetensors", "SafetensorsVerifier"),
    "picklescan": ("picklescan", "PicklescanVerifier"),
    "registry": ("registry", "RegistryVerifier"),
    "clamav": ("clamav", "ClamavVerifier"),
    "yara": ("yara", "YaraVerifier"),
}


@dataclass(frozen=True)
class Suite:
    """The verifiers of an installation. Those named in `optional` need not cover every file."""

    verifiers: tuple[AbstractVerifier, ...]
    optional: frozenset[str] = frozenset()


def load_suite(
    required: Sequence[str] = REQUIRED,
    optional: Sequence[str] = OPTIONAL,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
) -> Suite:
    """Make the verifiers of these names, in this order.

    arguments: what a verifier's class is called with, by its name. Raises `BadRequest`: a name that no verifier has or
    that stands there twice, a verifier that cannot be made.
    """
    names = [*required, *optional]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRequest(f"{', '.join(twice)}: a verifier is named once", field="verification")
    given = arguments or {}
    return Suite(tuple(_make(name, given.get(name, {})) for name in names), frozenset(optional))


def _make(name: str, arguments: Mapping[str, Any]) -> AbstractVerifier:
    found: Any
    if name in _OWN:
        module, attribute = _OWN[name]
        found = getattr(importlib.import_module(f"storage_proxy.verifiers.{module}"), attribute)
    else:
        offered = {entry.name: entry for entry in entry_points(group=GROUP)}
        if name not in offered:
            known = ", ".join(sorted({*_OWN, *offered}))
            raise BadRequest(f"{name}: there is no such verifier; known are {known}", field="verification")
        try:
            found = offered[name].load()
        except Exception as exc:
            raise BadRequest(
                f"{name}: the verifier {offered[name].value} could not be loaded ({type(exc).__name__})",
                field="verification",
            ) from exc
    if not (isinstance(found, type) and issubclass(found, AbstractVerifier)):
        raise BadRequest(f"{name}: what is offered by that name is no verifier", field="verification")
    verifier = found(**arguments)
    if verifier.name != name:
        raise BadRequest(f"{name}: the verifier calls itself {verifier.name}", field="verification")
    return verifier
