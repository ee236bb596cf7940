"""The prototype actor: compare a state with K prototypes, mix their Gaussians, squash (methods 3.1–3.3).

    space          z, where states are compared              similarity s_k, D_k = ‖z − p_k‖²
    observation    what is observed, standardised, metric    −D_k: only what is near counts
    encoder        f(s) / ‖f(s)‖, an MLP                     log((D_k + 1) / (D_k + ε)), as in ProtoPNet

    w = softmax(s / temperature)
    u ~ mixture of N(μ_k, σ_k²) by w,  action = tanh(u)

An encoder may put states side by side that nobody would call alike, and by ratios of distances the nearest prototype
leads however far it is: that form is kept to be compared with. Its latents live on the unit sphere, where the auxiliary
losses can't be satisfied by shrinking the encoder's output.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from ...common.errors import InterpError
from .checks import check_settings
from .kernels import run_mlp
from .losses import similarities, squared_distances
from .mixtures import MIXTURES, Blend, GaussianMixture
from .policies import FastSACPolicy
from .settings import PROTOTYPE_DEFAULTS
from .standardised import StandardisedSpace
from .vision import CoarseFrames

SPACES = ("observation", "encoder")
POLICY_SETTINGS = ("space", "n_prototypes", "latent_dim", "temperature", "mixture")
_LOG_STD_MIN, _LOG_STD_MAX = -20.0, 2.0  # the limits of SAC's own actor
# Training stays within these. A Gaussian's numbers are parameters of their own, which Adam moves by the learning rate a
# step: from where tanh is flat, or beyond the limits above, where no gradient comes from, they took tens of thousands
# of steps to come back, or never did. On HalfCheetah entropy could no longer be raised then, its coefficient grew from
# 0.13 to 0.85, and the return fell.
_MOST_MEAN, _LEAST_LOG_STD = 5.0, -5.0
NEEDS_BOX = (
    "ProtoSAC needs Box observations. Turn Dict observations into one array with "
    "gymnasium.wrappers.FlattenObservation and use MlpPolicy."
)


class Comparison(NamedTuple):
    """How B states compare with K prototypes: latents (B, d), squared distances, similarities, weights (B, K)."""

    latents: torch.Tensor
    distances: torch.Tensor
    similarities: torch.Tensor
    weights: torch.Tensor


class ProtoActor(BasePolicy):
    """SAC's actor with a prototype layer in place of its two linear heads.

    Parameters and buffers beside the encoder:
        prototypes (K, f): what the feature extractor makes of a state; (K, d) in the encoder's space: directions there.
        means, log_stds (K, a): each prototype's Gaussian before the squash, independent of the state.
        prototype_observations (K, *observation): the states the prototypes were projected on.
        free_prototypes, free_means, free_log_stds (K, a), free_encoder_…: as they were just before the last
            projection.
        followers (K,): how many states of a batch follow each prototype (standardised.py).
        placed: whether the prototypes have been started on states.
        observed: whether prototype_observations holds anything yet.
        projected: whether prototypes are where their last projection put them (training moves them on).

    Args:
        n_prototypes: K.
        temperature: of the softmax over similarities; lower means fewer prototypes share a decision.
        mixture: ``"blend"`` or ``"gmm"`` (see mixtures.py).
        space: ``"observation"`` or ``"encoder"``, above.
        latent_dim: d of the encoder's space; that of observations has as many as features.
        The others are those of Stable-Baselines3's ``Actor``.
    """

    action_space: spaces.Box
    encoder: nn.Sequential | StandardisedSpace
    followers: torch.Tensor
    prototype_observations: torch.Tensor
    placed: torch.Tensor
    observed: torch.Tensor
    projected: torch.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_prototypes: int = 16,
        latent_dim: int = 32,
        temperature: float = 0.15,
        mixture: str = "blend",
        space: str = "observation",
    ):
        extraction: dict[str, Any] = dict(features_extractor=features_extractor, normalize_images=normalize_images)
        super().__init__(observation_space, action_space, squash_output=True, **extraction)
        self.net_arch, self.features_dim, self.activation_fn = net_arch, features_dim, activation_fn
        self.n_prototypes, self.latent_dim = n_prototypes, latent_dim
        self.temperature, self.mixture, self.space = temperature, mixture, space

        action_dim = get_action_dim(action_space)
        if space == "encoder":
            self.encoder = nn.Sequential(*create_mlp(features_dim, latent_dim, net_arch, activation_fn))
            self.prototypes = nn.Parameter(F.normalize(torch.randn(n_prototypes, latent_dim), dim=1))
        else:
            self.encoder = StandardisedSpace(features_dim)
            self.prototypes = nn.Parameter(torch.randn(n_prototypes, features_dim), requires_grad=False)
            self.register_buffer("followers", torch.zeros(n_prototypes))
        # Spread-out means and σ = 1 make the first policies explore; small ones lagged SAC on LunarLander.
        self.means = nn.Parameter(torch.randn(n_prototypes, action_dim))
        self.log_stds = nn.Parameter(torch.zeros(n_prototypes, action_dim))
        shape = observation_space.shape or ()
        observations = torch.zeros((n_prototypes, *shape), dtype=_torch_dtype(observation_space))
        self.register_buffer("prototype_observations", observations)
        for name, parameter in self._projected_parameters():
            self.register_buffer(_free(name), parameter.detach().clone())
        for flag in ("placed", "observed", "projected"):
            self.register_buffer(flag, torch.zeros((), dtype=torch.bool))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = ("net_arch", "features_dim", "activation_fn", "features_extractor", *POLICY_SETTINGS)
        return super()._get_constructor_parameters() | {name: getattr(self, name) for name in own}

    def encode(self, obs: PyTorchObs) -> torch.Tensor:
        """Where observations (B, *observation) lie in the actor's space, (B, d)."""
        return self.encode_features(self.extract_features(obs, self.features_extractor))

    def encode_features(self, features: torch.Tensor) -> torch.Tensor:
        """The same of what the feature extractor made of them (B, f)."""
        if isinstance(self.encoder, StandardisedSpace):
            return self.encoder(features)
        return F.normalize(run_mlp(self.encoder, features), dim=1)

    def located(self) -> torch.Tensor:
        """The prototypes (K, d) as they are compared with."""
        if self.space == "observation":
            return self.encode_features(self.prototypes)
        return F.normalize(self.prototypes, dim=1)

    @torch.no_grad()
    def move_prototypes(self, features: torch.Tensor, index: Any = slice(None)) -> None:
        """Put prototypes on states, given what the feature extractor makes of them (n, f)."""
        self.prototypes[index] = features if self.space == "observation" else self.encode_features(features)

    def stds(self) -> torch.Tensor:
        """Standard deviations (K, a) of the prototypes' Gaussians before the squash."""
        return self.log_stds.clamp(_LOG_STD_MIN, _LOG_STD_MAX).exp()

    @torch.no_grad()
    def keep_in_bounds(self) -> None:
        """Take Gaussians that an optimiser moved too far back to where gradients reach them."""
        self.means.clamp_(-_MOST_MEAN, _MOST_MEAN)
        self.log_stds.clamp_(_LEAST_LOG_STD, _LOG_STD_MAX)

    def _projected_parameters(self) -> list[tuple[str, nn.Parameter]]:
        own = ("prototypes", "means", "log_stds")
        return [*((name, getattr(self, name)) for name in own), *self.encoder.named_parameters("encoder")]

    def free_parameters(self) -> list[tuple[torch.Tensor, nn.Parameter]]:
        """Pairs (as it was just before the last projection, as it is) of what projection changes."""
        return [(getattr(self, _free(name)), parameter) for name, parameter in self._projected_parameters()]

    def compare(self, obs: PyTorchObs) -> Comparison:
        """Compare observations (B, *observation) with the prototypes."""
        return self.compare_latents(self.encode(obs))

    def compare_latents(self, latents: torch.Tensor, prototypes: torch.Tensor | None = None) -> Comparison:
        """Compare latents (B, d) with the prototypes, or with others in their places (K, d)."""
        distances = squared_distances(latents, self.located() if prototypes is None else prototypes)
        s = -distances if self.space == "observation" else similarities(distances)
        return Comparison(latents, distances, s, torch.softmax(s / self.temperature, dim=1))

    def mix(self, weights: torch.Tensor) -> Blend | GaussianMixture:
        """The action distribution that weights (B, K) give rise to."""
        return MIXTURES[self.mixture](weights, self.means, self.stds())

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        """Actions (B, a) in [−1, 1]."""
        mixed = self.mix(self.compare(obs).weights)
        return torch.tanh(mixed.mode() if deterministic else mixed.sample()[0])

    def action_log_prob(
        self, obs: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sampled actions (B, a) in [−1, 1] and their exact log-densities (B,); ``noise`` as in mixtures.py."""
        mixed = self.mix(self.compare(obs).weights)
        u, _ = mixed.sample(noise)
        return torch.tanh(u), mixed.log_prob(u)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        return self(observation, deterministic)


class ProtoSACPolicy(FastSACPolicy):
    """SAC's policy (actor, twin critics, targets) with a :class:`ProtoActor`; the critics are SAC's own.

    Args:
        n_prototypes, latent_dim, temperature, mixture: see :class:`ProtoActor`.
        The others are those of Stable-Baselines3's ``SACPolicy``, gSDE excepted.

    Raises:
        InterpError: a prototype setting is out of range, or gSDE is asked for.
    """

    actor: ProtoActor

    def __init__(self, *args: Any, use_sde: bool = False, **kwargs: Any):
        if use_sde:
            raise InterpError("ProtoSAC has no gSDE: its noise belongs to the prototypes. Use action_noise instead.")
        own = {name: kwargs.pop(name, PROTOTYPE_DEFAULTS[name]) for name in POLICY_SETTINGS}
        check_settings(own)
        self.prototype_kwargs = own
        for name, known in (("mixture", tuple(MIXTURES)), ("space", SPACES)):
            if own[name] not in known:  # compared, not hashed: a damaged config may hold a list
                raise InterpError(f"unknown {name} '{own[name]!s:.80}'. Choose one of: {', '.join(known)}.")
        super().__init__(*args, **kwargs)

    def make_actor(  # type: ignore[override]  # as above
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> ProtoActor:
        space = self.observation_space
        if self.prototype_kwargs["space"] == "observation" and isinstance(space, spaces.Box) and is_image_space(space):
            features_extractor = CoarseFrames(space)  # what a person would call alike, not a CNN
        kwargs = self._update_features_extractor(self.net_args, features_extractor)
        return ProtoActor(**kwargs, **self.prototype_kwargs).to(self.device)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # Gaussians have a group, and so a learning rate, of their own; in the order in which saved states number them.
        (_, prototypes), *gaussians = list(self.actor.named_parameters())[:3]
        assert [name for name, _ in gaussians] == ["means", "log_stds"]
        groups = [[prototypes], [each for _, each in gaussians], list(self.actor.parameters())[3:]]
        settings = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.actor.optimizer = self.optimizer_class([{"params": group} for group in groups if group], **settings)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.prototype_kwargs


class ProtoCnnPolicy(ProtoSACPolicy):
    """:class:`ProtoSACPolicy` for images, with Stable-Baselines3's NatureCNN as feature extractor."""

    def __init__(self, *args: Any, features_extractor_class: type[BaseFeaturesExtractor] = NatureCNN, **kwargs: Any):
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)


def _free(name: str) -> str:
    return "free_" + name.replace(".", "_")  # a buffer's name has no dots


def _torch_dtype(space: spaces.Space) -> torch.dtype:
    if not isinstance(space, spaces.Box):
        raise InterpError(NEEDS_BOX)
    # Numbers in bytes that are no image reach the policy as floats, and VecNormalize makes others of them.
    return torch.uint8 if is_image_space(space) else torch.float32
