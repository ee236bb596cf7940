"""What SAC and ProtoSAC refuse, each in one line: settings out of range, NaN, more memory than there is.

Settings are checked where an agent's networks are made, which constructor, zip and run folder all come through, and
before anything of their size is allocated.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from ...common.errors import InterpError

_NAN_FIX = "Lower the learning rate, or look for NaN or huge values in the environment's rewards."
# Setting → its type and least value. A float has no upper bound but infinity.
_LEAST: dict[str, tuple[type, float]] = {
    "buffer_size": (int, 1), "learning_starts": (float, 0), "batch_size": (int, 1), "gradient_steps": (int, -1),
    "n_steps": (int, 1), "target_update_interval": (int, 1), "sde_sample_freq": (int, -1), "tau": (float, 0),
    "gamma": (float, 0), "n_prototypes": (int, 1), "latent_dim": (int, 2), "temperature": (float, 0),
    "initial_temperature": (float, 0),
    "cluster_weight": (float, 0), "coverage_weight": (float, 0), "separation_weight": (float, 0),
    "separation_margin": (float, 0), "sharpness_weight": (float, 0), "usage_weight": (float, 0),
    "metric_weight": (float, 0), "gaussian_rate": (float, 0), "projection_interval": (int, 0),
    "imitation_epochs": (int, 0), "projection_candidates": (int, 1),
}  # fmt: skip
_WHY = {
    "n_prototypes": "a policy needs at least 1 prototype",
    "latent_dim": "latents need at least 2 dimensions",
    "temperature": "it must be above 0 (0.15 is a sharp softmax)",
    "projection_interval": "it must be at least 0 (0: only at the end)",
}


def check_settings(values: Mapping[str, Any]) -> None:
    """Check settings by name; those that have no range here are passed over.

    Raises:
        InterpError: one has the wrong type or is out of range.
    """
    for name, (kind, least) in _LEAST.items():
        if name not in values:
            continue
        value = values[name]
        typed = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        if not typed or not math.isfinite(value):
            expected = "a whole number" if kind is int else "a number"
            raise InterpError(f"{name} is {value!r:.80}; it must be {expected}.")
        if value < least or (name == "temperature" and value == 0):
            raise InterpError(f"{name} is {value}; {_WHY.get(name, f'it must be at least {least}')}.")
    if not _is_entropy(values.get("ent_coef", "auto")):
        raise InterpError(f"ent_coef is {values['ent_coef']!r:.80}; it must be a number, 'auto' or, say, 'auto_0.1'.")
    frequency = values.get("train_freq", 1)
    if isinstance(frequency, tuple):  # SB3's TrainFreq is one too
        frequency = frequency[0]
    if isinstance(frequency, Integral) and frequency < 1:
        raise InterpError(f"train_freq is {frequency}; it must be at least 1.")
    arch = (values.get("policy_kwargs") or {}).get("net_arch") or []
    widths = [w for part in arch.values() for w in part] if isinstance(arch, dict) else arch
    if any(isinstance(width, Integral) and width < 1 for width in widths):
        raise InterpError(f"net_arch is {arch!r:.80}; a layer needs at least 1 unit.")
    for name in ("use_sde", "final_projection"):
        if not isinstance(values.get(name, False), bool):
            raise InterpError(f"{name} is {values[name]!r:.80}; it must be true or false.")


def _is_entropy(value: Any) -> bool:
    start = "1" if value == "auto" else value.removeprefix("auto_") if isinstance(value, str) else value
    try:
        return 0 <= float(start) < math.inf and not (isinstance(value, str) and float(start) == 0)
    except (TypeError, ValueError):
        return False


@contextlib.contextmanager
def enough_memory(buffer_size: int) -> Iterator[None]:
    """Say so in one line where a replay buffer or a network is larger than memory."""
    try:
        yield
    except (MemoryError, OverflowError, ValueError, RuntimeError) as error:
        # numpy's and PyTorch's words for a MemoryError
        large = ("array is too big", "Maximum allowed dimension", "not enough memory", "can't allocate memory")
        if isinstance(error, (ValueError, RuntimeError)) and not any(words in str(error) for words in large):
            raise
        raise InterpError(
            f"there is not enough memory for a replay buffer of {buffer_size:,} steps and the networks. "
            "Lower buffer_size, or net_arch."
        ) from error


def refuse_nan(observations: Any) -> None:
    """Raise InterpError where observations, an array or what makes one, or a dict of them, hold NaN."""
    for observation in observations.values() if isinstance(observations, Mapping) else [observations]:
        try:
            values = np.asarray(observation)
        except ValueError:  # ragged: SB3 says what is wrong with it
            continue
        if values.dtype.kind == "f" and (count := int(np.isnan(values).sum())):
            raise InterpError(f"the observation holds {count} NaN. Mend the environment, or leave this state out.")


def refuse_nan_losses(values: Mapping[str, float], step: int) -> None:
    """Raise InterpError where a loss is no longer finite."""
    for name, value in values.items():
        if not np.isfinite(value):
            raise InterpError(f"{name} is {value} at step {step:,}. {_NAN_FIX}")
