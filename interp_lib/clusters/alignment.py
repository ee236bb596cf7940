"""Do groups of states tell what the game says of them? Concepts (:mod:`interp_lib.envs.concepts`) by grouping.

Every concept is made a few classes (:func:`classes`) and predicted from a state's group alone: of the classes, the one
that has the largest share of its own states in the group, argmax_c n(g, c) / n(c), counted on four fifths of the levels
and measured on the others, in turn. Balanced accuracy, the mean share of a class that is recognised, makes the common
classes worth no more than the rare. Groups themselves are found on all states, and without concepts. Intervals resample
levels, whose states are alike, and count anew (the probe alone isn't fitted anew); those of information leave out one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import entr
from scipy.stats import t

from ..common.errors import InterpError
from ..common.statistics import SIGNIFICANT, Interval, columns, holm, jackknife_interval, without_each
from ..envs.concepts import CONCEPTS
from .groupings import CODES, ON_PPO, RIVAL, Groupings
from .states import StateSet, clusters_of, sample_rows

BINS, MOST_VALUES = 3, 4  # of a continuous concept; distinct values of one that is none
LEAST_SHARE, LEAST_LEVELS = 0.02, 10  # of the states, and levels, that a class is found in, or it isn't judged
FOLDS, REPEATS, RESAMPLES = 5, 4, 500
BLOCK, RIDGE = 4, 1e-3  # the probe: side in pixels of what is averaged; ridge as a share of the mean variance
UNTRAINED, SHUFFLED, PIXELS = "k-means, untrained", "codes, shuffled", "pixels (probe)"
SHOWN = (CODES, RIVAL, "k-means on PCA-2 of h", ON_PPO, UNTRAINED)
AGAINST = (RIVAL, UNTRAINED, SHUFFLED)


def classes(values: np.ndarray, unit: str) -> np.ndarray:
    """The classes of a concept's ``values`` (n,) → int64 (n,); 0 is NaN, what the frame doesn't show.

    Degrees: the quarters around 0 (right), 90 (up), 180 and 270. Up to :data:`MOST_VALUES` distinct values: those. Else
    :data:`BINS` bins between quantiles, fewer where quantiles are equal; a value on a bound is below it.
    """
    found = np.zeros(len(values), np.int64)
    there = ~np.isnan(values)
    known = values[there]
    if unit == "degrees":
        bins = ((known + 45) % 360 // 90).astype(np.int64)
    elif len(distinct := np.unique(known)) <= MOST_VALUES:
        bins = np.searchsorted(distinct, known)
    else:
        bins = np.searchsorted(np.unique(np.quantile(known, np.arange(1, BINS) / BINS)), known)
    found[there] = 1 + bins
    return found


def judged_classes(values: np.ndarray, unit: str, level: np.ndarray) -> np.ndarray:
    """:func:`classes` that are frequent enough, numbered from 0 → int64 (n,); −1: a state of another class."""
    found = classes(values, unit)
    often = [
        c
        for c in np.unique(found)
        if (found == c).mean() >= LEAST_SHARE and len(np.unique(level[found == c])) >= LEAST_LEVELS
    ]
    number = np.full(found.max() + 1, -1)
    number[often] = np.arange(len(often))
    return number[found]


def mutual_information(counts: np.ndarray) -> np.ndarray:
    """Mutual information in nats of contingency tables (..., A, B), by the shares as they are → float64 (...)."""
    counts = np.asarray(counts, dtype=np.float64)
    total = np.maximum(counts.sum((-2, -1), keepdims=True), 1)

    def entropy(sizes: np.ndarray) -> np.ndarray:
        return entr(sizes / total).sum((-2, -1))

    return entropy(counts.sum(-1, keepdims=True)) + entropy(counts.sum(-2, keepdims=True)) - entropy(counts)


def corrected(values: np.ndarray) -> Interval:
    """A measure of all levels and without each, float64 (1 + L,), less its bias by the jackknife, with its interval.

    What is found by chance shrinks as one over the number of levels (Quenouille 1956). Corrections that count states
    (Miller & Madow) take states of a level for independent, and correct too little.
    """
    value, without = values[0], values[1:]
    levels = len(without)
    return jackknife_interval(levels * value - (levels - 1) * without.mean(), without, bounds=(-np.inf, np.inf))


def recognised(counts: np.ndarray, folds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """From ``counts`` (L, G, C) of groups and classes by level: states of each class that are told → (W, C).

    A level of fold f is told by what the levels of other folds say of the groups; the mean over R ways to choose
    ``folds`` (R, L). Once for each of the ``weights`` (W, L) of the levels: how often a resample has them.
    """
    levels, groups, number = counts.shape
    flat = counts.reshape(levels, -1)
    total, told = (weights @ flat).reshape(-1, groups, number), np.zeros((len(weights), number))
    for of in folds:
        for fold in np.unique(of):
            inside = of == fold
            held = (weights[:, inside] @ flat[inside]).reshape(total.shape)
            known = total - held
            guess = (known / np.maximum(known.sum(1, keepdims=True), 1)).argmax(2)
            told += (held * (guess[:, :, None] == np.arange(number))).sum(1)
    return told / len(folds)


def balanced_accuracy(told: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Mean share of a class that is told, from (..., C) states that are, and all → float64 (...)."""
    return (told / np.maximum(sizes, 1)).mean(-1)


