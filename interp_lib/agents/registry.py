"""The four algorithms, one record each: what to call it, where its class is, what a run of it is complete with.

A fifth costs its own folder and one record here; nothing else in the package lists algorithms.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

PAPER_TIMESTEPS = 25_000_000  # semantic clustering's budget on every game


@dataclass(frozen=True)
class Algorithm:
    """What is true of an algorithm, whatever it is trained on.

    Attributes:
        name: as commands and run folders spell it.
        title: as the papers write it.
        color: of its marks in every figure, hexadecimal.
        semantic: acts in Procgen (PPO and SPPO), not in continuous tasks (SAC and ProtoSAC).
        explains: what the algorithm says of its decisions: ``clusters``, ``prototypes`` or, a baseline, ``""``.
        module: where its class is, imported only when needed: Stable-Baselines3 takes seconds.
        seed: of a run that names none.
        canonical: the environment that shows it where none is named.
    """

    name: str
    title: str
    color: str
    semantic: bool
    explains: str
    module: str
    seed: int
    canonical: str

    @property
    def agent_class(self) -> type[Any]:
        """Its class, imported now."""
        return getattr(importlib.import_module(self.module), self.title)

    def full_budget(self, env: str) -> int:
        """Environment steps of a complete run: the paper's on Procgen, elsewhere those of the task's settings.

        The ProtoSAC paper's abstract and README name no budget; the settings start from RL Zoo's
        (:mod:`.protosac.settings`). A user's own environment has none: 0.
        """
        from .protosac.settings import SETTINGS

        if self.semantic:
            return PAPER_TIMESTEPS
        return SETTINGS[env].timesteps if env in SETTINGS else 0


_SPPO, _PROTOSAC = "interp_lib.agents.sppo.agents", "interp_lib.agents.protosac.protosac"

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        record.name: record
        for record in (
            Algorithm("ppo", "PPO", "#4477AA", True, "", _SPPO, 2021, "coinrun"),
            Algorithm("sppo", "SPPO", "#E0501E", True, "clusters", _SPPO, 2021, "coinrun"),
            Algorithm("sac", "SAC", "#2F8F7F", False, "", _PROTOSAC, 0, "pendulum"),
            Algorithm("protosac", "ProtoSAC", "#8A2F86", False, "prototypes", _PROTOSAC, 0, "pendulum"),
        )
    }
)
SEMANTIC_ALGORITHMS = tuple(name for name, record in ALGORITHMS.items() if record.semantic)


def agent_class(algorithm: str) -> type[Any]:
    """The class of an algorithm, imported now."""
    return ALGORITHMS[algorithm].agent_class


def agent_name(algorithm: str) -> str:
    """How the papers write an algorithm."""
    return ALGORITHMS[algorithm].title


def full_budget(algorithm: str, env: str) -> int:
    """:meth:`Algorithm.full_budget`."""
    return ALGORITHMS[algorithm].full_budget(env)
