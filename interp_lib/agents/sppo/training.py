"""Training PPO or SPPO in a run folder, from the beginning or on from what is there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .agents import PPO, TRAINING_STATE
from .config import PAPER_TIMESTEPS


def train_run(
    agent_class: type[PPO],
    env: str,
    *,
    timesteps: int | None,
    seed: int,
    run_dir: Path,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str = "auto",
    **options: Any,
) -> Path:
    """Train until ``timesteps`` in all (None: as many as the paper's) and leave a run folder.

    Args:
        agent_class: PPO or SPPO, or what is made of them.
        overrides: hyper-parameters that differ from the defaults; of a run that goes on, learning rate and precision.
        resume: go on with the run in ``run_dir``, if there is one: from its training state, or else its weights.
        options: of :meth:`PPO.learn`.

    Raises:
        InterpError: the run is damaged or can't go on so, or training failed.
    """
    overrides = overrides or {}
    if resume and os.path.lexists(run_dir / "config.json"):
        agent = agent_class.load_run(run_dir, device=device, resume=os.path.lexists(run_dir / TRAINING_STATE))
        agent.change(overrides)
    else:
        agent = agent_class(env, seed=seed, device=device, **overrides)
    agent.learn(PAPER_TIMESTEPS if timesteps is None else timesteps, run_dir=run_dir, **options)
    return run_dir
