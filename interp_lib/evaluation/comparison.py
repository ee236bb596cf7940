"""Algorithm and algorithm over the tasks where both have runs: PPO and SPPO, SAC and ProtoSAC."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..agents.registry import ALGORITHMS
from ..common.errors import InterpError
from ..common.statistics import (
    NOTHING,
    Interval,
    Scores,
    columns,
    interquartile_mean,
    interval_of,
    mean_score,
    performance_profile,
    probability_of_improvement,
)
from ..runs.folder import Run
from .levels import Evaluations, same_steps, scaled


class Pairing(NamedTuple):
    """Runs of two algorithms on one task."""

    task: str
    runs: dict[str, list[Run]]  # by algorithm
    equal: bool  # all of them trained for the same number of steps, as ``same_steps`` says

    def steps(self, algorithm: str) -> int:
        """Training steps of the longest run of ``algorithm``."""
        return max(run.timesteps for run in self.runs[algorithm])


def pair_runs(runs: Iterable[Run], baseline: str, other: str) -> list[Pairing]:
    """Tasks on which both algorithms have runs, with the runs to compare.

    Those of the largest number of steps that both have; where they have none in common, the longest run of each
    (then ``equal`` is False, and no difference between them is one of methods). Variants are left out.
    """
    runs, pairings = [run for run in runs if not run.variant], []
    for task in sorted({run.env for run in runs}):
        found = {a: [run for run in runs if (run.env, run.algorithm) == (task, a)] for a in (baseline, other)}
        if not all(found.values()):
            continue
        budgets = sorted({run.timesteps for run in found[baseline]}, reverse=True)
        near = [{a: [r for r in of_a if same_steps(r.timesteps, n)] for a, of_a in found.items()} for n in budgets]
        equal = next((chosen for chosen in near if all(chosen.values())), None)
        longest = {a: [max(of_a, key=lambda run: run.timesteps)] for a, of_a in found.items()}
        pairings.append(Pairing(task, equal or longest, equal is not None))
    return pairings


@dataclass(frozen=True)
class AlgorithmComparison:
    """Two algorithms over tasks.

    Attributes:
        baseline, other: their names.
        pairings: the tasks and runs compared.
        equal: whether all tasks have equally trained runs of both.
        unit: what the intervals resample, ``episodes`` or ``runs`` (see :mod:`~interp_lib.common.statistics`).
        scores: by algorithm.
        random: normalised returns of a random policy by task, (N,) each.
        left_out: task → why it is not compared.
        improvement: P(other > baseline), over tasks and by task.
        unequal_improvement: the same for tasks in ``left_out`` because training differed.
    """

    baseline: str
    other: str
    pairings: list[Pairing]
    equal: bool
    unit: str
    scores: dict[str, Scores]
    random: dict[str, np.ndarray]
    left_out: dict[str, str]
    improvement: tuple[Interval, dict[str, Interval]]
    unequal_improvement: dict[str, Interval]

    @property
    def runs(self) -> list[Run]:
        """All runs compared."""
        return [run for pairing in self.pairings for runs in pairing.runs.values() for run in runs]

    @property
    def episodes(self) -> int:
        """Episodes of each run."""
        return min(len(scores.episodes) for scores in self.scores.values())

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """A row an algorithm: IQM and mean of the normalised returns, P(more than the baseline), and what they rest on.

        Columns of intervals are ``name``, ``name low`` and ``name high``.
        """
        rows = {}
        for algorithm, p in ((self.baseline, NOTHING), (self.other, self.improvement[0])):
            scores = self.scores[algorithm]
            row = columns("IQM", interquartile_mean(scores, unit=self.unit))
            row |= columns("mean", mean_score(scores, unit=self.unit))
            row |= columns(f"P(> {ALGORITHMS[self.baseline].title})", p)
            row |= {"tasks": len(scores.runs), "runs": len(scores.tasks), "episodes a run": self.episodes}
            rows[ALGORITHMS[algorithm].title] = row
        return pd.DataFrame(rows.values(), pd.Index(rows, name="agent"))

    @property
    def scale(self) -> str:
        """What a score is."""
        record = ALGORITHMS[self.baseline]
        return "normalised return" if record.procgen else f"return, random 0 to {record.title} 1"

    @property
    def thresholds(self) -> np.ndarray:
        """Those of a performance profile (T,), 0.02 apart or more: 0 to 1, and out to scores' outer percentiles."""
        scores = np.concatenate([s.episodes.ravel() for s in self.scores.values()])
        low, high = min(0.0, np.percentile(scores, 1)), max(1.0, np.percentile(scores, 99))
        step = max(0.02, round((high - low) / 100, 2))
        # Round numbers, so that a score of exactly 1 falls onto a threshold and not beside it.
        return np.round(step * np.arange(np.floor(low / step) - 2, np.ceil(high / step) + 3), 6)

    def profile(self, algorithm: str) -> np.ndarray:
        """Performance profile of an algorithm, (3, T): share above each of ``thresholds``, and its 95% interval."""
        return performance_profile(self.scores[algorithm], self.thresholds, unit=self.unit)

    def random_profile(self) -> np.ndarray:
        """Share of a random policy's episodes above each of ``thresholds``, (T,), tasks weighing alike."""
        return np.mean([(values[:, None] > self.thresholds).mean(0) for values in self.random.values()], axis=0)

    def size(self) -> str:
        """What was measured, in a few words."""
        counts = sorted({n for scores in self.scores.values() for n in scores.runs.values()})
        runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return (
            f"{_count(len(self.pairings), 'task')}, n = {runs} run{'s' * (counts[-1] > 1)} a task, "
            f"{self.episodes} episodes a run"
        )

    def rests_on(self) -> str:
        """What was measured and what the intervals cover, for captions."""
        resampled = "runs within tasks; training seeds are covered"
        if self.unit == "episodes":
            resampled = (
                "episodes within runs, about these very agents; the spread between training seeds is not in them"
            )
        return f"{self.size()}. 95% intervals: stratified bootstrap of {resampled}"

    def conclusion(self) -> str:
        """What the numbers carry, and no more."""
        ours, theirs = ALGORITHMS[self.other].title, ALGORITHMS[self.baseline].title
        p, what = self.improvement[0], "a run" if self.unit == "runs" else "an episode"
        middle = {title: interval_of(row, "IQM") for title, row in self.table.iterrows()}
        numbers = (
            f"On {_count(len(self.pairings), 'task')} ({', '.join(pair.task for pair in self.pairings)}) {ours} has an "
            f"interquartile mean of {middle[ours]}, {theirs} of {middle[theirs]}; {what} of {ours} "
            f"returns more than one of {theirs} with probability {p}"
        )
        if not self.equal:
            steps = "; ".join(
                f"{pair.task}: {theirs} {pair.steps(self.baseline):,}, {ours} {pair.steps(self.other):,}"
                for pair in self.pairings
            )
            return f"{numbers}. But they were trained unequally ({steps} steps): this says nothing about the methods."
        verdict = f"{ours} is ahead" if p.low > 0.5 else f"{theirs} is ahead" if p.high < 0.5 else "neither is ahead"
        if self.unit == "episodes":
            verdict += " among these agents. For the methods that takes three training seeds a task or more"
        return f"{numbers}: {verdict}."


