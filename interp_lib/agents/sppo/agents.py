"""``PPO`` and ``SPPO``, the agents of semantic clustering: ``learn``, ``predict``, ``save_run``, ``load_run``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from tqdm.auto import tqdm

from ...common.acceleration import Compile
from ...common.compute import choose_device, has_fast_bf16, keep_large_allocations
from ...common.errors import InterpError
from ...common.provenance import provenance
from ...common.storage import remove_temporaries
from ...envs.actions import NUM_ACTIONS
from ...envs.procgen import OBSERVATION_SHAPE
from ..learning_curve import ProgressLog
from .config import PPOConfig, SPPOConfig, changeable
from .network import ActorCritic
from .parallel import own_device
from .run_folder import STEPS, TRAINING_STATE, read_run, write_checkpoint, write_run
from .trainer import PROGRESS_COLUMNS, Trainer


class Embedding(NamedTuple):
    """What the network makes of n observations; ``fdr`` and ``code`` are None for PPO."""

    logits: np.ndarray  # float32 (n, 15)
    value: np.ndarray  # float32 (n,)
    feature: np.ndarray  # float32 (n, 256)
    fdr: np.ndarray | None  # float32 (n, 2)
    code: np.ndarray | None  # int64 (n,)


class PPO:
    """Proximal policy optimisation on a Procgen game, the baseline of the semantic clustering paper.

    Args:
        env: Procgen game.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        **options: the other fields of :class:`PPOConfig`.

    >>> agent = PPO("fruitbot", seed=0)
    >>> agent.learn(1_000_000, run_dir="runs/ppo-fruitbot-s0")
    >>> actions, _ = agent.predict(obs)
    """

    algorithm: ClassVar[str] = "ppo"
    config_class: ClassVar[type[PPOConfig]] = PPOConfig

    def __init__(self, env: str, *, device: str = "auto", **options: Any) -> None:
        self.config: PPOConfig = self.config_class.from_dict({"env": env, **options})
        self.device = own_device(choose_device(device))
        torch.manual_seed(self.config.seed)
        self.network = ActorCritic(
            NUM_ACTIONS,
            **self.config.semantic,
            # A GPU is fastest on whole minibatches, a CPU on what fits its cache.
            chunk=128 if self.device.type == "cpu" else 8192,
        ).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.timesteps = 0
        self.history: list[dict[str, Any]] = []
        self._training: dict[str, Any] = {}
        self._trainer: Trainer | None = None
        self._sampler = torch.Generator(self.device).manual_seed(self.config.seed)

    @property
    def reward_scale(self) -> float | None:
        """What rewards were divided by at the end of training, so that value times it is game reward; None: unknown."""
        scale = self._training.get("reward_normalizer")
        return None if scale is None else float(np.sqrt(scale["var"] + 1e-8))

    # -- acting ---------------------------------------------------------------------------------------------------

    def predict(self, obs: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        """Choose actions for uint8 observations (n, 64, 64, 3) or (64, 64, 3) → (int64 (n,) or scalar, None).

        The second entry keeps the signature of Stable-Baselines3 (its recurrent state).
        """
        single = np.ndim(obs) == 3
        logits = self.embed(obs[None] if single else obs).logits
        if deterministic:
            action = logits.argmax(1)
        else:
            probabilities = torch.softmax(torch.from_numpy(logits).to(self.device), dim=-1)
            action = torch.multinomial(probabilities, 1, generator=self._sampler)[:, 0].cpu().numpy()
        return (action[0] if single else action), None

    def seed_sampling(self, seed: int) -> None:
        """Seed the dice of ``predict(deterministic=False)``."""
        self._sampler.manual_seed(seed)

    @torch.no_grad()
    def embed(self, obs: np.ndarray, batch_size: int = 512) -> Embedding:
        """Run observations through the network, in float32 so that every machine sees the same.

        Args:
            obs: uint8 (n, 64, 64, 3).

        Raises:
            InterpError: wrong shape or dtype.
        """
        obs = np.asarray(obs)
        if obs.ndim != 4 or obs.shape[1:] != OBSERVATION_SHAPE or obs.dtype != np.uint8:
            raise InterpError(f"observations must be uint8 (n, 64, 64, 3), not {obs.dtype} {obs.shape}.")
        starts = range(0, max(len(obs), 1), batch_size)
        batches = (np.ascontiguousarray(obs[start : start + batch_size]) for start in starts)
        parts = [self.network(torch.from_numpy(batch).to(self.device))[: len(Embedding._fields)] for batch in batches]
        columns = zip(*parts, strict=True)
        joined: list[Any] = [None if column[0] is None else torch.cat(column).cpu().numpy() for column in columns]
        return Embedding(*joined)

    @torch.no_grad()
    def heads(self, feature: np.ndarray, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, 15) and values (n,) of features (n, 256) with any codes, int64 (n,); PPO reads no codes."""
        columns = (torch.from_numpy(column).to(self.device) for column in (feature, code))
        logits, value = (output.cpu().numpy() for output in self.network.heads(*columns))
        return logits, value

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int,
        *,
        run_dir: Path | str | None = None,
        max_minutes: float | None = None,
        progress: bool = True,
        save_seconds: float = 30.0,
        keep_every: int | None = None,
        tensorboard: bool = False,
        compile: Compile = "auto",
        env_threads: int | None = None,
    ) -> Self:
        """Train until ``total_timesteps`` environment steps in all (rounded up to whole updates).

        Args:
            run_dir: keep config, weights, progress.csv and the resumable state here; None keeps nothing.
            max_minutes: stop cleanly at the first update boundary after this many minutes.
            progress: show a bar with steps/s, return and ETA.
            save_seconds: least time between two checkpoints, of which the first is saved after the first update; with 0
                every update is one.
            keep_every: also keep config and weights for good, in ``run_dir/steps/<timesteps>``, after the update that
                completes so many steps, twice as many, and so on; such a folder can be loaded, but not resumed.
            tensorboard: also write the learning curve to ``run_dir/tensorboard``.
            compile: whether to capture acting and to compile learning, see :meth:`.Trainer.accelerate`.
            env_threads: C++ threads that step the environments; None: half of the cores beside a GPU, eight at most.

        Ctrl-C loses what came after the last checkpoint; :meth:`load_run` with ``resume`` goes on from there. Under
        ``torchrun`` the processes train together (:mod:`.parallel`); the first one writes the run folder and shows
        the bar.

        Raises:
            InterpError: a number of steps is not positive, the loss is not finite, or the folder is unwritable.
        """
        if total_timesteps <= 0:
            raise InterpError(f"timesteps must be positive, not {total_timesteps}.")
        if keep_every is not None and keep_every <= 0:
            raise InterpError(f"keep_every must be positive, not {keep_every}.")
        if env_threads is not None and env_threads < 0:
            raise InterpError(f"env_threads must be at least 0, not {env_threads}.")
        if self.timesteps >= total_timesteps:
            return self  # nothing to do, so nothing to write down either
        if self.device.type == "cpu":
            keep_large_allocations()
        trainer = self._make_trainer()
        workers = trainer.workers
        run_dir = None if run_dir is None else Path(run_dir)
        log = None
        self.history.append(self._slice(trainer))
        if run_dir is not None and workers.rank == 0:
            log = ProgressLog(run_dir / "progress.csv", PROGRESS_COLUMNS, tensorboard=tensorboard)
            log.start(keep_through=trainer.timesteps, gap=0)
            remove_temporaries(run_dir)
        deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else float("inf")
        # A new run saves at once, so that it can be resumed whenever it is killed.
        saved = time.monotonic() if trainer.updates else -float("inf")
        name, hidden = f"{self.algorithm}-{self.config.env}-s{self.config.seed}", not progress or workers.rank > 0
        bar = tqdm(total=total_timesteps, initial=trainer.timesteps, unit="step", desc=name, disable=hidden)
        self._set_training_precision(on=True)
        try:
            if env_threads is not None:
                trainer.regroup(threads=env_threads)
            trainer.accelerate(compile, total_timesteps - trainer.timesteps)
            while trainer.timesteps < total_timesteps:
                row = trainer.update()
                self._count(trainer)
                if log is not None:
                    log.append(row)
                if run_dir is not None and log is not None and keep_every is not None:
                    if self.timesteps % keep_every < self.config.steps_per_update:
                        write_run(self, run_dir / STEPS / f"{self.timesteps:09d}")
                now = time.monotonic()
                save, stop = workers.decide(now - saved >= save_seconds, now >= deadline)
                if run_dir is not None and save:
                    self._save_checkpoint(run_dir)
                    saved = time.monotonic()
                bar.set_postfix_str(f"return {row['eprewmean']:.2f}", refresh=False)
                bar.update(self.config.steps_per_update)
                if stop:
                    break
        except KeyboardInterrupt as interrupt:
            # Weights and environments may be in the middle of an update: only the last checkpoint is consistent.
            left = " before the first checkpoint; nothing was saved."
            if run_dir is not None and (run_dir / TRAINING_STATE).exists():
                left = f"; {run_dir} can be resumed from its last checkpoint."
            raise KeyboardInterrupt(f"interrupted{left}") from interrupt
        finally:
            bar.close()
            if log is not None:
                log.close()
            self._set_training_precision(on=False)
        if run_dir is not None:
            self._save_checkpoint(run_dir)
        return self

    def change(self, options: Mapping[str, Any]) -> None:
        """Go on with other hyper-parameters: learning rate and precision can change. Those the run has may be repeated.

        Raises:
            InterpError: another one differs from the run's, or is none.
        """
        wanted = self.config.from_dict({**dataclasses.asdict(self.config), **options})
        changed = self.config.differences(wanted)
        fixed = [f"{f.name} is {getattr(self.config, f.name)}" for f in changed if not changeable(f)]
        if fixed:
            raise InterpError(
                f"a run that goes on keeps its settings: {', '.join(fixed)}. Start another run for others."
            )
        if changed:
            self.config = wanted
            self._make_trainer().change(wanted)

    def _make_trainer(self) -> Trainer:
        if self._trainer is None:
            self._trainer = Trainer(self.network, self.config)
            if "updates" in self._training:
                self._trainer.load_summary(self._training)
        return self._trainer

    def _slice(self, trainer: Trainer) -> dict[str, Any]:
        """The entry of the run's history for the training that begins now."""
        entry = {"from": trainer.timesteps, "to": trainer.timesteps, "device": self.device.type}
        entry |= {"precision": "bf16" if self._trains_in_bf16 else "fp32", "learning_rate": self.config.learning_rate}
        entry |= provenance()
        if trainer.new_dice is not None:
            entry["new_dice"], trainer.new_dice = trainer.new_dice, None  # from here on they roll on
        return entry

    def _count(self, trainer: Trainer) -> None:
        self.timesteps = self.history[-1]["to"] = trainer.timesteps
        self._training = trainer.summary()

    @property
    def _trains_in_bf16(self) -> bool:
        wanted = self.config.precision
        return wanted == "bf16" or (wanted == "auto" and has_fast_bf16(self.device))

    def _set_training_precision(self, *, on: bool) -> None:
        torch.backends.cudnn.benchmark = on  # tries each convolution's algorithms where it is first met
        self.network.encoder.bf16 = on and self._trains_in_bf16

    def _save_checkpoint(self, run_dir: Path) -> None:
        state = {**self._make_trainer().state_dict(), "history": self.history}  # all workers ask for it together
        if self._make_trainer().workers.rank == 0:
            write_checkpoint(self, state, run_dir)

    # -- files ----------------------------------------------------------------------------------------------------

    def save_run(self, run_dir: Path | str, *, half: bool = False) -> None:
        """Write config.json and policy.safetensors; ``half`` stores weights in float16, half the size.

        Raises:
            InterpError: the folder can't be written.
        """
        write_run(self, Path(run_dir), half=half)

    @classmethod
    def load_run(cls, run_dir: Path | str, *, device: str = "auto", resume: bool = False) -> Self:
        """Rebuild an agent from a run folder.

        Args:
            resume: also restore the full training state, so that ``learn`` continues bit for bit; on another kind of
                device (GPU or CPU) than it was saved on, with dice of their own, which the history says. Without it,
                ``learn`` continues from weights, counters, λ and reward scale (with fresh episodes and Adam moments).

        Raises:
            InterpError: a file is missing or damaged, or the run is of another algorithm.
        """
        return read_run(cls, Path(run_dir), device=device, resume=resume)

    save, load = save_run, load_run  # as Stable-Baselines3 calls them; run folders all the same


class SPPO(PPO):
    """PPO with the semantic clustering module: every state gets a 2-D position and one of K codes.

    Args: as :class:`PPO`; ``**options`` are the fields of :class:`SPPOConfig`.
    """

    algorithm: ClassVar[str] = "sppo"
    config_class: ClassVar[type[PPOConfig]] = SPPOConfig
    config: SPPOConfig
