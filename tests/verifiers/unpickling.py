"""What CPython itself looks up and calls, in a process of its own: `python unpickling.py`, a JSON list of base64 on stdin.

Nothing that a pickle names is ever imported or called: stubs stand for it. Prints for each pickle, and for each of CPython's
unpicklers, the globals that could be imported and whether one was called, or a result of a call.
"""

import base64
import importlib.util
import io
import json
import pickle
import resource
import sys
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Self

MEMORY = 1 << 30
_TAKEN_FOR_INSTALLED = {"torch", "numpy", *IMPORT_MAPPING}


@cache
def importable(module: str) -> bool:
    if module in _TAKEN_FOR_INSTALLED or module in sys.stdlib_module_names:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


class Stub:
    """Stands for what a pickle names, and for what calling it returns."""

    called = False
    result_called = False

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Self:
        Stub.called = True
        return object.__new__(cls)

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        pass

    def __call__(self, *_arguments: Any, **_keywords: Any) -> Self:
        Stub.result_called = True
        return self

    def __setstate__(self, _state: Any) -> None:
        pass

    def append(self, _item: Any) -> None:
        pass

    def extend(self, _items: Any) -> None:
        pass

    def add(self, _item: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass


@cache
def watched(base: Any) -> Any:
    class Watched(base):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            self.found: list[tuple[str, str]] = []

        def find_class(self, module: str, name: str) -> Any:
            if not module or not importable(module.partition(".")[0]):
                raise ModuleNotFoundError(module)
            self.found.append((module, name))
            return type("Found", (Stub,), {})

        def persistent_load(self, _number: Any) -> Any:
            return object.__new__(Stub)

    return Watched


UNPICKLERS: list[Callable[[bytes], Any]] = [
    lambda content: watched(pickle.Unpickler)(io.BytesIO(content)),
    lambda content: watched(pickle.Unpickler)(io.BufferedReader(io.BytesIO(content))),  # looks ahead
    lambda content: watched(pickle._Unpickler)(io.BytesIO(content)),
]


def unpickle(content: bytes) -> list[Any]:
    told = []
    for open_ in UNPICKLERS:
        Stub.called = Stub.result_called = False
        running = open_(content)
        with suppress(Exception):
            running.load()
        told.append([running.found, Stub.called, Stub.result_called])
    return told


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.setrecursionlimit(2000)
    for line in json.load(sys.stdin):
        sys.stdout.write(json.dumps(unpickle(base64.b64decode(line))) + "\n")
        sys.stdout.flush()
