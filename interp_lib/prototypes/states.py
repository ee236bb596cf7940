"""The states that prototypes stand for: how near evaluation states come to them, pictures, a flat map.

T steps of an episode, N states in all, K prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..envs.names import task_info
from ..envs.pictures import (
    draw_states,
    frame_size,
    image_observation,
    rendering_problem,
    restored_frames,
    state_caption,
)
from .traces import EpisodeTrace, with_frames

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC


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
    :func:`~interp_lib.envs.pictures.state_caption`.
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
        return np.stack([image_observation(observation, min(size or frame_size(task))) for observation in seen])
    if task_info(task).restore and not rendering_problem(task):
        return restored_frames(task, [traces[state.episode].observations[state.step] for state in states], size=size)
    pictures: dict[tuple[int, int], np.ndarray] = {}
    for episode in sorted({state.episode for state in states}):
        steps = sorted({state.step for state in states if state.episode == episode})
        frames = with_frames(traces[episode], steps, size=size).frames
        assert frames is not None
        pictures |= {(episode, step): frame for step, frame in zip(steps, frames, strict=True)}
    return np.stack([pictures[state.episode, state.step] for state in states])


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
        how, frames = (
            "observation",
            np.stack([image_observation(observation, min(size)) for observation in observations]),
        )
    elif problem:
        how, reference = "drawn", np.concatenate([trace.observations for trace in traces])
        frames = draw_states(task, observations, reference, size)
    elif info.restore:
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
    sentences = (note[how], f"Speeds are {info.speeds}." if info.speeds else "")
    return PrototypePictures(frames, how, " ".join(filter(None, sentences)), captions, problem)


class StateMap(NamedTuple):
    """States and prototypes in two dimensions."""

    states: np.ndarray  # (N, 2)
    prototypes: np.ndarray  # (K, 2)
    labels: tuple[str, str]  # of the two axes


def state_map(agent: ProtoSAC, traces: Sequence[EpisodeTrace]) -> StateMap:
    """A flat map of all visited states: the task's own two axes where it has some (``flat_map`` of its
    record), for the others the first two principal components of the latent states.
    """
    task, prototypes = traces[0].task, agent.prototypes
    observations = np.concatenate([trace.observations for trace in traces])
    flat = task_info(task).flat_map
    if flat is not None and prototypes.observations is not None:
        return StateMap(flat.project(observations), flat.project(prototypes.observations), flat.labels)
    latents = agent.encode(observations)
    center = latents.mean(0)
    _, lengths, directions = np.linalg.svd(latents - center, full_matrices=False)
    shares = lengths**2 / (lengths**2).sum()
    # An axis may point either way; fix it, so that the map does not flip between machines.
    axes = directions[:2] * np.sign(directions[:2].sum(1, keepdims=True))
    first, second = (f"latent component {i + 1} ({shares[i]:.0%} of variance)" for i in range(2))
    return StateMap((latents - center) @ axes.T, (prototypes.latents - center) @ axes.T, (first, second))
