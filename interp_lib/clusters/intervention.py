"""Does the policy use the code? What changes when it reads another one than the state's own, at states and at play.

A *change* is a distribution over the K codes that the code is drawn from: as often as they occur (shuffled over
states), all alike (random), or always one (clamped). Only the heads read the code, which shifts h by k/K, in one place
(:meth:`.ActorCritic.heads`). Intervals at states resample environments, those of returns episodes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from ..agents.returns import evaluate_procgen
from ..agents.sppo.agents import PPO, Embedding
from ..common.statistics import (
    NOTHING,
    SIGNIFICANT,
    bootstrap_mean,
    columns,
    group_sums,
    holm,
    interval_of,
    ratio_interval,
    sign_flip_p,
)
from ..envs.actions import by_effect
from .states import StateSet, clusters_of
from .study import ClusterStudy

BAR = 0.01  # of the policy's mean entropy: a smaller divergence counts as none
WHOLE = "another state's h"
_KL, _SHARE = "KL (nats)", "KL (share of entropy)"


def code_changes(states: StateSet) -> dict[str, np.ndarray]:
    """What the code is drawn from instead: ``shuffled``, ``random``, ``always k`` → shares of codes, float64 (K,)."""
    num_codes = states.num_codes
    count = np.bincount(states.code[states.kept], minlength=num_codes)
    always = {f"always {k}": share for k, share in enumerate(np.eye(num_codes))}
    return {"shuffled": count / count.sum(), "random": np.full(num_codes, 1 / num_codes), **always}


def code_effect(study: ClusterStudy) -> pd.DataFrame:
    """What each change does to policy and value at the kept states, in expectation over the codes: no dice needed.

    Returns:
        index ``code``; ``states`` (n), KL(policy ‖ changed policy) in nats and over the policy's mean entropy; share of
        states whose most probable action becomes another, and one with another effect in the game; and mean |change of
        value| in standard deviations of the value over states. With 95% intervals. The last row is the scale: the whole
        feature of another state, h and code.

    Raises:
        InterpError: the agent has no codes.
    """
    agent, states = study.agent, study.states
    clusters_of(agent, "change")
    rows = np.flatnonzero(states.kept)
    feature, game = states.feature[rows], states.meta["game"]

    def look(code: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, value = agent.heads(feature, code)
        log = log_softmax(logits.astype(np.float64), axis=1)
        best = np.stack([log.argmax(1), by_effect(np.exp(log), game).argmax(1)])
        return log, best, value.astype(np.float64)

    log, best, value = look(states.code[rows])
    policy = np.exp(log)
    under = [look(np.full(len(rows), k)) for k in range(states.num_codes)]
    by_code = {
        _KL: np.stack([(policy * (log - other)).sum(1) for other, _, _ in under], 1),
        "other most probable action": np.stack([best[0] != other[0] for _, other, _ in under], 1),
        "other most probable effect": np.stack([best[1] != other[1] for _, other, _ in under], 1),
        "change of value (SD)": np.stack([abs(value - other) for _, _, other in under], 1) / (value.std() or 1.0),
    }

    def sums(values: np.ndarray) -> np.ndarray:
        return group_sums(values, states.env[rows], states.meta["num_envs"])

    count, entropy = sums(np.ones(len(rows))), sums(-(policy * log).sum(1))
    table = {}
    for name, shares in code_changes(states).items():
        means = {what: columns(what, ratio_interval(sums(of @ shares), count)) for what, of in by_code.items()}
        over = columns(_SHARE, ratio_interval(sums(by_code[_KL] @ shares), entropy))
        table[name] = {"states": len(rows), **means.pop(_KL), **over}
        for of in means.values():
            table[name] |= of
    apart = sums((policy * (log - log.mean(0))).sum(1))
    scale = {**columns(_KL, ratio_interval(apart, count)), **columns(_SHARE, ratio_interval(apart, entropy))}
    table[WHOLE] = {"states": len(rows), **scale}
    return pd.DataFrame(table).T.rename_axis("code").astype({"states": int})


class OtherCode:
    """``agent`` playing with heads that read a code drawn from ``shares`` (K,) in place of its own at every step."""

    def __init__(self, agent: PPO, shares: np.ndarray, *, seed: int = 0) -> None:
        self.config = agent.config
        self._agent, self._shares, self._rng = agent, shares, np.random.default_rng(seed)

    def embed(self, obs: np.ndarray) -> Embedding:
        """As :meth:`.PPO.embed`: features and code are the agent's own, logits and value are not."""
        own = self._agent.embed(obs)
        logits, value = self._agent.heads(own.feature, self._rng.choice(len(self._shares), len(obs), p=self._shares))
        return own._replace(logits=logits, value=value)


