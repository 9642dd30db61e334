"""Imports of large packages that most commands do not need: one thread at a time.

Pulumi's process of the dynamic resources has four threads. Two that import modules of one package in another order see
it half-initialised ("partially initialized module"), because Python ends the deadlock of their locks in that way.
"""

import importlib
import threading
from types import ModuleType

_IMPORTING = threading.RLock()


def whole(*names: str) -> ModuleType:
    """Import modules, each with its packages before it, and return the last one."""
    with _IMPORTING:
        parts = [name.split(".") for name in names]
        found = [
            importlib.import_module(".".join(path[:length]))
            for path in parts
            for length in range(1, len(path) + 1)
        ]
        return found[-1]
