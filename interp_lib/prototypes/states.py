"""The states that prototypes stand for: the evaluation states nearest to them, pictures, a flat map.

N states in all, K prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from ..envs.pictures import (
    draw_states,
    image_observation,
    rendering_problem,
    restored_frames,
    state_caption,
)
from .episode_frames import EpisodeFrames

if TYPE_CHECKING:
    from .study import PrototypeStudy


class NearestState(NamedTuple):
    """An evaluation state near a prototype: ``traces[episode]`` at ``step``.

    ``distance`` is squared, in the agent's space; ``weight`` what the prototype has there; ``caption`` as in
    :func:`~interp_lib.envs.pictures.state_caption`.
    """

    episode: int
    step: int
    distance: float
    weight: float
    caption: str


def nearest_states(study: PrototypeStudy, count: int, *, apart: int = 10) -> list[list[NearestState]]:
    """For each prototype the ``count`` evaluation states nearest to it in latent space, nearest first.

    Args:
        apart: states of one episode are at least this many steps apart, or they would be the same moment again.
    """
    origin = [(episode, step) for episode, trace in enumerate(study.traces) for step in range(len(trace))]
    distances = cdist(study.agent.prototypes.latents, study.latents, "sqeuclidean")
    found = []
    for k, row in enumerate(distances):
        chosen: list[NearestState] = []
        for i in np.argsort(row, kind="stable"):
            episode, step = origin[i]
            if all(other.episode != episode or abs(other.step - step) >= apart for other in chosen):
                weight, caption = float(study.weights[i, k]), study.traces[episode].caption(step)
                chosen.append(NearestState(episode, step, float(row[i]), weight, caption))
            if len(chosen) == count:
                break
        found.append(chosen)
    return found


def picture_states(study: PrototypeStudy, states: Sequence[NearestState]) -> np.ndarray:
    """Pictures uint8 (len(states), H, W, 3) of evaluation states, made the way :func:`prototype_pictures` are.

    Where the simulator can't be put into a state, each episode is played again at most once.
    """
    if study.info.restore and not rendering_problem(study.info.name):
        return restored_frames(
            study.info.name, [study.traces[state.episode].observations[state.step] for state in states]
        )
    camera = EpisodeFrames(study.traces)
    pictures = {place: camera.frame(*place) for place in sorted({state[:2] for state in states})}
    camera.close()
    return np.stack([pictures[state[:2]] for state in states])


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


def prototype_pictures(study: PrototypeStudy) -> PrototypePictures:
    """Picture the state each prototype stands for, as truly as its task allows.

    Image tasks: the observation itself. Pendulum, MountainCar, MuJoCo: the simulator put into the state and
    rendered; without OpenGL, bars. Box2D, or prototypes that were never projected: the nearest evaluation state.
    """
    info, states = study.info, study.agent.prototypes.observations
    size, problem = info.frame_size, rendering_problem(info.name)
    if states is not None and info.image:
        how, frames = "observation", np.stack([image_observation(state, min(size)) for state in states])
        note = "Pictures of prototypes, and of states nearest to them, are the newest of the four grey images that the "
        note += "agent sees there."
    elif states is not None and problem:
        how, frames = "drawn", draw_states(info.name, states, study.observations, size)
        note = "States are drawn as bars, in standard deviations from their mean: nothing could be rendered here."
    elif states is not None and info.restore:
        how, frames = "restored", restored_frames(study.info.name, states)
        note = "Pictures of prototypes are the simulator put into the prototype's own state."
    else:
        nearest = [found[0] for found in study.nearest]
        how, frames = "nearest", picture_states(study, nearest)
        if states is None:
            why, numbers = "the prototypes were never projected onto states", "."
            states = np.stack([study.traces[state.episode].observations[state.step] for state in nearest])
        else:
            why, numbers = "the simulator can't be put into a given state", "; numbers are of the prototype itself."
        note = f"Pictures are of the evaluation state nearest to each prototype ({why}){numbers}"
    if info.speeds:
        note += f" Speeds are {info.speeds}."
    return PrototypePictures(frames, how, note, tuple(state_caption(info.name, state) for state in states), problem)


class StateMap(NamedTuple):
    """States and prototypes in two dimensions."""

    states: np.ndarray  # (N, 2)
    prototypes: np.ndarray  # (K, 2)
    labels: tuple[str, str]  # of the two axes


def state_map(study: PrototypeStudy) -> StateMap:
    """A flat map of all visited states: the task's own two axes where its record has some (``flat_map``), for the
    others the first two principal components of the states in the agent's space.
    """
    flat, prototypes = study.info.flat_map, study.agent.prototypes
    if flat is not None and prototypes.observations is not None:
        return StateMap(flat.project(study.observations), flat.project(prototypes.observations), flat.labels)
    center = study.latents.mean(0)
    _, lengths, directions = np.linalg.svd(study.latents - center, full_matrices=False)
    shares = lengths**2 / (lengths**2).sum()
    # An axis may point either way; fix it, so that the map does not flip between machines.
    axes = directions[:2] * np.sign(directions[:2].sum(1, keepdims=True))
    first, second = (f"component {i + 1} of the agent's space ({shares[i]:.0%} of variance)" for i in range(2))
    return StateMap((study.latents - center) @ axes.T, (prototypes.latents - center) @ axes.T, (first, second))