@dataclass(frozen=True)
class Alignment:
    """Concepts against groupings; everything is computed once, when it is first asked for.

    Attributes:
        groupings: of an SPPO agent's states, which hold concepts.
        size: how many states, drawn from the kept ones.
    """

    groupings: Groupings
    size: int
    seed: int = 0

    @property
    def states(self) -> StateSet:
        """The states that concepts and groups are of."""
        return self.groupings.study.states

    @cached_property
    def rows(self) -> np.ndarray:
        """Which of the states are looked at."""
        return sample_rows(self.states, self.size, seed=self.seed)

    @cached_property
    def level(self) -> np.ndarray:
        """Which of the L levels each row is of, int64 (n,)."""
        return np.unique(self.states.level[self.rows], return_inverse=True)[1]

    @property
    def levels(self) -> int:
        """L."""
        return int(self.level.max()) + 1

    @cached_property
    def _folds(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        return np.stack([rng.permutation(self.levels) % FOLDS for _ in range(REPEATS)])

    @cached_property
    def classes(self) -> dict[str, np.ndarray]:
        """Concept → class of each row, int64 (n,), −1 where it isn't judged; concepts with two classes or more.

        Raises:
            InterpError: the agent has no codes, the states hold no concepts, or none can be judged on so few levels.
        """
        clusters_of(self.groupings.study.agent, "compare with concepts")
        named, kinds = self.states.concept_table.iloc[self.rows], CONCEPTS[self.states.meta["game"]]
        found = {c: judged_classes(named[c].to_numpy(), kinds[c].unit, self.level) for c in named}
        found = {c: of for c, of in found.items() if of.max() > 0}
        if not found:
            raise InterpError(f"no concept has two classes on {LEAST_LEVELS} levels or more. Collect more states.")
        return found

    @property
    def hidden(self) -> list[str]:
        """Those concepts that a frame doesn't show as such."""
        return [name for name in self.classes if not CONCEPTS[self.states.meta["game"]][name].shown]

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Grouping → group of each row, int64 (n,).

        Shuffled codes are those of another environment from another time on, so that they last as long.
        """
        of = {name: label[self.rows] for name, label in self.groupings.labels.items() if name in SHOWN}
        of[UNTRAINED] = self.groupings.k_means(self._untrained)
        code = self.states.code.reshape(-1, self.states.meta["num_envs"])
        rng = np.random.default_rng(self.seed)
        steps, envs = code.shape
        start = rng.integers(0, steps, envs)
        other = (np.arange(envs) + rng.integers(1, max(envs, 2))) % envs
        shuffled = code[(np.arange(steps)[:, None] + start) % steps, other]
        return {**of, SHUFFLED: shuffled.ravel()[self.rows]}

    @cached_property
    def _untrained(self) -> np.ndarray:
        """Features of the rows in a network as it is before training, float32 (n, 256)."""
        agent = self.groupings.study.agent
        fresh = type(agent)(agent.config.env, seed=self.seed, device=str(agent.device))
        parts = np.array_split(self.rows, -(-len(self.rows) // 2048))
        return np.concatenate([fresh.embed(self.states.frames(part)).feature for part in parts])

    # -- measures ------------------------------------------------------------------------------------------------------

    @cached_property
    def _weights(self) -> np.ndarray:
        """How often each level counts: once, then as resamples draw it, float64 (1 + RESAMPLES, L)."""
        drawn = np.random.default_rng(self.seed).multinomial(
            self.levels, np.full(self.levels, 1 / self.levels), RESAMPLES
        )
        return np.vstack([np.ones(self.levels), drawn])

    @cached_property
    def _sizes(self) -> dict[str, np.ndarray]:
        return {c: self._by_level(np.zeros_like(of), of)[:, 0] for c, of in self.classes.items()}

    def _by_level(self, label: np.ndarray, of: np.ndarray) -> np.ndarray:
        """States by level, group and class, float64 (L, G, C)."""
        judged = of >= 0
        counts = np.zeros((self.levels, label.max() + 1, of.max() + 1))
        np.add.at(counts, (self.level[judged], label[judged], of[judged]), 1)
        return counts

    @cached_property
    def measured(self) -> dict[tuple[str, str], tuple[np.ndarray | None, np.ndarray]]:
        """(concept, grouping) → mutual information of all levels and without each, float64 (1 + L,), not of the probe;
        balanced accuracy of all levels and of resamples, float64 (1 + RESAMPLES,)."""
        found: dict[tuple[str, str], tuple[np.ndarray | None, np.ndarray]] = {}
        guesses = self._probe()
        for concept, of in self.classes.items():
            sizes = self._weights @ self._sizes[concept]
            for name, label in self.labels.items():
                counts = self._by_level(label, of)
                told = recognised(counts, self._folds, self._weights)
                found[concept, name] = mutual_information(without_each(counts)), balanced_accuracy(told, sizes)
            right = self._by_level((guesses[concept] == of).astype(np.int64), of)
            told = self._weights @ right[:, 1] if right.shape[1] > 1 else np.zeros_like(sizes)
            found[concept, PIXELS] = None, balanced_accuracy(told, sizes)
        return found

    def _probe(self) -> dict[str, np.ndarray]:
        """Concept → class that a linear model of the pixels (means of blocks) says, on levels it wasn't fitted to.

        Ridge regression of 1[c] / n(c), so that the largest answer is by the same rule as that of groups.
        """
        side = 64 // BLOCK
        parts = [self.states.frames(part) for part in np.array_split(self.rows, -(-len(self.rows) // 2048))]
        means = [part.reshape(len(part), side, BLOCK, side, BLOCK, 3).mean((2, 4)) for part in parts]
        pixels = np.concatenate(means).reshape(len(self.rows), -1).astype(np.float32)
        guesses = {concept: np.empty_like(of) for concept, of in self.classes.items()}
        for fold in range(FOLDS):
            held = self._folds[0][self.level] == fold
            x = pixels - pixels[~held].mean(0)
            gram = x[~held].T @ x[~held]
            gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram)
            wanted = []
            for of in self.classes.values():
                one = np.eye(of.max() + 1, dtype=np.float32)[of[~held]] * (of[~held] >= 0)[:, None]
                wanted.append(one / np.maximum(one.mean(0), 1e-9) - 1)
            answers = x[held] @ np.linalg.solve(gram, x[~held].T @ np.hstack(wanted))
            ends = np.cumsum([one.shape[1] for one in wanted])[:-1]
            for guess, answer in zip(guesses.values(), np.split(answers, ends, axis=1), strict=True):
                guess[held] = answer.argmax(1)
        return guesses

    # -- tables -------------------------------------------------------------------------------------------------------

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a concept and grouping: mutual information (nats, less its bias) and balanced accuracy on held-out
        levels, with 95% intervals; ``states`` (n), ``classes``, and ``chance``, one over their number."""
        found = {}
        for (concept, name), (information, accuracy) in self.measured.items():
            sizes = self._sizes[concept]
            nats = Interval(*[np.nan] * 3) if information is None else corrected(information)
            found[concept, name] = {
                "states": sizes.sum(),
                "levels": int((sizes.sum(1) > 0).sum()),
                "classes": sizes.shape[1],
                **columns("mutual information (nats)", nats),
                **columns("balanced accuracy", self._interval(accuracy, 0.0)),
                "chance": 1 / sizes.shape[1],
            }
        table = pd.DataFrame(found).T.rename_axis(["concept", "grouping"])
        return table.astype({"states": int, "levels": int, "classes": int})

    def _interval(self, values: np.ndarray, least: float) -> Interval:
        """Of the first of ``values`` (1 + RESAMPLES,), by the spread of the others and Student's t for L − 1."""
        value, reach = float(values[0]), float(t.ppf(0.975, self.levels - 1) * values[1:].std())
        return Interval(value, max(value - reach, least), min(value + reach, 1.0))

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Balanced accuracy by the codes minus that by :data:`AGAINST`, on the same levels, with its 95% interval.

        Returns:
            index ``against``, ``concept``; ``p`` is corrected over the concepts (Holm).
        """
        found = {}
        for name in AGAINST:
            apart = {c: self.measured[c, CODES][1] - self.measured[c, name][1] for c in self.classes}
            sure = holm([2 * t.sf(abs(of[0]) / max(of[1:].std(), 1e-12), self.levels - 1) for of in apart.values()])
            for (concept, of), p in zip(apart.items(), sure, strict=True):
                found[name, concept] = {**columns("difference", self._interval(of, -1.0)), "p": p}
        return pd.DataFrame(found).T.rename_axis(["against", "concept"])

    @cached_property
    def verdict(self) -> str:
        """What :attr:`differences` say: whether codes name concepts better than groups that took no training."""
        total, told = len(self.classes), {name: self._told(name) for name in AGAINST}
        better, worse = told[RIVAL]
        found = "more semantic than" if len(better) > len(worse) else "no more semantic than"
        best = self.table["balanced accuracy"].unstack()[list(self.labels)].idxmax(axis=1).value_counts()
        return (
            f"Codes tell {len(told[SHUFFLED][0])} of {total} concepts better than codes of other levels do. "
            f"Than k-means on h, with as many groups, they tell {_named(better)} better and "
            f"{_named(worse)} worse: they are {found} what k-means finds in h. Than k-means on an untrained network "
            f"they tell {_named(told[UNTRAINED][0])} better and {_named(told[UNTRAINED][1])} worse. Most concepts are "
            f"told best by {best.index[0]} ({best.iloc[0]} of {total}). Balanced accuracy on held-out levels, "
            f"n = {len(self.rows):,} states of {self.levels} levels, Holm over {total} concepts."
        )

    def _told(self, against: str) -> tuple[list[str], list[str]]:
        of = self.differences.loc[against]
        sure = of[of["p"] < SIGNIFICANT]["difference"]
        return list(sure.index[sure > 0]), list(sure.index[sure < 0])


def _named(concepts: list[str]) -> str:
    return f"{len(concepts)} ({', '.join(concepts)})" if concepts else "none"
