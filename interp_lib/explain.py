"""What the prototypes of a ProtoSAC agent do while it plays: traces of episodes, usage, single decisions, pictures.

Shapes: T steps of an episode, N states in all, K prototypes, a action dimensions. Actions are in the environment's
units; u is the action before the squash, action = low + (tanh(u) + 1)/2 · (high − low).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from .envs.continuous import TaskInfo, make_task, task_info
from .errors import InterpError
from .evaluation import Interval, bootstrap_mean, evaluate_continuous
from .state_frames import (
    UNSCALED_SPEEDS,
    StateCamera,
    frame_size,
    image_observation,
    rendering_problem,
    replay_frames,
    state_bars,
    state_caption,
)

if TYPE_CHECKING:
    import pandas

    from .prototypes import ProtoSAC


@dataclass(frozen=True)
class EpisodeTrace:
    """One episode and what the prototypes did at each of its T steps.

    Attributes:
        task: short name.
        seed: of the reset; with the actions it reproduces the episode.
        observations: (T, *observation), the state each action was taken in.
        actions: (T, a) float32, the deterministic ones.
        rewards: (T,) float64.
        weights: (T, K) float32, rows sum to 1.
        similarities: (T, K) float32.
        frames: (F, H, W, 3) uint8, or None when none were asked for.
        frame_steps: (F,) int64, the steps those frames belong to.
        note: empty, or why ``frames`` are states drawn as bars instead of renderings.
    """

    task: str
    seed: int
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    weights: np.ndarray
    similarities: np.ndarray
    frames: np.ndarray | None = None
    frame_steps: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    note: str = ""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def leading(self) -> np.ndarray:
        """(T,) int64, the prototype with the largest weight."""
        return self.weights.argmax(1)

    @property
    def total(self) -> float:
        """Undiscounted return."""
        return float(self.rewards.sum())

    def frame(self, step: int) -> np.ndarray:
        """The picture of one step.

        Raises:
            InterpError: that step was not rendered.
        """
        at = np.flatnonzero(self.frame_steps == step)
        if self.frames is None or not len(at):
            raise InterpError(
                f"step {step} of this episode was not rendered. Add it with with_frames(trace, [{step}])."
            )
        return self.frames[at[0]]


def record_episode(
    agent: ProtoSAC,
    task: str,
    seed: int,
    frames: str | Iterable[int] | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> EpisodeTrace:
    """Play one episode with the deterministic actions and keep what the prototypes do.

    Args:
        agent: a ProtoSAC.
        task: the task it was trained on.
        seed: of the reset.
        frames: ``"all"``, steps, or None for no pictures.
        size: (width, height) of the frames in pixels.

    Raises:
        InterpError: the agent has no prototypes, or was made for another task.
    """
    check_agent(agent, task)
    task = task_info(task).name
    kept: dict[str, list[Any]] = {
        name: [] for name in ("observations", "actions", "rewards", "weights", "similarities")
    }
    env = make_task(task)
    try:
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            explanation = agent.explain(observation)
            action = explanation.action[0]
            kept["observations"].append(observation)
            kept["actions"].append(action)
            kept["weights"].append(explanation.weights[0])
            kept["similarities"].append(explanation.similarities[0])
            observation, reward, terminated, truncated, _ = env.step(action)
            kept["rewards"].append(float(reward))
            ended = terminated or truncated
    finally:
        env.close()
    trace = EpisodeTrace(task, seed, **{name: np.stack(values) for name, values in kept.items()})
    if frames is None:
        return trace
    return with_frames(trace, range(len(trace)) if isinstance(frames, str) else frames, size=size)


def record_episodes(agent: ProtoSAC, task: str, episodes: int, *, seed: int = 0) -> list[EpisodeTrace]:
    """Play ``episodes`` episodes with the seeds ``seed``, ``seed + 1``, …; see :func:`record_episode`.

    Raises:
        InterpError: no episodes, and as :func:`record_episode`.
    """
    if episodes <= 0:
        raise InterpError(f"the number of episodes must be positive, not {episodes}.")
    return [record_episode(agent, task, seed + i) for i in range(episodes)]


def with_frames(trace: EpisodeTrace, steps: Iterable[int], *, size: tuple[int, int] | None = None) -> EpisodeTrace:
    """The same trace with pictures of the chosen steps, for which the episode is played again.

    Where nothing can be rendered (MuJoCo without OpenGL) the states are drawn as bars, and ``note`` says why.
    """
    steps, size = sorted({int(step) for step in steps}), size or frame_size(trace.task)
    problem = rendering_problem(trace.task)
    if problem:
        frames = _drawn(trace.task, trace.observations[steps], trace.observations, size)
    else:
        frames = replay_frames(trace.task, trace.seed, trace.actions, steps, expected=trace.observations, size=size)
    return replace(trace, frames=frames, frame_steps=np.array(steps, dtype=np.int64), note=problem)


def playback_fps(task: str, steps: Sequence[int]) -> float:
    """Frames a second at which evenly spaced ``steps`` of an episode run in the task's own time, within 5 to 30."""
    info, env = task_info(task), make_task(task)
    rate = env.metadata["render_fps"] / info.action_repeat
    env.close()
    return float(np.clip(rate / (steps[1] - steps[0] if len(steps) > 1 else 1), 5, 30))


