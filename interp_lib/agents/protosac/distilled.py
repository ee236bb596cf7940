"""SAC turned into prototypes after its training: what agents that learn with prototypes are compared with.

The result is a ProtoSAC with SAC's critics, which plays, explains and is saved like any other.

- :func:`k_medoids`: K medoids of the states SAC visits, in standardised observations, each with SAC's own Gaussian
  there. Nothing is learned.
- :func:`distilled`: after PW-Net (Kenny, Tucker & Shah, ICLR 2023). SAC's actor below its heads is the encoder, and
  stays as it is; a linear layer behind it, and the Gaussians, learn to imitate SAC.

Both imitate in the first three quarters of the states given, and take the temperature that has the least error in the
rest, which should be of other episodes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...common.errors import InterpError
from ...common.grouping import k_means
from ...envs.continuous import make_task
from .checks import refuse_nan
from .config import hyperparameters
from .mixtures import Blend
from .projection import Decisions, distinct, features_of, imitate, nearest_distinct, place, refit_gaussians
from .protosac import SAC, ProtoSAC
from .settings import PROTOTYPE_DEFAULTS
from .standardised import StandardisedSpace

_CHUNK = 2048
_DISTANCE_TEMPERATURES = np.geomspace(0.002, 2, 16)  # of mean squared standard deviations
_RATIO_TEMPERATURES = np.geomspace(0.03, 2, 7)  # of logarithms of ratios; a fit each


def visited_states(agent: SAC | ProtoSAC, task: str, count: int, *, seed: int = 0) -> np.ndarray:
    """The first ``count`` states (count, *observation) of episodes from seeds ``seed``, ``seed + 1``, …

    Actions are sampled, as in a replay buffer, so that SAC is seen coming back onto its path. Less is learned where it
    takes its mean actions: 64 instead of 181 on LunarLander (distilled, seed 0, K = 32, 12,000 states, 5 episodes).
    """
    states: list[np.ndarray] = []
    env = make_task(task)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            while len(states) < count:
                observation, _ = env.reset(seed=seed)
                seed, ended = seed + 1, False
                while not ended:
                    states.append(observation)
                    action, _ = agent.predict(observation, deterministic=False)
                    observation, _, terminated, truncated, _ = env.step(action)
                    ended = terminated or truncated
    finally:
        env.close()
    return np.stack(states[:count])


def k_medoids(sac: SAC, states: np.ndarray, count: int, *, seed: int = 0) -> ProtoSAC:
    """SAC's own decisions at ``count`` typical states, blended by how near those are.

    Args:
        sac: a trained agent.
        states: (n, *observation) it visits, episode after episode.
        count: K.
        seed: of k-means.

    Raises:
        InterpError: fewer different states than prototypes among the first three quarters, or NaN among them.
    """
    agent, fitted, held_out = _blank(sac, states, space="observation", n_prototypes=count)
    assert isinstance(agent.actor.encoder, StandardisedSpace)
    agent.actor.encoder.observe(features_of(agent.actor, torch.as_tensor(fitted)))
    _place_on_medoids(agent, sac, fitted, seed)
    _choose_temperature(agent, _decisions(agent, sac, held_out), _DISTANCE_TEMPERATURES, lambda: None)
    return _finished(agent)


def distilled(sac: SAC, states: np.ndarray, count: int, *, epochs: int = 50, seed: int = 0) -> ProtoSAC:
    """SAC with prototypes in the latent space that it has already, which imitate it.

    Args:
        sac, states, count, seed: as for :func:`k_medoids`.
        epochs: in which the linear layer learns too; 0: it stays the identity, and the Gaussians alone are fitted.

    Raises:
        InterpError: as :func:`k_medoids`, or SAC's actor has no hidden layer.
    """
    layers = [layer for layer in sac.actor.latent_pi if isinstance(layer, nn.Linear)]
    if not layers:
        raise InterpError("this SAC agent has no hidden layer whose values could be compared. Use k_medoids.")
    width = layers[-1].out_features
    agent, fitted, held_out = _blank(sac, states, space="encoder", n_prototypes=count, latent_dim=width)
    actor = agent.actor
    actor.features_extractor.load_state_dict(sac.actor.features_extractor.state_dict())
    *below, last = (layer for layer in actor.encoder.modules() if isinstance(layer, nn.Linear))
    for own, its in zip(below, layers, strict=True):
        own.load_state_dict(its.state_dict())
        own.requires_grad_(False)
    nn.init.eye_(last.weight)
    nn.init.zeros_(last.bias)
    _place_on_medoids(agent, sac, fitted, seed)
    imitated, unseen = _decisions(agent, sac, fitted), _decisions(agent, sac, held_out)
    start = actor.means.detach().clone(), actor.log_stds.detach().clone()

    def fit() -> None:
        for parameter, value in zip((actor.means, actor.log_stds), start, strict=True):
            parameter.data.copy_(value)
        refit_gaussians(actor, imitated)

    _choose_temperature(agent, unseen, _RATIO_TEMPERATURES, fit)
    fit()
    if epochs:
        imitate(actor, imitated, epochs=epochs)
    return _finished(agent)


def _blank(sac: SAC, states: np.ndarray, **settings: object) -> tuple[ProtoSAC, np.ndarray, np.ndarray]:
    """An agent with SAC's critics and untrained prototypes; the states to imitate in, and those held out."""
    refuse_nan(states)
    own = PROTOTYPE_DEFAULTS | {"final_projection": True, "imitation_epochs": 50} | settings
    config = sac._config()
    config |= {"hyperparameters": hyperparameters(sac) | own}
    agent = ProtoSAC._rebuild(config, Path("this SAC agent"), sys.maxsize // 16, sac.device)
    agent.critic.load_state_dict(sac.critic.state_dict())
    agent.critic_target.load_state_dict(sac.critic_target.state_dict())
    agent.policy.set_training_mode(False)
    cut = len(states) * 3 // 4
    if len(distinct(states[:cut])) < agent.n_prototypes:
        raise InterpError(f"{len(states)} states are too few for {agent.n_prototypes} prototypes. Let SAC play longer.")
    return agent, states[:cut], states[cut:]


def _place_on_medoids(agent: ProtoSAC, sac: SAC, states: np.ndarray, seed: int) -> None:
    """Put prototypes on the states nearest to the centres of k-means in the actor's space, with SAC's Gaussians."""
    actor, candidates = agent.actor, distinct(states)
    with torch.no_grad():
        latents = actor.encode_features(features_of(actor, torch.as_tensor(candidates)))
    means = k_means(latents.cpu().numpy(), agent.n_prototypes, seed).cluster_centers_
    chosen = candidates[nearest_distinct(torch.as_tensor(means, device=latents.device), latents)]
    place(actor, chosen)
    gaussians = _gaussians(sac, chosen)
    actor.means.data.copy_(gaussians.mean)
    actor.log_stds.data.copy_(gaussians.std.log())
    actor.keep_in_bounds()  # tanh is flat there; beyond, one prototype would outweigh all others in a blend


@torch.no_grad()
def _gaussians(sac: SAC, states: np.ndarray) -> Blend:
    """SAC's own distribution of actions in each of the states (m, *observation)."""
    parts = torch.as_tensor(states).to(sac.device).split(_CHUNK)
    found = (sac.actor.get_action_dist_params(part)[:2] for part in parts)
    mean, log_std = (torch.cat(numbers) for numbers in zip(*found, strict=True))
    return Blend.of(mean, log_std.exp())


def _decisions(agent: ProtoSAC, sac: SAC, states: np.ndarray) -> Decisions:
    """What SAC does in states (m, *observation), beside what ``agent`` sees of them."""
    return Decisions(features_of(agent.actor, torch.as_tensor(states)), _gaussians(sac, states))


@torch.no_grad()
def _choose_temperature(
    agent: ProtoSAC, unseen: Decisions, temperatures: Iterable[float], fit: Callable[[], None]
) -> None:
    """Set the temperature whose actions, after ``fit()``, differ least from SAC's (mean square, of −1 to 1)."""
    actor, target = agent.actor, unseen.mixed.mode().tanh()

    def error(temperature: float) -> float:
        actor.temperature = float(temperature)
        fit()
        weights = actor.compare_latents(actor.encode_features(unseen.features)).weights
        return float((actor.mix(weights).mode().tanh() - target).square().mean())

    agent.temperature = float(min(temperatures, key=error))
    actor.temperature = agent.policy.prototype_kwargs["temperature"] = agent.temperature


def _finished(agent: ProtoSAC) -> ProtoSAC:
    for free, parameter in agent.actor.free_parameters():  # there was no policy before the projection
        free.copy_(parameter.detach())
    return agent
