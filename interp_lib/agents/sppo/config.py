"""Hyper-parameters of PPO and SPPO: one field each, with the papers' values as defaults (methods 2.5–2.9)."""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any

from ...common.errors import InterpError
from ...envs.games import MODES
from ...envs.names import check_seed, procgen_game
from ...envs.procgen import MOST_LEVELS, Levels

PAPER_TIMESTEPS = 25_000_000  # the budget on every game
MOST_CODES = 1024
_MOST_SAMPLES = 2**22  # of a rollout: 51 GB of frames
_MOST = {"num_envs": 2**14, "num_steps": 2**16, "num_minibatches": math.inf, "num_epochs": 1000}


def _option(default: Any, help: str, *, changeable: bool = False) -> Any:
    return field(default=default, metadata={"help": help, "changeable": changeable})


def changeable(option: Field[Any]) -> bool:
    """Whether a run can go on with another value of this hyper-parameter."""
    return option.metadata["changeable"]


@dataclass(frozen=True)
class PPOConfig:
    """PPO on Procgen as the paper runs it (25M steps, easy, all levels)."""

    env: str = _option("fruitbot", "Procgen game")
    seed: int = _option(2021, "seeds weights, action sampling, minibatches and level order")
    distribution_mode: str = _option("easy", "difficulty: easy or hard")
    num_levels: int = _option(0, "size of the training level set; 0 means all levels")
    start_level: int = _option(0, "first training level")
    num_envs: int = _option(64, "environments stepped in parallel")
    num_steps: int = _option(256, "steps an environment and update")
    num_minibatches: int = _option(8, "minibatches an epoch")
    num_epochs: int = _option(3, "passes over a rollout")
    gamma: float = _option(0.999, "discount")
    gae_lambda: float = _option(0.95, "λ of generalised advantage estimation")
    clip_range: float = _option(0.2, "clip of ratio and value")
    value_coef: float = _option(0.5, "weight of the value loss")
    entropy_coef: float = _option(0.01, "weight of the entropy bonus")
    max_grad_norm: float = _option(0.5, "global norm the gradient is clipped to")
    learning_rate: float = _option(5e-4, "Adam's step size", changeable=True)
    precision: str = _option(
        "auto",
        "convolutions and the FDR loss's gradient in bf16, or fp32; auto: bf16 where there is hardware for it",
        changeable=True,
    )

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "env", procgen_game(self.env))
        check_seed(self.seed)
        if self.distribution_mode not in MODES:
            raise InterpError(f"unknown distribution mode '{self.distribution_mode}'. Valid: {', '.join(MODES)}.")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise InterpError(f"unknown precision '{self.precision}'. Valid: auto, bf16, fp32.")
        for name, most in _MOST.items():
            if (value := getattr(self, name)) < 1:
                raise InterpError(f"{name} must be at least 1, not {value}.")
            if value > most:
                raise InterpError(f"{name} must be at most {most:,}, not {value:,}.")
        if self.steps_per_update > _MOST_SAMPLES:
            raise InterpError(f"num_envs · num_steps must be at most {_MOST_SAMPLES:,}, not {self.steps_per_update:,}.")
        if self.learning_rate < 0:
            raise InterpError(f"learning_rate must be at least 0, not {self.learning_rate}.")
        if self.num_levels < 0 or self.start_level < 0:
            raise InterpError("num_levels and start_level must be at least 0.")
        if Levels.unseen(self).end > MOST_LEVELS:
            raise InterpError(
                f"start_level {self.start_level:,} and num_levels {self.num_levels:,} leave no unseen levels below "
                f"{MOST_LEVELS:,} to evaluate on. Begin lower or take fewer."
            )
        if self.steps_per_update % self.num_minibatches:
            raise InterpError(f"num_envs · num_steps = {self.steps_per_update} must be a multiple of num_minibatches.")

    def _check_types(self) -> None:
        for f in fields(self):
            value: Any = getattr(self, f.name)
            kind: type = type(f.default)
            if kind is float and type(value) is int and abs(value) < 2**53:
                value = float(value)
                object.__setattr__(self, f.name, value)
            if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
                expected = {int: "a whole number", float: "a finite number", str: "a word", bool: "True or False"}[kind]
                raise InterpError(f"{f.name} must be {expected}, not {value!r:.60}.")

    @property
    def semantic(self) -> dict[str, Any]:
        """What the semantic module is built with; nothing, as PPO has none."""
        return {}

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one rollout."""
        return self.num_envs * self.num_steps

    def differences(self, other: PPOConfig) -> list[Field[Any]]:
        """The fields in which ``other`` has other values."""
        return [f for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PPOConfig:
        """Build from a run's config.json.

        Raises:
            InterpError: a key is not a field of this configuration.
        """
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise InterpError(f"unknown hyper-parameters: {', '.join(sorted(unknown))}.")
        return cls(**values)


@dataclass(frozen=True)
class SPPOConfig(PPOConfig):
    """PPO plus the semantic clustering module."""

    num_codes: int = _option(8, "K, the number of clusters")
    fdr_coef: float = _option(500.0, "weight of the FDR loss within the skill term")
    vq_coef: float = _option(1.0, "weight of the VQ loss within the skill term")
    vq_beta: float = _option(0.25, "commitment β of the VQ loss")
    alpha_feature: float = _option(20.0, "α₁ of the similarities in feature space")
    alpha_fdr: float = _option(20.0, "α₂ of the similarities in FDR space")
    skill_interval: int = _option(50, "updates between changes of the skill weight λ, which starts at 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_codes < 1 or self.skill_interval < 1:
            raise InterpError("num_codes and skill_interval must be at least 1.")
        if self.num_codes > MOST_CODES:
            raise InterpError(f"num_codes must be at most {MOST_CODES:,}, not {self.num_codes:,}.")

    @property
    def semantic(self) -> dict[str, Any]:
        """What the semantic module is built with."""
        return {"num_codes": self.num_codes}
