"""A pickle names allowed globals only, whatever its file is called."""

import re
import sys
from _compat_pickle import IMPORT_MAPPING
from functools import lru_cache
from typing import BinaryIO

from proxy_client.wire import Finding
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier, Severity, plain
from storage_proxy.verifiers.globals import ALLOWED, is_allowed
from storage_proxy.verifiers.opcodes import Machine
from storage_proxy.verifiers.pickle_stream import (
    EXTENSION,
    Budget,
    Ending,
    LimitReached,
    NamedGlobal,
    Pickle,
    Source,
)
from storage_proxy.verifiers.policy import AllowPickle, Policy

_MOST_FINDINGS = 100
_TOP = re.compile("[.\\0]")
# Modules that are surely there to be imported; of any other a text may merely seem to speak.
_KNOWN_MODULES = (
    sys.stdlib_module_names | IMPORT_MAPPING.keys() | {"__main__", "torch", "numpy", "pip", "setuptools"}
)


class PickleVerifier(SandboxedVerifier):
    """Reads every file as a pickle from its first byte on, up to where an unpickler would stop."""

    name = "pickle"
    version = "1"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002 -- the stream ends by itself
        return examine_pickle(stream, policy, path=path)


def examine_pickle(
    stream: BinaryIO,
    policy: Policy,
    *,
    path: str,
    member: str | None = None,
    depth: int = 0,
    budget: Budget | None = None,
) -> FileResult:
    """Examine what Python would unpickle from where the stream is: nothing, one pickle, or several in a row.

    Content that is no pickle is covered, and nothing is found in it. The stream is read forward, in a few MiB of memory.
    path, member: for the findings. depth: containers around it. budget: shared by all streams of one file.
    """
    budget = budget or Budget.of(policy.limits)
    examined = _Examined(policy, path, member)
    try:
        Machine(Source(stream), budget, examined.take, _words(policy.allowed_globals), depth).run()
    except LimitReached as exc:
        examined.gap = str(exc)
    return FileResult(tuple(examined.findings.values()), examined.gap is None, examined.gap)


@lru_cache(maxsize=16)
def _words(allowed: frozenset[tuple[str, str]]) -> frozenset[str]:
    return frozenset(word for pair in ALLOWED | allowed for word in pair)


class _Examined:
    """Turns what pickles do into findings."""

    def __init__(self, policy: Policy, path: str, member: str | None) -> None:
        self._policy = policy
        self._path = path
        self._member = member
        self.findings: dict[tuple[str, str], Finding] = {}
        self.gap: str | None = None

    def take(self, pickle: Pickle) -> None:
        if _is_noise(pickle):
            return
        if self._policy.allow_pickle is AllowPickle.NEVER and _is_meant(pickle):
            self._find("pickle-refused", "is a pickle, and none is allowed")
        if pickle.calls_result:
            self._find("pickle-calls-result", "calls what it has made itself")
        if pickle.torn_frame:
            self._find("pickle-frame", "has a frame that unpicklers read differently")
        for named in pickle.globals.values():
            self._take_global(pickle, named)
        if pickle.ending is Ending.BROKEN and (pickle.header or pickle.calls):
            self.gap = self.gap or f"the pickle breaks off at byte {pickle.end}, after it has named globals"

    def _take_global(self, pickle: Pickle, named: NamedGlobal) -> None:
        if named.changed:
            self._find("pickle-changes-global", f"puts something into {_shown(named)}", named)
        if not named.computed and is_allowed(named.module, named.name, self._policy.allowed_globals):
            return
        severity: Severity = "block"
        if not pickle.header and not pickle.calls:
            if named.module == EXTENSION:
                return  # a number that weights begin with by chance; nobody has registered it, and nothing calls it
            # The first lines of a text can look like this: "cat", "dog". To unpickle it would import a module.
            known = _TOP.split(named.module, maxsplit=1)[0] in _KNOWN_MODULES
            if not known and pickle.ending is Ending.BROKEN:
                return
            severity = "block" if known and pickle.ending is Ending.STOP else "flag"
        does = "calls" if named.called else "names"
        self._find(_rule(named), f"{does} {_shown(named)}, which is not on the allow-list", named, severity)

    def _find(
        self, rule: str, message: str, named: NamedGlobal | None = None, severity: Severity = "block"
    ) -> None:
        if self._policy.allow_pickle is AllowPickle.ANY:
            severity = "note"
        key = (rule, _shown(named) if named else "")
        known = self.findings.get(key)
        if known is None and len(self.findings) >= _MOST_FINDINGS:
            # All that are kept speak of the same; one that refuses must be among them.
            key = next(iter(self.findings))
            known = self.findings[key]
        if known is None or (severity, known.severity) == ("block", "flag"):
            self.findings[key] = Finding(
                file=self._path,
                member=None if self._member is None else plain(self._member),
                rule=rule,
                category="code",
                severity=severity,
                message=plain(f"{self._member or self._path}: the pickle {message}"),
            )


def _shown(named: NamedGlobal) -> str:
    if named.module == EXTENSION:
        return f"number {named.name} of {EXTENSION}"
    return plain(f"{named.module}.{named.name}", 200)


def _rule(named: NamedGlobal) -> str:
    if named.module == EXTENSION:
        return "pickle-extension"
    if named.computed:
        return "pickle-computed-global"
    return "pickle-dotted-name" if "." in named.name else "pickle-global"


def _is_noise(pickle: Pickle) -> bool:
    """Whether these are weights that begin by chance as a pickle does that calls a number of the extension registry, and then breaks off.

    Nobody has registered it, so that an unpickler ends at that number. A pickle that is whole or has a header is taken at its word.
    """
    numbers = all(named.module == EXTENSION for named in pickle.globals.values())
    return (
        pickle.ending is Ending.BROKEN
        and not (pickle.header or pickle.calls_result or pickle.torn_frame)
        and numbers
    )


def _is_meant(pickle: Pickle) -> bool:
    """Whether somebody wrote a pickle here: a text that happens to read like one is none."""
    if pickle.header:
        return pickle.ending is Ending.STOP or pickle.does_something
    return pickle.calls or (pickle.ending is Ending.STOP and pickle.last)
