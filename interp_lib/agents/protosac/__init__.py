"""ProtoSAC, a soft actor-critic whose decisions compare the state with prototypes, and its baseline SAC.

Names are imported on first use: the settings table alone should not cost an import of torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "SAC": ".protosac",
    "ProtoSAC": ".protosac",
    "Explanation": ".prototyped",
    "Prototypes": ".prototyped",
    "SETTINGS": ".settings",
    "TaskSettings": ".settings",
    "task_settings": ".settings",
    "make_agent": ".training",
    "train_run": ".training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