def compare(
    runs: Iterable[Run], baseline: str, other: str, evaluations: Evaluations, *, play: bool = False
) -> AlgorithmComparison | str:
    """Compare two algorithms of one family over all tasks where both have runs of equal training.

    Procgen returns are those on unseen levels with sampled actions, on the benchmark's scale; continuous ones run from
    the random policy (0) to the mean of the baseline's runs (1). Where no task has equally trained runs, all are
    compared and ``equal`` is False.

    Args:
        play: evaluate runs whose returns are not known; otherwise they are left out.

    Returns:
        the comparison, or a sentence why there is none.
    """
    left_out: dict[str, str] = {}
    measured: dict[str, tuple[Pairing, dict[str, list[np.ndarray]], np.ndarray]] = {}
    for pairing in pair_runs(runs, baseline, other):
        try:
            measured[pairing.task] = (pairing, *_normalised_returns(pairing, baseline, evaluations, play))
        except InterpError as problem:
            left_out[pairing.task] = str(problem)
    names = f"{ALGORITHMS[baseline].title} and {ALGORITHMS[other].title}"
    if not measured:
        why = "".join(f" {task}: {reason}" for task, reason in left_out.items())
        return f"No task where runs of both {names} have known returns.{why}"
    equal = [task for task, (pairing, *_) in measured.items() if pairing.equal]
    used = equal or list(measured)
    unequal = {}
    for task in [task for task in measured if task not in used]:
        pairing, returns, _ = measured[task]
        ours, theirs = (Scores.of({task: returns[a]}) for a in (other, baseline))
        unequal[task] = probability_of_improvement(ours, theirs, unit="episodes")[0]
        steps = [f"{ALGORITHMS[a].title} {pairing.steps(a):,}" for a in (baseline, other)]
        left_out[task] = f"trained unequally ({', '.join(steps)} steps)"
    scores = {a: Scores.of({task: measured[task][1][a] for task in used}) for a in (baseline, other)}
    unit = "runs" if all(s.unit == "runs" for s in scores.values()) else "episodes"
    improvement = probability_of_improvement(scores[other], scores[baseline], unit=unit)
    pairings, random = [measured[task][0] for task in used], {task: measured[task][2] for task in used}
    return AlgorithmComparison(
        baseline, other, pairings, bool(equal), unit, scores, random, left_out, improvement, unequal
    )


def _normalised_returns(
    pairing: Pairing, baseline: str, evaluations: Evaluations, play: bool
) -> tuple[dict[str, list[np.ndarray]], np.ndarray]:
    """Normalised returns of each run by algorithm, and of a random policy.

    Raises:
        InterpError: a run's returns are not known, or there is no scale.
    """
    known: dict[str, list[dict[str, np.ndarray]]] = {}
    for algorithm, runs in pairing.runs.items():
        known[algorithm] = [evaluations.complete(run) if play else evaluations.known(run) for run in runs]
        for run, values in zip(runs, known[algorithm], strict=True):
            if not values:
                raise InterpError(
                    f"{run.name} was released before returns were kept (`interp checkpoints release {run.path.name}` "
                    "in checkpoints/ measures it again)."
                )
    first = pairing.runs[baseline][0]
    random = known[baseline][0]["random"]
    if first.record.procgen:
        side, scale = "unseen", functools.partial(scaled, run=first)
    else:
        top = float(np.mean([values["eval"].mean() for values in known[baseline]]))
        side, scale = "eval", functools.partial(between, low=float(random.mean()), high=top)
    return {a: [scale(values[side]) for values in of_runs] for a, of_runs in known.items()}, scale(random)


def between(returns: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns on a scale of two policies: 0 at the mean return ``low`` of one, 1 at ``high`` of the other.

    Raises:
        InterpError: the second is no better than the first, so there is no scale.
    """
    if not high > low:
        raise InterpError(f"no scale from {low:.2f} to {high:.2f}: the reference is no better than its zero.")
    return (np.asarray(returns, np.float64) - low) / (high - low)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