def changed_returns(agent: PPO, changes: Mapping[str, np.ndarray], episodes: int, *, seed: int = 0) -> pd.DataFrame:
    """Returns of whole episodes on unseen levels under each change (of :func:`code_changes`), and with the own code.

    Episode i is on the same level throughout, so differences are paired; sampled actions.

    Returns:
        index ``code`` (``own`` first); ``episodes``, ``return``, ``difference`` to ``own``, with 95% intervals, and
        ``p`` of no difference (sign flips), corrected over the changes (Holm).

    Raises:
        InterpError: no episodes.
    """
    players = {"own": agent} | {name: OtherCode(agent, shares, seed=seed) for name, shares in changes.items()}
    returns = {name: evaluate_procgen(player, episodes, seed=seed).returns for name, player in players.items()}
    differences = {name: of - returns["own"] for name, of in returns.items() if name != "own"}
    corrected = dict(zip(differences, holm([sign_flip_p(of) for of in differences.values()]), strict=True))
    table = {
        name: {
            "episodes": episodes,
            **columns("return", bootstrap_mean(of)),
            **columns("difference", bootstrap_mean(differences[name]) if name in differences else NOTHING),
            "p": corrected.get(name, np.nan),
        }
        for name, of in returns.items()
    }
    return pd.DataFrame(table).T.rename_axis("code").astype({"episodes": int})


def code_verdict(effect: pd.DataFrame, played: pd.DataFrame | None = None) -> str:
    """What :func:`code_effect` and, where measured, :func:`changed_returns` say together.

    The policy does not use the code where shuffled codes change it by less than :data:`BAR` of its entropy, with the
    whole interval, and no change of the code changes the return.
    """
    kl, share = interval_of(effect.loc["shuffled"], _KL), effect[_SHARE]
    worst = share.drop(WHOLE).idxmax()
    high = effect.loc["shuffled", f"{_SHARE} high"]
    small = high < BAR
    text = (
        f"codes of other states change it by {kl.mean:.4f} nats [{kl.low:.4f}, {kl.high:.4f}], {share['shuffled']:.2%} "
        f"of its entropy (interval up to {high:.2%}, bar {BAR:.0%}; at most {share[worst]:.2%}, {worst}; "
        f"n = {effect.loc['shuffled', 'states']:,} states), where the whole feature of other states changes it by "
        f"{effect.loc[WHOLE, _KL]:.2f} nats"
    )
    if played is None:
        verdict = "hardly reads" if small else "uses"
        return f"The policy {verdict} the code: {text}. Returns were not measured."
    changed = played.drop(index="own")
    least = changed["p"].idxmin()
    differs = changed.loc[least, "p"] < SIGNIFICANT
    difference = interval_of(changed.loc[least], "difference")
    return (
        f"The policy {'does not use' if small and not differs else 'uses'} the code: {text}, and returns "
        f"{'differ' if differs else 'do not differ detectably'} with other codes (of {len(changed)} changes the "
        f"clearest is {least}: {difference.mean:+.2f} [{difference.low:.2f}, {difference.high:.2f}], n = "
        f"{played.loc['own', 'episodes']} episodes a change, corrected p = {changed.loc[least, 'p']:.2f})."
    )
