"""Does the module add anything? Its codes beside other groupings of the same states, and a null without groups.

The rivals get as many groups as there are codes, and are fitted to the states they are measured on: k-means on the
feature h, on its first two principal components, on z, and on the features of a PPO agent that never had a module;
HDBSCAN on h chooses its own number and calls outliers noise. Whether training with the module changes h itself, the
same measures on PPO's own features, policy and values say (``for PPO``). The null draws states from a Gaussian with
h's mean and covariance: what is found there takes no groups. All measures leave one environment out at a time
(jackknife), so that differences between groupings have intervals too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import entr, softmax
from sklearn.metrics import silhouette_samples

from ..agents.sppo.agents import PPO
from ..common.graphs import CUT
from ..common.grouping import explained_variance, k_means
from ..common.statistics import (
    NOTHING,
    SIGNIFICANT,
    Interval,
    columns,
    group_sums,
    holm,
    interval_of,
    jackknife_interval,
    jackknife_p,
)
from .states import StateSet, has_codes, sample_rows, stretches
from .study import ClusterStudy

SAMPLE = 2000  # states of silhouettes and HDBSCAN, whose cost grows with their square
LEAST = 20  # states of a group of HDBSCAN: 1% of those
_WORDS = {"higher": 1, "lower": -1}
CODES, RIVAL, ON_PPO = "codes", "k-means on h", "k-means on PPO's h"
NULL, BY_PPO = ", Gaussian states", ", for PPO"
MEASURES = {
    "silhouette in h": (-1.0, 1.0),
    "coherence": (-1.0, 1.0),
    "dwell (steps)": (0.0, np.inf),
    "variance of policy": (0.0, 1.0),
    "variance of values": (0.0, 1.0),
}  # and the ends of each
COMPARED = [measure for measure in MEASURES if measure != "dwell (steps)"]  # long stays are neither good nor bad


@dataclass(frozen=True)
class Groupings:
    """Groupings of the states of ``study``, measured alike; everything is computed once, when it is first asked for.

    Attributes:
        study: of an SPPO agent; of a PPO agent, which has no codes, only rivals that need none.
        ppo: an agent of the same game without the module, to group its features of the same frames.
    """

    study: ClusterStudy
    ppo: PPO | None = None
    seed: int = 0

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Name → group of every state, int64 (N,). Noise of HDBSCAN is one group more, the last."""
        from sklearn.decomposition import PCA

        states = self.study.states
        h = states.feature
        found = {RIVAL: self.k_means(h), "k-means on PCA-2 of h": self.k_means(PCA(2).fit_transform(h))}
        if self._has_codes:
            found = {CODES: states.code, **found, "k-means on z": self.k_means(states.fdr)}
        found["HDBSCAN on h"] = _hdbscan(h, sample_rows(states, SAMPLE, seed=self.seed))
        if self.ppo is not None:
            found[ON_PPO] = self.k_means(self._of_ppo[0])
        return found

    @cached_property
    def _of_ppo(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, logits and values of the PPO agent on the same frames."""
        assert self.ppo is not None
        parts = np.array_split(np.arange(len(self.study.states)), -(-len(self.study.states) // 2048))  # 12 kB a frame
        embeddings = (self.ppo.embed(self.study.states.frames(part)) for part in parts)
        seen = [(e.feature, e.logits, e.value) for e in embeddings]
        feature, logits, value = (np.concatenate(x) for x in zip(*seen, strict=True))
        return feature, logits, value

    @property
    def _has_codes(self) -> bool:
        return has_codes(self.study.agent)

    def k_means(self, points: np.ndarray) -> np.ndarray:
        groups = min(self.study.states.num_codes, len(np.unique(points, axis=0)))
        return k_means(points, groups, self.seed).labels_.astype(np.int64)

    # -- measures: the value, then the value without each of the E environments, float64 (1 + E,) ----------------------

    @cached_property
    def measured(self) -> dict[str, dict[str, np.ndarray]]:
        """Grouping → measure → float64 (1 + E,); the null has no time, and lacks what needs one.

        ``for PPO``: silhouette in PPO's own features, variance of its own policy and values.
        """
        states, rows = self.study.states, np.flatnonzero(self.study.states.kept)
        policy, values = self.study.policy[rows].astype(np.float64), states.value[rows].astype(np.float64)
        sample = np.searchsorted(rows, sample_rows(states, SAMPLE, seed=self.seed))
        found = {}
        for name, label in self.labels.items():
            at_rows = self._at_rows(states.feature[rows], label[rows], policy, values, states.env[rows], sample)
            found[name] = at_rows | self._in_time(label)
        if self.ppo is not None:
            feature, logits, value = (x[rows] for x in self._of_ppo)
            seen = softmax(logits.astype(np.float64), axis=1), value.astype(np.float64)
            of = self._at_rows(feature, self.labels[ON_PPO][rows], *seen, states.env[rows], sample)
            found[ON_PPO + BY_PPO] = of
        h = _gaussian(states.feature[rows], self.seed)
        env = np.arange(len(h)) % self._envs  # they are independent: any split into environments will do
        nulls = {RIVAL + NULL: (self.k_means(h), np.zeros(len(h), np.int64))}
        if self._has_codes:
            code = self._codes_of(h)
            nulls = {CODES + NULL: (code, code), RIVAL + NULL: (nulls[RIVAL + NULL][0], code)}
        for name, (label, code) in nulls.items():
            logits, value = self.study.agent.heads(h, code)
            policy, values = softmax(logits.astype(np.float64), axis=1), value.astype(np.float64)
            found[name] = self._at_rows(h, label, policy, values, env, sample)
        return found

    @property
    def _envs(self) -> int:
        return int(self.study.states.meta["num_envs"])

    def _codes_of(self, h: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.study.agent.network.semantic(torch.from_numpy(h).to(self.study.agent.device))[1].cpu().numpy()

    def _at_rows(
        self, h: np.ndarray, label: np.ndarray, policy: np.ndarray, values: np.ndarray, env: np.ndarray, of: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What needs no time; the silhouette over the rows ``of``, NaN unless there are two groups or more."""
        groups, several = int(label.max()) + 1, 1 < len(np.unique(label[of])) < len(of)
        width = silhouette_samples(h[of], label[of]) if several else np.full(len(of), np.nan)

        def explained(samples: np.ndarray) -> np.ndarray:
            return self._left_out(env, lambda keep: explained_variance(samples[keep], label[keep], groups))

        return {
            "silhouette in h": self._ratio(width, np.ones(len(of)), env[of]),
            "variance of policy": explained(policy),
            "variance of values": explained(values[:, None]),
        }

    def _in_time(self, label: np.ndarray) -> dict[str, np.ndarray]:
        """Dwell time over complete stretches, and coherence: of the steps that would leave a group by chance, the share
        that stay: (stays − by chance) / (1 − by chance), chance being the states of each episode in any order."""
        states = replace(self.study.states, code=label)
        stays, chance = self._stays(states)
        complete = stretches(states)
        complete = complete[complete["next"] != CUT]
        dwell = self._ratio(complete["length"].to_numpy(), np.ones(len(complete)), complete["env"].to_numpy())
        with np.errstate(invalid="ignore", divide="ignore"):
            coherence = (stays - chance) / (1 - chance)
        return {"coherence": coherence, "dwell (steps)": dwell, "stays": stays, "stays by chance": chance}

    def _stays(self, states: StateSet) -> tuple[np.ndarray, np.ndarray]:
        """Share of steps within episodes that keep the group, and what it is in a random order of each episode."""
        n = self._envs
        label, done = (column.reshape(-1, n) for column in (states.code, states.done))
        episode = np.cumsum(np.vstack([np.zeros(n, bool), done[:-1]]), axis=0) * n + np.arange(n)
        of = pd.DataFrame({"episode": episode.ravel(), "label": states.code})
        alike = of.groupby(["episode", "label"])["label"].transform("size").to_numpy()
        length = of.groupby("episode")["label"].transform("size").to_numpy()
        within, env = ~done[:-1], np.broadcast_to(np.arange(n), done[:-1].shape)[~done[:-1]]
        observed = self._ratio((label[1:] == label[:-1])[within], np.ones(len(env)), env)
        return observed, self._ratio((alike - 1) / length, (length - 1) / length, states.env)

    def _ratio(self, numerator: np.ndarray, denominator: np.ndarray, env: np.ndarray) -> np.ndarray:
        totals = [group_sums(x, env, self._envs) for x in (numerator, denominator)]
        over, under = (total.sum() - np.append(0.0, total) for total in totals)
        with np.errstate(invalid="ignore", divide="ignore"):
            return over / under

    def _left_out(self, env: np.ndarray, measure: Callable[[np.ndarray], float]) -> np.ndarray:
        keeps = [np.ones(len(env), bool), *(env != e for e in range(self._envs))]
        return np.array([measure(keep) for keep in keeps])

    # -- tables -------------------------------------------------------------------------------------------------------

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a grouping, then PPO by itself and the nulls.

        Columns: ``states`` (n), ``groups``, ``noise`` (share of the states), every measure with its 95% interval, and
        the shares of steps that stay, observed and by chance.
        """
        kept, rows = self.study.states.kept, {}
        for name, of in self.measured.items():
            label = self.labels.get(name)
            row: dict[str, float] = {"states": int(kept.sum()), "groups": np.nan, "noise": np.nan}
            if label is not None:
                row["groups"] = len(np.unique(label[kept])) - name.startswith("HDBSCAN")
                row["noise"] = float((label[kept] == label.max()).mean()) if name.startswith("HDBSCAN") else 0.0
            for measure, bounds in MEASURES.items():
                row |= columns(measure, _interval(of.get(measure), bounds))
            row |= {share: of[share][0] if share in of else np.nan for share in ("stays", "stays by chance")}
            rows[name] = row
        return pd.DataFrame(rows).T.rename_axis("grouping").astype({"states": int})

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """Every two groupings of the kept states: adjusted Rand index (0: chance) and NMI, with 95% intervals."""
        kept, found = self.study.states.kept, {}
        for (one, a), (other, b) in itertools.combinations(self.labels.items(), 2):
            scores = agreement_without(a[kept], b[kept], self.study.states.env[kept])
            rand, nmi = (_interval(values, (-1.0, 1.0)) for values in scores)
            found[one, other] = {"states": kept.sum(), **columns("adjusted Rand", rand), **columns("NMI", nmi)}
        table = pd.DataFrame(found).T.rename_axis(["grouping", "and"])
        return table.astype({"states": int})

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Codes minus k-means on h by the measures with a better end; the codes' silhouette minus that in the null.

        Returns:
            index ``against``, ``measure``; ``difference`` with its 95% interval; ``p``, corrected over the rows (Holm).
        """
        pairs = [(RIVAL, measure) for measure in COMPARED] + [(CODES + NULL, "silhouette in h")]
        apart = {(other, m): self.measured[CODES][m] - self.measured[other][m] for other, m in pairs}
        corrected = holm([jackknife_p(values[0], values[1:]) for values in apart.values()])
        rows = {
            pair: {**columns("difference", _interval(values, (-np.inf, np.inf))), "p": p}
            for (pair, values), p in zip(apart.items(), corrected, strict=True)
        }
        return pd.DataFrame(rows).T.rename_axis(["against", "measure"])

    @cached_property
    def verdict(self) -> str:
        """What :attr:`table` and :attr:`differences` say about what the module adds."""
        shares = {name: interval_of(self.table.loc[name], "variance of policy") for name in (CODES, RIVAL)}
        codes, rival = (f"{x.mean:.1%} [{x.low:.1%}, {x.high:.1%}]" for x in shares.values())
        found = self.differences["difference"].where(self.differences["p"] < SIGNIFICANT, 0.0)
        named = {word: [m for m in COMPARED if sign * found[RIVAL, m] > 0] for word, sign in _WORDS.items()}
        seen = "; ".join(f"{word} in {', '.join(of)}" for word, of in named.items() if of) or "alike by all measures"
        ppo = ""
        if self.ppo is not None:
            of = self.table.loc[ON_PPO + BY_PPO]
            ppo = (
                f" Without the module: k-means on PPO's own feature explains {of['variance of policy']:.1%} of PPO's "
                f"policy, with silhouette {interval_of(of, 'silhouette in h')} against "
                f"{interval_of(self.table.loc[RIVAL], 'silhouette in h')} in SPPO's feature (one run of each)."
            )
        more = found[CODES + NULL, "silhouette in h"] > 0
        widths = [f"{self.table.loc[name, 'silhouette in h']:.2f}" for name in (CODES, CODES + NULL)]
        return (
            f"The codes explain {codes} of the policy's variance, k-means on h {rival}: the codes add "
            f"{'to' if found[RIVAL, 'variance of policy'] > 0 else 'nothing to'} what k-means finds in h."
            f"{ppo} Compared with k-means on h, the codes are {seen} ({len(self.differences)} comparisons, Holm, "
            f"n = {self._envs} environments). Their silhouette in h is {widths[0]}, on Gaussian states, which have no "
            f"groups, {widths[1]}: {'more than' if more else 'not shown to be more than'} a cloud cut in pieces."
        )


def agreement_scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted Rand index (Hubert & Arabie 1985) and NMI (over the mean entropy) of contingency tables (R, A, B).

    scikit-learn's, for R tables at once → float64 (R,) each; NaN where both groupings have one group.
    """

    def pairs(x: np.ndarray) -> np.ndarray:
        return (x * (x - 1) / 2).sum(-1)

    def entropy(x: np.ndarray) -> np.ndarray:
        return entr(x / x.sum(-1, keepdims=True)).sum(-1)

    flat, a, b = counts.reshape(len(counts), -1), counts.sum(2), counts.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = pairs(a) * pairs(b) / pairs(flat.sum(1, keepdims=True))
        rand = (pairs(flat) - chance) / ((pairs(a) + pairs(b)) / 2 - chance)
        return rand, 2 * (entropy(a) + entropy(b) - entropy(flat)) / (entropy(a) + entropy(b))


def agreement_without(a: np.ndarray, b: np.ndarray, env: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`agreement_scores` of two groupings (m,), then without each of the E environments → float64 (1 + E,)."""
    env = np.unique(env, return_inverse=True)[1]
    counts = np.zeros((env.max() + 1, a.max() + 1, b.max() + 1))
    np.add.at(counts, (env, a, b), 1)
    return agreement_scores(np.concatenate([[counts.sum(0)], counts.sum(0) - counts]))


def _interval(values: np.ndarray | None, bounds: tuple[float, float]) -> Interval:
    return NOTHING if values is None else jackknife_interval(float(values[0]), values[1:], bounds=bounds)


def _hdbscan(points: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """HDBSCAN of the rows ``sample`` → groups of all ``points``, that of the nearest, int64 (N,); noise is last."""
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import NearestNeighbors

    found = HDBSCAN(min_cluster_size=min(LEAST, len(sample)), copy=True).fit_predict(points[sample]).astype(np.int64)
    found[found < 0] = found.max() + 1
    return found[NearestNeighbors(n_neighbors=1).fit(points[sample]).kneighbors(points, return_distance=False)[:, 0]]


def _gaussian(points: np.ndarray, seed: int) -> np.ndarray:
    """As many points with the mean and covariance of ``points`` (n, d) and nothing else → float32 (n, d)."""
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_normal(points.mean(0), np.cov(points.T), size=len(points), method="eigh")
    return drawn.astype(np.float32)
