"""Run folders of PPO and SPPO: the weights, what config.json says of them, and the state to go on from."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...common.errors import InterpError
from ...common.provenance import provenance
from ...common.storage import load_state, read_json, read_tensors, write_json, write_tensors
from .training_state import read_state, write_state

if TYPE_CHECKING:
    from .agents import PPO

    Agent = TypeVar("Agent", bound=PPO)

CONFIG, WEIGHTS, TRAINING_STATE = "config.json", "policy.safetensors", "training_state.pt"
STEPS = "steps"  # its folders are run folders too: the agent as it was after so many
# What else than provenance an entry of the history has.
_OF_A_SLICE = ("from", "to", "device", "precision", "learning_rate", "new_dice")


def write_run(agent: PPO, run_dir: Path, *, half: bool = False) -> None:
    """See :meth:`PPO.save_run`."""
    weights = agent.network.state_dict()
    write_tensors(run_dir / WEIGHTS, {n: w.half() if half else w for n, w in weights.items()})
    # The code that trained is the one loaded when the slice began, whatever is checked out by now.
    origin = agent.history[-1] if agent.history else provenance()
    config = {
        "format": 1,
        "algorithm": agent.algorithm,
        "env": agent.config.env,
        "seed": agent.config.seed,
        "timesteps": agent.timesteps,
        "hyperparameters": dataclasses.asdict(agent.config),
        "training": agent._training,
        "provenance": {key: value for key, value in origin.items() if key not in _OF_A_SLICE},
        "history": agent.history,
    }
    write_json(run_dir / CONFIG, config)


def write_checkpoint(agent: PPO, state: dict[str, Any], run_dir: Path) -> None:
    """Save the run with its resumable state; weights and config follow, so a kill in between loses nothing."""
    write_state(state, run_dir / TRAINING_STATE)
    # A released run that is trained on has neither its results nor, once the weights change, its checksums.
    config = read_json(run_dir / CONFIG) if (run_dir / CONFIG).exists() else {}
    if "files" in config:
        of_release = ("files", "results", "prototypes")
        write_json(run_dir / CONFIG, {key: value for key, value in config.items() if key not in of_release})
    write_run(agent, run_dir)


def read_run(cls: type[Agent], run_dir: Path, *, device: str, resume: bool) -> Agent:
    """See :meth:`PPO.load_run`."""
    path = run_dir / CONFIG
    config = read_json(path)
    if not isinstance(config, dict):
        raise InterpError(f"{path} is damaged: it describes no run. Restore it.")
    if config.get("algorithm") != cls.algorithm:
        raise InterpError(f"{run_dir} holds a {config.get('algorithm')} run, not {cls.algorithm}. Use load_agent.")
    try:
        options = dataclasses.asdict(cls.config_class.from_dict(config["hyperparameters"]))
        agent = cls(**options, device=device)
        agent.timesteps, agent.history = config["timesteps"], config.get("history", [])
        agent._training = config.get("training", {})
    except (KeyError, TypeError, AttributeError) as error:
        raise InterpError(f"{path} is damaged ({error!r}). Restore it.") from error
    if resume:  # the state has the weights as well
        _restore(agent, run_dir / TRAINING_STATE)
    else:
        load_state(agent.network, read_tensors(run_dir / WEIGHTS), run_dir / WEIGHTS)
    return agent


def _restore(agent: PPO, path: Path) -> None:
    if not os.path.lexists(path):
        raise InterpError(f"{path} does not exist: nothing to resume. Load without resume to go on.")
    state, sealed = read_state(path)
    known, agent._training = agent.history, {}  # the state has all that the summary has
    trainer = agent._make_trainer()
    try:
        trainer.load_state_dict(state, sealed=sealed)
        # The config may be a checkpoint behind, but it tells of the same beginning.
        if any(a[key] != b[key] for a, b in zip(known[:1], state["history"], strict=False) for key in a if key != "to"):
            raise ValueError("it is of another run")
        if not all(isinstance(part[key], int) for part in state["history"] for key in ("from", "to")):
            raise ValueError("its history is damaged")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InterpError(f"{path} does not fit this run: {reason}. Delete it to go on from weights.") from error
    agent.history, agent.config = state["history"], trainer.config
    agent._count(trainer)
