"""SAC's policy with optimisers, critics and an actor that updates.py can make fast, and SAC's own Gaussian actor."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, Actor, SACPolicy
from torch import nn

from .kernels import FastCritic, run_mlp
from .mixtures import log_density


class FastSACPolicy(SACPolicy):
    """Stable-Baselines3's policy of SAC: the same parameters by the same names. Optimisers that can be fused are."""

    actor: Any  # a GaussianActor or a ProtoActor
    actor_parameters: list[torch.Tensor]
    critic_parameters: list[torch.Tensor]
    target_parameters: list[torch.Tensor]

    def __init__(self, *args: Any, **kwargs: Any):
        fusible = "fused" in inspect.signature(kwargs.get("optimizer_class", torch.optim.Adam)).parameters
        kwargs["optimizer_kwargs"] = ({"fused": True} if fusible else {}) | (kwargs.get("optimizer_kwargs") or {})
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # Walking the modules for these lists at every update would cost as much as the optimiser itself.
        self.actor_parameters = list(self.actor.parameters())
        self.critic_parameters = list(self.critic.parameters())
        self.target_parameters = list(self.critic_target.parameters())

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        return FastCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)


class GaussianActor(Actor):
    """Stable-Baselines3's actor of SAC, one Gaussian a state."""

    latent_pi: nn.Sequential
    log_std: nn.Linear  # type: ignore[assignment]  # a Parameter with gSDE, which has SB3's own actor

    def action_log_prob(  # type: ignore[override]  # noise is added, and Dict observations are not for it
        self, obs: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sampled actions (B, a) in [−1, 1] and their log-densities (B,); ``noise`` (B, a) is standard normal."""
        if noise is None:
            return super().action_log_prob(obs)
        features = self.extract_features(obs, self.features_extractor)
        layers, usual = self.latent_pi, self.activation_fn is nn.ReLU and len(self.latent_pi) > 0
        hidden = torch.relu(run_mlp(nn.Sequential(*list(layers)[:-1]), features)) if usual else layers(features)
        mean, log_std = self.mu(hidden), self.log_std(hidden).clamp(LOG_STD_MIN, LOG_STD_MAX)
        u = mean + log_std.exp() * noise
        return torch.tanh(u), log_density(u, mean, log_std.exp())


class GaussianPolicy(FastSACPolicy):
    """Stable-Baselines3's ``MlpPolicy``."""

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return (Actor if self.actor_kwargs["use_sde"] else GaussianActor)(**kwargs).to(self.device)


class GaussianCnnPolicy(GaussianPolicy):
    """Stable-Baselines3's ``CnnPolicy``."""

    def __init__(self, *args: Any, features_extractor_class: type[BaseFeaturesExtractor] = NatureCNN, **kwargs: Any):
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)
