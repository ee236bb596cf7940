"""The four algorithms, one record each: what to call it, where its class is, what a run of it is complete with.

A fifth costs its own folder and one record here; nothing else in the package lists algorithms.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..envs.names import continuous_task, procgen_game
from .sppo.config import PAPER_TIMESTEPS


@dataclass(frozen=True)
class Algorithm:
    """What is true of an algorithm, whatever it is trained on.

    Attributes:
        name: as commands and run folders spell it.
        title: as the papers write it.
        color: of its marks in every figure, hexadecimal.
        explains: what the algorithm says of its decisions: ``clusters``, ``prototypes`` or, a baseline, ``""``.
        rate: environment steps a second of one run on one thread of a Xeon without bf16 (continuous: on HalfCheetah).
        settings, agents, train: the dataclass of its hyper-parameters, the module that has its class by its title and
            the function that trains it, imported only when needed: Stable-Baselines3 takes seconds.
        state: the file in a run folder from which training goes on.
        procgen: acts in Procgen, not in continuous tasks.
        options: what ``train`` takes besides what all take (:func:`interp_lib.runs.training.train`).
        seed: of a run that names none.
    """

    name: str
    title: str
    color: str
    explains: str
    rate: float
    settings: str
    agents: str
    train: str
    state: str
    procgen: bool
    options: tuple[str, ...]
    seed: int

    @property
    def agent_class(self) -> type[Any]:
        """Its class, imported now."""
        return _import(f"{self.agents}:{self.title}")

    @property
    def settings_class(self) -> type[Any]:
        """The dataclass of its hyper-parameters, imported now."""
        return _import(self.settings)

    def train_run(self, env: str, **options: Any) -> Path:
        """Train it in a run folder: see the function that ``train`` names."""
        return _import(self.train)(self.agent_class, env, **options)

    def full_name(self, env: str) -> str:
        """How this package writes an environment that a user named.

        Raises:
            InterpError: it is none of those the algorithm can act in.
        """
        return procgen_game(env) if self.procgen else continuous_task(env)

    def full_budget(self, env: str) -> int:
        """Environment steps of a complete run: the paper's on Procgen, elsewhere those of the task's settings.

        The ProtoSAC paper's abstract and README name no budget; the settings start from RL Zoo's
        (:mod:`.protosac.settings`). A user's own environment has none: 0.
        """
        from .protosac.settings import SETTINGS

        if self.procgen:
            return PAPER_TIMESTEPS
        return SETTINGS[env].timesteps if env in SETTINGS else 0


_PROCGEN: dict[str, Any] = {
    "agents": "sppo.agents",
    "train": "sppo.training:train_run",
    "state": "training_state.pt",
    "procgen": True,
    "options": ("device", "save_seconds", "keep_every", "compile", "env_threads"),
    "seed": 2021,
}
_CONTINUOUS: dict[str, Any] = {
    "agents": "protosac.protosac",
    "train": "protosac.training:train_run",
    "state": "training_state.zip",
    "procgen": False,
    "options": ("eval_every", "eval_episodes", "video_every", "compile"),
    "seed": 0,
}
_RECORDS = (
    Algorithm("ppo", "PPO", "#4477AA", "", 136.0, "sppo.config:PPOConfig", **_PROCGEN),
    Algorithm("sppo", "SPPO", "#E0501E", "clusters", 136.0, "sppo.config:SPPOConfig", **_PROCGEN),
    Algorithm("sac", "SAC", "#2F8F7F", "", 54.0, "protosac.settings:SACSettings", **_CONTINUOUS),
    Algorithm("protosac", "ProtoSAC", "#8A2F86", "prototypes", 72.0, "protosac.settings:TaskSettings", **_CONTINUOUS),
)
ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType({record.name: record for record in _RECORDS})


def _import(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)
