"""Do map and codes survive what can change them? Other training seeds, and other moments of one training.

FDR is a function of the state, so only training can change it. Agents of one game look at the same states, which one
of them collected, and each pair's codes are compared by adjusted Rand index and NMI, their maps by Procrustes
disparity. Beside the codes stands what needs no module: k-means on each agent's feature h. A ceiling is k-means
started anew on one agent's h, a floor shuffled codes; and the network before training, whose weights are those that
every run of its seed started from, says how much of an agreement is the start's. Intervals leave out one environment
at a time: they speak about other levels for these agents, not about other seeds, which take three seeds or more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from ..agents.sppo.agents import PPO
from ..agents.sppo.config import changeable
from ..agents.sppo.run_folder import STEPS
from ..common.grouping import k_means
from ..common.statistics import (
    NOTHING,
    SIGNIFICANT,
    Interval,
    columns,
    holm,
    interval_of,
    jackknife_interval,
    jackknife_p,
)
from ..common.tsne import tsne
from ..runs.folder import Run, find_runs, load_agent, settings_of
from .groupings import agreement_without
from .stability import disparity, over_pairs
from .states import clusters_of, sample_rows
from .study import ClusterStudy

SEED, TIME, VARIANT, UNTRAINED, BOUND = "other seed", "other time", "other training", "before training", "bound"
SHUFFLED, RESTARTED = "itself, shuffled", "itself, k-means anew"
RESTARTS = 5
CODES, RIVAL = "codes alike", "k-means on h alike"  # adjusted Rand index
DISPARITIES = ("disparity of FDR", "disparity of t-SNE", "disparity of PCA-2")
OVER_RIVAL, OVER_START, OVER_PCA = "codes − k-means on h", "codes − before training", "FDR − PCA-2"


class View(NamedTuple):
    """What an agent makes of m states."""

    kind: str
    steps: int
    feature: np.ndarray  # float32 (m, 256), h
    fdr: np.ndarray  # float32 (m, 2), z
    code: np.ndarray  # int64 (m,)
    groups: np.ndarray  # int64 (m,), k-means on h, as many as codes
    tsne: np.ndarray  # float64 (m, 2), of h


def relatives(run: Run, folders: Iterable[Path] = ()) -> dict[str, tuple[str, Run]]:
    """SPPO runs of the game beside ``run`` and in ``folders``, and weights from earlier in its training.

    Returns:
        what it is, in words → what differs (:data:`SEED`, :data:`TIME` or :data:`VARIANT`, which another setting
        makes it, whatever its seed), and the run. By kind, name and steps.

    Raises:
        InterpError: one of them is damaged.
    """
    own = settings_of(run)
    found: dict[str, tuple[str, Run]] = {}
    for folder in dict.fromkeys([run.path.parent, *folders]):
        for other in [*find_runs(folder, algorithm="sppo", env=run.env), *find_runs(folder / run.name / STEPS)]:
            settings = settings_of(other)
            fixed = [f.name for f in own.differences(settings) if not changeable(f) and f.name != "seed"]
            if not fixed and (other.seed, other.timesteps) == (run.seed, run.timesteps):
                continue  # it is the run, or a copy
            kind = VARIANT if fixed else SEED if other.seed != run.seed else TIME
            words = [f"{name} = {getattr(settings, name)}" for name in fixed]
            words += [f"seed {other.seed}"] * (kind != TIME) + [f"{other.timesteps:,} steps"]
            found.setdefault(", ".join(words), (kind, other))
    order = [SEED, TIME, VARIANT]
    return dict(sorted(found.items(), key=lambda item: (order.index(item[1][0]), item[1][1].timesteps)))


@dataclass(frozen=True)
class Retraining:
    """Agents of one game on the same states; everything is computed once, when it is first asked for.

    Attributes:
        study: the agent that collected the states, of the run the others are relatives of.
        others: of :func:`relatives`.
        size: kept states that all look at.
    """

    study: ClusterStudy
    others: Mapping[str, tuple[str, Run]]
    size: int = 1000
    seed: int = 0

    @cached_property
    def rows(self) -> np.ndarray:
        """The common states, rows of the study's, int64 (m,)."""
        return sample_rows(self.study.states, self.size, seed=self.seed)

    @property
    def name(self) -> str:
        """The agent of the study, as ``others`` are called."""
        return f"seed {self.study.agent.config.seed}, {self.study.agent.timesteps:,} steps"

    @cached_property
    def views(self) -> dict[str, View]:
        """What each agent makes of them: that of the study first, itself before training last.

        Raises:
            InterpError: the study's agent has no codes.
        """
        agent, states = self.study.agent, self.study.states
        clusters_of(agent, "compare")
        own = (x[self.rows] for x in (states.feature, states.fdr, states.code))
        seen = {self.name: self._view("", agent.timesteps, *own)}
        frames = states.frames(self.rows)
        seen |= {name: self._seen_by(load_agent(run.path), kind, frames) for name, (kind, run) in self.others.items()}
        start = type(agent)(**asdict(agent.config), device=str(agent.device))
        return {**seen, f"seed {agent.config.seed}, 0 steps": self._seen_by(start, UNTRAINED, frames)}

    def _seen_by(self, agent: PPO, kind: str, frames: np.ndarray) -> View:
        seen = agent.embed(frames)
        assert seen.fdr is not None and seen.code is not None
        return self._view(kind, agent.timesteps, seen.feature, seen.fdr, seen.code)

    def _view(self, kind: str, steps: int, feature: np.ndarray, fdr: np.ndarray, code: np.ndarray) -> View:
        return View(
            kind, steps, feature, fdr, code, self._k_means(feature, self.seed), tsne(feature, seed=self.seed, jobs=1)
        )

    def _k_means(self, feature: np.ndarray, seed: int) -> np.ndarray:
        groups = min(self.study.states.num_codes, len(np.unique(feature, axis=0)))
        return k_means(feature, groups, seed).labels_.astype(np.int64)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a pair of agents, then two bounds: the study's agent against itself.

        Index ``agent``, ``and``: every agent with that of the study, and weights from earlier in training with the next
        later ones. Columns: ``what`` differs, ``states``; adjusted Rand index and NMI of the codes, adjusted Rand index
        of k-means on h, the share of states in matched codes; disparity of FDR, t-SNE and PCA-2 of h, with 95%
        intervals; of agents that were trained the differences between codes and k-means on h, between them and the
        network before training, and between FDR and PCA-2, with p, corrected over all of them (Holm).
        """
        views, own = self.views, self.views[self.name]
        start = next(name for name, view in views.items() if view.kind == UNTRAINED)
        pairs = [(name, self.name) for name in views if name != self.name]
        times = [name for name, view in views.items() if view.kind == TIME and view.steps < own.steps]
        pairs += list(zip(times[:-1], times[1:], strict=True))
        found = {pair: self._compared(views[pair[0]], views[pair[1]]) for pair in pairs}
        measured = {pair: _row(views[pair[0]].kind, of, len(self.rows)) for pair, of in found.items()}
        tests = {}
        for pair, of in found.items():
            if pair[0] != start:
                tests[pair, OVER_RIVAL] = of[CODES] - of[RIVAL]
                # Not over t-SNE, of which each fit is another map: one thread more was enough to turn that test around.
                tests[pair, OVER_PCA] = of[DISPARITIES[0]] - of[DISPARITIES[2]]
            if pair[0] != start and pair[1] == self.name:
                tests[pair, OVER_START] = of[CODES] - found[start, self.name][CODES]
        corrected = holm([jackknife_p(float(of[0]), of[1:]) for of in tests.values()])
        for ((pair, name), of), p in zip(tests.items(), corrected, strict=True):
            measured[pair] |= {**columns(name, _interval(of, (-2.0, 2.0))), f"{name} p": p}
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(self.rows))
        shuffled = own._replace(**{name: getattr(own, name)[order] for name in View._fields[2:]})
        again = [own.groups, *(self._k_means(own.feature, self.seed + 1 + i) for i in range(RESTARTS - 1))]
        anew = np.mean([agreement_without(a, b, self._env)[0] for a, b in combinations(again, 2)], axis=0)
        measured[SHUFFLED, self.name] = _row(BOUND, self._compared(shuffled, own), len(self.rows))
        measured[RESTARTED, self.name] = _row(BOUND, {RIVAL: anew}, len(self.rows))
        return pd.DataFrame.from_dict(measured, orient="index").rename_axis(["agent", "and"])

    @property
    def _env(self) -> np.ndarray:
        return self.study.states.env[self.rows]

    def _compared(self, a: View, b: View) -> dict[str, np.ndarray]:
        """Measure → its value, then without each of the E environments, float64 (1 + E,)."""
        keeps = [np.ones(len(self.rows), bool), *(self._env != e for e in np.unique(self._env))]
        codes, nmi = agreement_without(a.code, b.code, self._env)
        matched = matching(a.code, b.code)[a.code] == b.code
        maps = zip(*((v.fdr, v.tsne, PCA(2).fit_transform(v.feature)) for v in (a, b)), strict=True)
        apart = [np.array([disparity(x[keep], y[keep]) for keep in keeps]) for x, y in maps]
        return {
            CODES: codes,
            "NMI of codes": nmi,
            RIVAL: agreement_without(a.groups, b.groups, self._env)[0],
            "in matched codes": np.array([matched[keep].mean() for keep in keeps]),
            **dict(zip(DISPARITIES, apart, strict=True)),
        }

    @cached_property
    def over_seeds(self) -> tuple[Interval, Interval]:
        """Codes, and k-means on h: adjusted Rand index over all pairs of seeds with its 95% interval (jackknife over
        seeds); :data:`NOTHING` with fewer than three seeds."""
        seeds = [self.views[self.name], *(view for view in self.views.values() if view.kind == SEED)]
        if len(seeds) < 3:
            return NOTHING, NOTHING
        means, _ = over_pairs(
            seeds, lambda a, b: [adjusted_rand_score(a.code, b.code), adjusted_rand_score(a.groups, b.groups)]
        )
        codes, rival = (_interval(of, (-1.0, 1.0)) for of in means.T)
        return codes, rival

    @cached_property
    def verdict(self) -> str:
        """What :attr:`table` says about seeds, time and other trainings, and what is not there to say it of."""
        table, kinds = self.table, [view.kind for view in self.views.values()]
        seeds, codes, rival = 1 + kinds.count(SEED), *self.over_seeds
        if seeds == 1:
            said = ["One training seed: nothing can be said about seeds."]
        elif seeds == 2:
            said = ["Two training seeds: one pair, and no interval over seeds."]
        else:
            said = [f"Over all pairs of {seeds} training seeds codes agree by {codes}, k-means on h by {rival} (ARI)."]
        if TIME not in kinds:
            said.append("No weights from earlier in training (--keep-every): nothing can be said about training time.")
        for (name, other), row in table[~table["what"].isin([UNTRAINED, BOUND])].iterrows():
            said.append(
                f"{name} and {other} ({row['what']}): codes agree by {interval_of(row, CODES)} (ARI), "
                f"{_word(row, OVER_RIVAL, 'k-means on h')}, {interval_of(row, RIVAL)}"
                + (f", and {_word(row, OVER_START, 'before training')}" if pd.notna(row.get(OVER_START)) else "")
                + f". Disparity of FDR {interval_of(row, DISPARITIES[0])}, {_word(row, OVER_PCA, 'PCA-2 of h')}, "
                f"{interval_of(row, DISPARITIES[2])}; one fit of t-SNE {row[DISPARITIES[1]]:.1f}."
            )
        before = table[table["what"] == UNTRAINED].iloc[0]
        again, shuffled = table.loc[(RESTARTED, self.name)], table.loc[(SHUFFLED, self.name)]
        said.append(
            f"For scale: k-means anew on one agent's h {again[RIVAL]:.2f}, shuffled codes {abs(shuffled[CODES]):.2f}, "
            f"the same seed before training {before[CODES]:.2f} (n = {len(self.rows):,} states of "
            f"{len(np.unique(self._env))} environments; jackknife, Holm)."
        )
        return " ".join(said)


def matching(code: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each code of ``code`` (m,) the one of ``other`` (m,) that it shares most states with, one to one (Hungarian).

    Codes that find none, where ``code`` has more, get numbers of their own behind those of ``other``.

    Returns:
        int64 (largest of ``code`` + 1,).
    """
    counts = np.zeros((code.max() + 1, other.max() + 1))
    np.add.at(counts, (code, other), 1)
    match = np.full(len(counts), -1)
    rows, to = linear_sum_assignment(-counts)
    match[rows] = to
    match[match < 0] = counts.shape[1] + np.arange((match < 0).sum())
    return match


def _word(row: pd.Series, test: str, rival: str) -> str:
    shown = row[f"{test} p"] < SIGNIFICANT
    word = ("more than" if row[test] > 0 else "less than") if shown else "not shown to be more or less than"
    return f"{word} {rival} (p = {row[f'{test} p']:.2g})"


def _row(kind: str, found: Mapping[str, np.ndarray], states: int) -> dict[str, float | str]:
    row: dict[str, float | str] = {"what": kind, "states": states}
    for name, values in found.items():
        row |= columns(name, _interval(values, (-1.0, 1.0)))
    return row


def _interval(values: np.ndarray, bounds: tuple[float, float]) -> Interval:
    return jackknife_interval(float(values[0]), values[1:], bounds=bounds)