def even_steps(length: int, most: int) -> list[int]:
    """At most ``most`` evenly spaced steps of an episode of ``length`` steps, from its first on."""
    return list(range(0, length, max(1, -(-length // most))))


# Usage


@dataclass(frozen=True)
class Usage:
    """How N decisions use K prototypes.

    Attributes:
        led: (K,) share of decisions in which the prototype has the largest weight; sums to 1.
        mean_weight: (K,) mean weight; sums to 1.
        per_decision: (N,) how many prototypes share each decision: exp of the entropy of its weights, from 1 to K.
        in_use: how many prototypes are used over all decisions: exp of the entropy of ``mean_weight``. Over evaluation
            episodes this is what cards call prototypes in use, because it counts what the finished agent relies on.
            ``prototypes_used`` of progress.csv is the same over a batch of replay and comes out larger: replay also
            holds early exploration, and the usage loss maximises that very number. A task that stays in one situation
            keeps in_use low with no prototype idle: Pendulum's agents balance in 86% of their decisions.
        order: (K,) int64, prototypes by falling mean weight, then by falling share led.
    """

    led: np.ndarray
    mean_weight: np.ndarray
    per_decision: np.ndarray
    in_use: float
    order: np.ndarray


def prototype_usage(weights: np.ndarray) -> Usage:
    """Usage over decisions with ``weights`` (N, K), rows summing to 1; see :class:`Usage`.

    Raises:
        InterpError: no decisions.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if not len(weights):
        raise InterpError("there are no decisions to count. Record at least one episode.")
    led = np.bincount(weights.argmax(1), minlength=weights.shape[1]) / len(weights)
    mean_weight = weights.mean(0)
    order = np.lexsort((-led, -mean_weight))
    return Usage(led, mean_weight, effective_number(weights), float(effective_number(mean_weight)), order)


def usage_interval(episodes: Sequence[np.ndarray], *, resamples: int = 2000) -> Interval:
    """``Usage.in_use`` over whole episodes with its 95% interval, a percentile bootstrap over episodes, seeded.

    Args:
        episodes: weights (T, K) of each episode; decisions of one episode are too alike to be resampled alone.

    Raises:
        InterpError: no episodes.
    """
    if not len(episodes):
        raise InterpError("there are no decisions to count. Record at least one episode.")
    sums = np.stack([np.sum(weights, axis=0, dtype=np.float64) for weights in episodes])
    n = len(episodes)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = counts @ sums
    low, high = np.quantile(effective_number(drawn / drawn.sum(1, keepdims=True)), [0.025, 0.975])
    return Interval(float(effective_number(sums.sum(0) / sums.sum())), float(low), float(high))


def sharing_interval(episodes: Sequence[np.ndarray]) -> Interval:
    """How many prototypes share a decision on average (``Usage.per_decision``), 95% bootstrap over whole episodes.

    Args:
        episodes: weights (T, K) of each episode.
    """
    from .resampling import ratio_interval  # loads pandas

    sums = np.array([effective_number(weights).sum() for weights in episodes])
    return ratio_interval(sums, np.array([len(weights) for weights in episodes]))


def effective_number(weights: np.ndarray) -> np.ndarray:
    """exp of the Shannon entropy over the last axis: n equal weights give n, a single one gives 1."""
    weights = np.asarray(weights, dtype=np.float64)
    return np.exp(-(weights * np.log(np.where(weights > 0, weights, 1.0))).sum(-1))


# Actions of single prototypes


def squash(u: Any, low: Any, high: Any) -> Any:
    """The action of u, elementwise: low + (tanh(u) + 1)/2 · (high − low)."""
    return low + (np.tanh(u) + 1) / 2 * (high - low)


def action_density(actions: np.ndarray, mean: Any, std: Any, low: Any, high: Any) -> np.ndarray:
    """Density of an action whose u ~ N(mean, std²), per unit of action; 0 outside (low, high). Broadcasts.

    p(action) = N(u; mean, std²) / |d action / du|, u = artanh(2 (action − low)/(high − low) − 1).
    """
    t = 2 * (np.asarray(actions, dtype=np.float64) - low) / (np.asarray(high, dtype=np.float64) - low) - 1
    inside = np.abs(t) < 1
    t = np.where(inside, t, 0.0)
    normal = np.exp(-0.5 * ((np.arctanh(t) - mean) / std) ** 2) / (np.sqrt(2 * np.pi) * std)
    slope = (1 - t**2) * (np.asarray(high) - low) / 2
    return np.where(inside, normal / slope, 0.0)


def action_interval(
    mean: Any, std: Any, low: Any, high: Any, *, coverage: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the central ``coverage`` of a prototype's actions (quantiles survive the squash)."""
    from scipy.stats import norm

    reach = norm.ppf(0.5 + coverage / 2) * np.asarray(std)
    return squash(mean - reach, low, high), squash(mean + reach, low, high)


# One decision


@dataclass(frozen=True)
class Decision:
    """One step of an episode, explained.

    Attributes:
        step: of the episode.
        weights: (K,).
        order: (K,) int64, prototypes by falling weight.
        means, stds: (K, a), the prototypes' Gaussians of u.
        low, high: (a,), action bounds.
        action: (a,), the deterministic action.
        mixture: ``"blend"`` or ``"gmm"``, how weights and Gaussians make one distribution.
    """

    step: int
    weights: np.ndarray
    order: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    low: np.ndarray
    high: np.ndarray
    action: np.ndarray
    mixture: str

    def density_u(self, u: np.ndarray, dim: int) -> np.ndarray:
        """Density of the mixed distribution before the squash at ``u``, in action dimension ``dim``."""
        if self.mixture == "blend":
            return _normal(u, self.weights @ self.means[:, dim], self.weights @ self.stds[:, dim])
        return _normal(u[:, None], self.means[:, dim], self.stds[:, dim]) @ self.weights

    def density(self, actions: np.ndarray, dim: int) -> np.ndarray:
        """The same after the squash, per unit of action."""
        bounds = self.low[dim], self.high[dim]
        if self.mixture == "blend":
            return action_density(actions, self.weights @ self.means[:, dim], self.weights @ self.stds[:, dim], *bounds)
        parts = action_density(np.asarray(actions)[:, None], self.means[:, dim], self.stds[:, dim], *bounds)
        return parts @ self.weights


def explain_decision(agent: ProtoSAC, trace: EpisodeTrace, step: int) -> Decision:
    """Explain one step of a recorded episode.

    Raises:
        InterpError: the episode has no such step.
    """
    if not 0 <= step < len(trace):
        raise InterpError(f"step {step} is not in this episode: it has {len(trace)} steps, the first is 0.")
    prototypes = agent.prototypes
    return Decision(
        step=step,
        weights=trace.weights[step],
        order=np.argsort(-trace.weights[step], kind="stable"),
        means=prototypes.action_means,
        stds=prototypes.action_stds,
        low=agent.action_space.low,
        high=agent.action_space.high,
        action=trace.actions[step],
        mixture=agent.mixture,
    )


def clearest_step(trace: EpisodeTrace) -> int:
    """The step at which one prototype has most of the weight."""
    return int(trace.weights.max(1).argmax())


def most_divided_step(trace: EpisodeTrace) -> int:
    """The step at which the two largest weights together are large and nearly equal: a hand-over between prototypes."""
    second = np.sort(trace.weights, axis=1)[:, -2:].min(1)
    return int(second.argmax())


# Nearest states and pictures


def leading_distances(agent: ProtoSAC, traces: Sequence[EpisodeTrace]) -> np.ndarray:
    """Squared latent distance (N,) of every state to the prototype that leads there, from 0 (the same) to 4."""
    latents = np.concatenate([agent.encode(trace.observations) for trace in traces])
    leaders = agent.prototypes.latents[np.concatenate([trace.leading for trace in traces])]
    return ((latents - leaders) ** 2).sum(1)


def prototype_spacing(agent: ProtoSAC) -> np.ndarray:
    """Squared latent distance (K,) of every prototype to the nearest other one; empty for a single prototype."""
    latents = agent.prototypes.latents
    distances = ((latents[:, None] - latents[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return distances.min(1) if len(latents) > 1 else np.zeros(0)


class NearestState(NamedTuple):
    """An evaluation state near a prototype: ``traces[episode]`` at ``step``.

    ``distance`` is squared, in latent space; ``weight`` what the prototype has there; ``caption`` as in
    :func:`~interp_lib.state_frames.state_caption`.
    """

    episode: int
    step: int
    distance: float
    weight: float
    caption: str


def nearest_states(
    agent: ProtoSAC, traces: Sequence[EpisodeTrace], count: int = 4, *, apart: int = 10
) -> list[list[NearestState]]:
    """For each prototype the ``count`` evaluation states nearest to it in latent space, nearest first.

    Args:
        apart: states of one episode are at least this many steps apart, or they would be the same moment again.
    """
    origin = [(episode, step) for episode, trace in enumerate(traces) for step in range(len(trace))]
    latents = np.concatenate([agent.encode(trace.observations) for trace in traces])
    # Unit vectors: ‖z − p‖² = 2 − 2 z·p.
    distances = np.maximum(2 - 2 * agent.prototypes.latents @ latents.T, 0)
    found = []
    for k, row in enumerate(distances):
        chosen: list[NearestState] = []
        for i in np.argsort(row, kind="stable"):
            episode, step = origin[i]
            if all(other.episode != episode or abs(other.step - step) >= apart for other in chosen):
                trace = traces[episode]
                caption = state_caption(trace.task, trace.observations[step])
                chosen.append(NearestState(episode, step, float(row[i]), float(trace.weights[step, k]), caption))
            if len(chosen) == count:
                break
        found.append(chosen)
    return found


def picture_states(
    traces: Sequence[EpisodeTrace], states: Sequence[NearestState], *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Pictures uint8 (len(states), H, W, 3) of evaluation states, made the way :func:`prototype_pictures` are.

    Image tasks: what the agent saw. Where the simulator can't be put into a state, each episode is played again at
    most once.
    """
    task = traces[0].task
    if task_info(task).image:
        seen = [traces[state.episode].observations[state.step] for state in states]
        return np.stack([image_observation(observation, size or frame_size(task)) for observation in seen])
    if StateCamera.can_restore(task) and not rendering_problem(task):
        return restored_frames(task, [traces[state.episode].observations[state.step] for state in states], size=size)
    pictures: dict[tuple[int, int], np.ndarray] = {}
    for episode in sorted({state.episode for state in states}):
        steps = sorted({state.step for state in states if state.episode == episode})
        frames = with_frames(traces[episode], steps, size=size).frames
        assert frames is not None
        pictures |= {(episode, step): frame for step, frame in zip(steps, frames, strict=True)}
    return np.stack([pictures[state.episode, state.step] for state in states])


def restored_frames(
    task: str, observations: Iterable[np.ndarray], *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Pictures uint8 (N, H, W, 3) of the states behind N observations, from a :class:`StateCamera`."""
    with StateCamera(task, size) as camera:
        return np.stack([camera.frame(observation).copy() for observation in observations])


@dataclass(frozen=True)
class PrototypePictures:
    """A picture of each prototype.

    Attributes:
        frames: (K, H, W, 3) uint8.
        how: ``"restored"``, ``"observation"``, ``"nearest"`` or ``"drawn"``.
        note: what the pictures are, a sentence for captions.
        captions: K short texts with what a still picture can't show, such as speeds.
        problem: empty, or why nothing could be rendered, with the fix.
    """

    frames: np.ndarray
    how: str
    note: str
    captions: tuple[str, ...]
    problem: str = ""


def prototype_pictures(
    agent: ProtoSAC, traces: Sequence[EpisodeTrace], *, size: tuple[int, int] | None = None
) -> PrototypePictures:
    """Picture the state each prototype stands for, as truly as its task allows.

    Image tasks: the observation itself. Pendulum, MountainCar, MuJoCo: the simulator put into the state and
    rendered; without OpenGL, bars. Box2D, or prototypes that were never projected: the nearest evaluation state.
    """
    task = traces[0].task
    info, size, observations = task_info(task), size or frame_size(task), agent.prototypes.observations
    problem = rendering_problem(task)
    if observations is None:
        how, why = "nearest", "the prototypes were never projected onto states"
    elif info.image:
        how, frames = "observation", np.stack([image_observation(observation, size) for observation in observations])
    elif problem:
        how, reference = "drawn", np.concatenate([trace.observations for trace in traces])
        frames = _drawn(task, observations, reference, size)
    elif StateCamera.can_restore(task):
        how, frames = "restored", restored_frames(task, observations, size=size)
    else:
        how, why = "nearest", "the simulator can't be put into a given state"
    if how == "nearest":
        nearest = [states[0] for states in nearest_states(agent, traces, 1)]
        frames = picture_states(traces, nearest, size=size)
        if observations is None:
            observations = [traces[state.episode].observations[state.step] for state in nearest]
    note = {
        "observation": "Pictures of prototypes, and of states nearest to them, are the newest of the four grey images "
        "that the agent sees there.",
        "drawn": "States are drawn as bars, in standard deviations from their mean: nothing could be rendered here.",
        "restored": "Pictures of prototypes are the simulator put into the prototype's own state.",
        "nearest": f"Pictures are of the evaluation state nearest to each prototype ({why})"
        + ("; numbers are of the prototype itself." if agent.prototypes.observations is not None else ".")
        if how == "nearest"
        else "",
    }
    captions = tuple(state_caption(task, observation) for observation in observations)
    sentences = (note[how], f"Speeds are {UNSCALED_SPEEDS[task]}." if task in UNSCALED_SPEEDS else "")
    return PrototypePictures(frames, how, " ".join(filter(None, sentences)), captions, problem)


class StateMap(NamedTuple):
    """States and prototypes in two dimensions."""

    states: np.ndarray  # (N, 2)
    prototypes: np.ndarray  # (K, 2)
    labels: tuple[str, str]  # of the two axes


def state_map(agent: ProtoSAC, traces: Sequence[EpisodeTrace]) -> StateMap:
    """A flat map of all visited states: angle and angular velocity for Pendulum, position and velocity for
    MountainCar, for the others the first two principal components of the latent states.
    """
    task, prototypes = traces[0].task, agent.prototypes
    observations = np.concatenate([trace.observations for trace in traces])
    if task == "pendulum" and prototypes.observations is not None:
        visited, stood_for = (
            np.stack([np.degrees(np.arctan2(o[:, 1], o[:, 0])), o[:, 2]], 1)
            for o in (observations, prototypes.observations)
        )
        return StateMap(visited, stood_for, ("angle from upright (degrees)", "angular velocity (rad/s)"))
    if task == "mountaincar" and prototypes.observations is not None:
        return StateMap(observations, prototypes.observations, ("position", "velocity (a step)"))
    latents = agent.encode(observations)
    center = latents.mean(0)
    _, lengths, directions = np.linalg.svd(latents - center, full_matrices=False)
    shares = lengths**2 / (lengths**2).sum()
    # An axis may point either way; fix it, so that the map does not flip between machines.
    axes = directions[:2] * np.sign(directions[:2].sum(1, keepdims=True))
    first, second = (f"latent component {i + 1} ({shares[i]:.0%} of variance)" for i in range(2))
    return StateMap((latents - center) @ axes.T, (prototypes.latents - center) @ axes.T, (first, second))


def state_values(agent: ProtoSAC, trace: EpisodeTrace) -> np.ndarray:
    """min_j Q_j(s, π(s)) (T,) float32: the discounted return the critics expect from each state on."""
    import torch

    with torch.no_grad():
        observations, _ = agent.policy.obs_to_tensor(trace.observations)
        actions = torch.as_tensor(agent.policy.scale_action(trace.actions), device=agent.device)
        return torch.cat(agent.critic(observations, actions), 1).amin(1).cpu().numpy()


def prototype_table(agent: ProtoSAC, traces: Sequence[EpisodeTrace], usage: Usage) -> pandas.DataFrame:
    """One row a prototype, largest mean weight first: what it does, how much it has to say, when, what that is worth.

    Columns: ``prototype``; ``mean_weight`` and ``led`` (shares); over the steps it leads ``distance`` (median of
    :func:`leading_distances`), ``when`` (median position in the episode, 0 first to 1 last) and ``value`` (mean of
    :func:`state_values`); for each action its name
    (the prototype's action alone) and ``<name>_low``, ``<name>_high`` (central 90% of its Gaussian); the numbers of
    the state it was projected on, for tasks with at most 8. Empty where a prototype never leads.
    """
    import pandas as pd

    info, prototypes = task_info(traces[0].task), agent.prototypes
    leading = np.concatenate([trace.leading for trace in traces])
    position = np.concatenate([np.arange(len(trace)) / max(len(trace) - 1, 1) for trace in traces])
    values = np.concatenate([state_values(agent, trace) for trace in traces])
    distances = leading_distances(agent, traces)
    low, high = action_interval(
        prototypes.action_means, prototypes.action_stds, agent.action_space.low, agent.action_space.high
    )
    rows = []
    for k in usage.order:
        led = leading == k
        row: dict[str, Any] = {"prototype": f"P{k}", "mean_weight": usage.mean_weight[k], "led": usage.led[k]}
        row |= {"distance": np.median(distances[led]) if led.any() else np.nan}
        row |= {"when": np.median(position[led]) if led.any() else np.nan}
        row |= {"value": values[led].mean() if led.any() else np.nan}
        for i, name in enumerate(info.action_names):
            row |= {name: prototypes.actions[k, i], f"{name}_low": low[k, i], f"{name}_high": high[k, i]}
        if prototypes.observations is not None and 0 < len(info.observation_names) <= 8:
            row |= dict(zip(info.observation_names, prototypes.observations[k], strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def compare_returns(
    agent: ProtoSAC, traces: Sequence[EpisodeTrace], baseline: Any | None = None, *, name: str = "SAC"
) -> pandas.DataFrame:
    """Returns of the recorded episodes beside those of other agents on the same seeds, with 95% intervals.

    Rows: ProtoSAC; ProtoSAC with the free prototypes it had before its last projection (where it is projected);
    ``baseline`` under ``name`` (None: left out); a random policy. Columns: ``mean``, ``low``, ``high``; ``ahead``,
    ``ahead_low``, ``ahead_high``, ProtoSAC's return minus this one's, paired by episode seed; ``episodes``.

    Args:
        traces: of consecutive seeds, as :func:`record_episodes` makes them.
    """
    import pandas as pd

    task, n, seed = traces[0].task, len(traces), traces[0].seed
    returns = {"ProtoSAC": np.array([trace.total for trace in traces])}
    if agent.prototypes.projected:
        with agent.free_prototypes():
            returns["ProtoSAC, before the last projection"] = evaluate_continuous(agent, task, n, seed=seed).returns
    if baseline is not None:
        returns[name] = evaluate_continuous(baseline, task, n, seed=seed).returns
    returns["random"] = evaluate_continuous(None, task, n, seed=seed).returns
    rows = []
    for who, values in returns.items():
        ahead = bootstrap_mean(returns["ProtoSAC"] - values)
        row = {"agent": who, **bootstrap_mean(values)._asdict()}
        rows.append(row | {"ahead": ahead.mean, "ahead_low": ahead.low, "ahead_high": ahead.high, "episodes": n})
    return pd.DataFrame(rows).set_index("agent")


# Everything about one agent


@dataclass(frozen=True)
class PrototypeStudy:
    """An agent, its evaluation episodes, and what figures need to know about them.

    Attributes:
        agent: a ProtoSAC.
        traces: its evaluation episodes, without frames.
    """

    agent: ProtoSAC
    traces: list[EpisodeTrace]

    @classmethod
    def record(cls, agent: ProtoSAC, task: str, episodes: int, *, seed: int = 0) -> Self:
        """Play the episodes; see :func:`record_episodes`."""
        return cls(agent, record_episodes(agent, task, episodes, seed=seed))

    @cached_property
    def info(self) -> TaskInfo:
        """The task: its names for actions and observations."""
        return task_info(self.traces[0].task)

    @cached_property
    def usage(self) -> Usage:
        """Over all decisions of all episodes."""
        return prototype_usage(np.concatenate([trace.weights for trace in self.traces]))

    @cached_property
    def table(self) -> pandas.DataFrame:
        """:func:`prototype_table`, by the prototypes' names."""
        return prototype_table(self.agent, self.traces, self.usage).set_index("prototype")

    @cached_property
    def pictures(self) -> PrototypePictures:
        """Made when first asked for."""
        return prototype_pictures(self.agent, self.traces)

    @cached_property
    def typical(self) -> EpisodeTrace:
        """The episode with the median return (the lower one of two)."""
        return sorted(self.traces, key=lambda trace: trace.total)[(len(self.traces) - 1) // 2]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper action bounds, (a,) each."""
        return self.agent.action_space.low, self.agent.action_space.high


def check_agent(agent: Any, task: str) -> None:
    """Refuse an agent that has no prototypes to explain, or was trained on another task.

    Raises:
        InterpError: it is one of these.
    """
    if not hasattr(agent, "explain"):
        name = getattr(agent, "algorithm", type(agent).__name__)
        raise InterpError(f"a {name} agent has no prototypes to explain. Use a protosac run.")
    trained_on = getattr(agent, "task", None)
    if trained_on is not None and trained_on != task_info(task).name:
        raise InterpError(f"this agent was trained on {trained_on}, not on {task_info(task).name}.")


def _drawn(task: str, observations: np.ndarray, reference: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    twice = 2 * size[0], 2 * size[1]  # names need more pixels than a scene
    return state_bars(observations, task_info(task).observation_names, twice, reference=reference)


def _normal(x: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / std) ** 2) / (np.sqrt(2 * np.pi) * std)
