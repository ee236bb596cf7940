"""From released runs to the comparisons of notebook 02: training and unseen levels, algorithm and algorithm, here and
published.

Returns come from the release where it kept them (``runs.released_returns``); others are played when asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .envs.procgen import normalised
from .errors import InterpError
from .evaluation import Interval, bootstrap_mean, evaluate_run
from .progress import read_progress
from .published import published_seeds
from .release import random_returns
from .resampling import columns
from .runs import SEMANTIC_ALGORITHMS, Run, agent_name, released_returns
from .statistics import (
    Scores,
    between,
    interquartile_mean,
    mean_difference,
    mean_score,
    performance_profile,
    probability_of_improvement,
)

SAME_STEPS = 1.05  # runs of up to 5% more steps count as equally trained


@dataclass
class Evaluations:
    """Returns of runs by side (a key of ``SIDE_TITLES``): kept by their release, or played now and remembered.

    Attributes:
        procgen_episodes, continuous_episodes: how many to play a side where none are kept.
    """

    procgen_episodes: int
    continuous_episodes: int
    _played: dict[Path, dict[str, np.ndarray]] = field(default_factory=dict)

    def known(self, run: Run) -> dict[str, np.ndarray]:
        """What was kept or played already: side → returns (N,); empty if nothing was."""
        if run.path not in self._played:
            self._played[run.path] = released_returns(run)
        return self._played[run.path]

    def complete(self, run: Run) -> dict[str, np.ndarray]:
        """As ``known``, after playing what is missing: Procgen on both sides and with both kinds of actions."""
        known = self.known(run)
        semantic = run.algorithm in SEMANTIC_ALGORITHMS
        episodes = self.procgen_episodes if semantic else self.continuous_episodes
        if not known.keys() & {"unseen", "eval"}:
            known |= {side: returns.returns for side, (returns, _) in evaluate_run(run, episodes).items()}
        if semantic and "unseen_deterministic" not in known:
            fixed = evaluate_run(run, episodes, deterministic=True)
            known |= {f"{side}_deterministic": returns.returns for side, (returns, _) in fixed.items()}
        if "random" not in known:
            known["random"] = random_returns(run, episodes).returns
        return known


# -- training levels and unseen levels ----------------------------------------------------------------------------


def level_table(runs: Sequence[Run], evaluations: Evaluations, *, normalise: bool = False) -> pd.DataFrame:
    """Mean returns of Procgen runs on training levels and unseen ones, and their gap.

    Args:
        normalise: on the scale of the benchmark, by the game's range in the run's mode.

    Returns:
        a row a run and kind of actions: ``game``, ``agent``, ``run``, ``steps``, ``actions``, then ``train``,
        ``unseen`` and ``gap`` (train − unseen) with their 95% intervals over episodes, and ``episodes`` (the fewer of
        the two sides). ``random`` has a row a game, without a gap.
    """
    rows: list[dict[str, Any]] = []
    random: dict[str, dict[str, Any]] = {}
    for run in runs:
        known = evaluations.complete(run)
        scaled = {side: _scaled(values, run) if normalise else values for side, values in known.items()}
        for actions, ending in (("sampled", ""), ("deterministic", "_deterministic")):
            train, unseen = scaled[f"train{ending}"], scaled[f"unseen{ending}"]
            rows.append(
                {"game": run.env, "agent": agent_name(run.algorithm), "run": run.name, "steps": run.timesteps}
                | {"actions": actions, **columns("train", bootstrap_mean(train))}
                | {**columns("unseen", bootstrap_mean(unseen)), **columns("gap", mean_difference(train, unseen))}
                | {"episodes": min(len(train), len(unseen))}
            )
        if len(scaled["random"]) > random.get(run.env, {}).get("episodes", 0):
            random[run.env] = {"game": run.env, "agent": "random", "actions": "uniform"}
            random[run.env] |= columns("unseen", bootstrap_mean(scaled["random"]))
            random[run.env] |= {"episodes": len(scaled["random"])}
    table = pd.DataFrame([*rows, *random.values()])
    table["steps"] = table["steps"].astype("Int64")  # random play has none
    return table.sort_values("game", kind="stable").reset_index(drop=True)


def gap_sentences(table: pd.DataFrame) -> list[str]:
    """What the gaps of :func:`level_table` carry, a sentence a kind of actions."""
    sentences = []
    for actions, part in table.dropna(subset="gap").groupby("actions", sort=False):
        worse, better = part[part["gap low"] > 0], part[part["gap high"] < 0]
        names = {"worse": worse, "better": better}
        found = [
            f"{len(rows)} did {how} on unseen levels ({', '.join(rows['agent'] + ' on ' + rows['game'])})"
            for how, rows in names.items()
            if len(rows)
        ]
        said = " and ".join(found) or "no interval of a gap leaves out 0"
        sentences.append(
            f"Actions {actions}: of {len(part)} agents {said}; the largest gap is {part['gap'].abs().max():.2f}."
            f" By chance one interval in 20 leaves out 0."
        )
    return sentences


def restricted_runs(runs: Iterable[Run]) -> list[Run]:
    """Procgen runs that were trained on a limited number of levels, fewest levels first."""
    limited = (run for run in runs if run.algorithm in SEMANTIC_ALGORITHMS and run.num_levels > 0)
    return sorted(limited, key=lambda run: (run.env, run.algorithm, run.num_levels))


def restricted_table(runs: Sequence[Run], evaluations: Evaluations) -> pd.DataFrame:
    """As :func:`level_table`, sampled actions only, with a column ``levels``: the number of training levels."""
    table = level_table(runs, evaluations)
    table = table[table["actions"] == "sampled"]
    levels = {run.name: run.num_levels for run in runs}
    return table.assign(levels=table["run"].map(levels)).reset_index(drop=True)


# -- algorithm and algorithm --------------------------------------------------------------------------------------


class Pairing(NamedTuple):
    """Runs of two algorithms on one task."""

    task: str
    runs: dict[str, list[Run]]  # by algorithm
    equal: bool  # all of them trained for the same number of steps, within SAME_STEPS

    def steps(self, algorithm: str) -> int:
        """Training steps of the longest run of ``algorithm``."""
        return max(run.timesteps for run in self.runs[algorithm])


def pair_runs(runs: Iterable[Run], baseline: str, other: str) -> list[Pairing]:
    """Tasks on which both algorithms have runs, with the runs to compare.

    Those of the largest number of steps that both have; where they have none in common, the longest run of each
    (then ``equal`` is False, and no difference between them is one of methods).
    """
    by_task: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        by_task.setdefault(run.env, {}).setdefault(run.algorithm, []).append(run)
    pairings = []
    for task, found in sorted(by_task.items()):
        if not (baseline in found and other in found):
            continue
        chosen = {}
        for steps in sorted({run.timesteps for run in found[baseline]}, reverse=True):
            near = {a: [r for r in found[a] if _same_steps(r.timesteps, steps)] for a in (baseline, other)}
            if all(near.values()):
                chosen = near
                break
        equal = bool(chosen)
        longest = {a: [max(found[a], key=lambda run: run.timesteps)] for a in (baseline, other)}
        pairings.append(Pairing(task, chosen or longest, equal))
    return pairings


@dataclass(frozen=True)
class Comparison:
    """Two algorithms over tasks.

    Attributes:
        baseline, other: their names.
        pairings: the tasks and runs compared.
        equal: whether all tasks have equally trained runs of both.
        unit: what the intervals resample, ``episodes`` or ``runs`` (see :mod:`~interp_lib.statistics`).
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

    def table(self) -> pd.DataFrame:
        """A row an algorithm: IQM and mean of the normalised returns, P(more than the baseline), and what they rest on.

        Columns of intervals are ``name``, ``name low`` and ``name high``.
        """
        rows = []
        for algorithm in (self.baseline, self.other):
            scores = self.scores[algorithm]
            p = self.improvement[0] if algorithm == self.other else Interval(np.nan, np.nan, np.nan)
            rows.append(
                {"agent": agent_name(algorithm), **columns("IQM", interquartile_mean(scores, unit=self.unit))}
                | columns("mean", mean_score(scores, unit=self.unit))
                | columns(f"P(> {agent_name(self.baseline)})", p)
                | {"tasks": len(scores.task_names), "runs": len(scores.tasks), "episodes a run": self.episodes}
            )
        return pd.DataFrame(rows).set_index("agent")

    def profiles(self, thresholds: np.ndarray) -> dict[str, np.ndarray]:
        """Performance profile of each algorithm, (3, T): share above each threshold, and its 95% interval."""
        return {a: performance_profile(s, thresholds, unit=self.unit) for a, s in self.scores.items()}

    def random_profile(self, thresholds: np.ndarray) -> np.ndarray:
        """Share of a random policy's episodes above each threshold (T,), tasks weighing alike."""
        return np.mean([(values[:, None] > thresholds).mean(0) for values in self.random.values()], axis=0)

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
        if self.unit == "runs":
            return (
                f"{self.size()}. 95% intervals: stratified bootstrap of runs within tasks; training seeds are covered"
            )
        return (
            f"{self.size()}. 95% intervals: stratified bootstrap of episodes within runs, about these very agents; the "
            "spread between training seeds is not in them"
        )

    def conclusion(self) -> str:
        """What the numbers carry, and no more."""
        ours, theirs = agent_name(self.other), agent_name(self.baseline)
        p, what = self.improvement[0], "a run" if self.unit == "runs" else "an episode"
        middle = {a: interquartile_mean(s, unit=self.unit) for a, s in self.scores.items()}
        numbers = (
            f"On {_count(len(self.pairings), 'task')} ({', '.join(pair.task for pair in self.pairings)}) {ours} has an "
            f"interquartile mean of {middle[self.other]}, {theirs} of {middle[self.baseline]}; {what} of {ours} "
            f"returns more than one of {theirs} with probability {p}"
        )
        if not self.equal:
            steps = "; ".join(
                f"{pair.task}: {theirs} {pair.steps(self.baseline):,}, {ours} {pair.steps(self.other):,}"
                for pair in self.pairings
            )
            return f"{numbers}. But they were trained unequally ({steps} steps): this says nothing about the methods."
        verdict = f"{ours} is ahead" if p.low > 0.5 else f"{theirs} is ahead" if p.high < 0.5 else "neither is ahead"
        if self.unit == "runs":
            return f"{numbers}: {verdict}."
        return (
            f"{numbers}: {verdict} among these agents. For the methods that takes three training seeds a task or more."
        )


def compare(
    runs: Iterable[Run], baseline: str, other: str, evaluations: Evaluations, *, play: bool = False
) -> Comparison | str:
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
    names = f"{agent_name(baseline)} and {agent_name(other)}"
    if not measured:
        why = "".join(f" {task}: {reason}" for task, reason in left_out.items())
        return f"No task where runs of both {names} have known returns.{why}"
    equal = [task for task, (pairing, *_) in measured.items() if pairing.equal]
    used = equal or list(measured)
    unequal = {}
    for task in [task for task in measured if task not in used]:
        pairing, returns, _ = measured[task]
        unequal[task] = probability_of_improvement(
            Scores.of({task: returns[other]}), Scores.of({task: returns[baseline]}), unit="episodes"
        )[0]
        steps = [f"{agent_name(a)} {pairing.steps(a):,}" for a in (baseline, other)]
        left_out[task] = f"trained unequally ({', '.join(steps)} steps)"
    scores = {a: Scores.of({task: measured[task][1][a] for task in used}) for a in (baseline, other)}
    unit = "runs" if all(s.unit == "runs" for s in scores.values()) else "episodes"
    return Comparison(
        baseline,
        other,
        [measured[task][0] for task in used],
        bool(equal),
        unit,
        scores,
        {task: measured[task][2] for task in used},
        left_out,
        probability_of_improvement(scores[other], scores[baseline], unit=unit),
        unequal,
    )


def paper_table(runs: Sequence[Run], evaluations: Evaluations, *, play: bool = False) -> pd.DataFrame:
    """The form of the papers' tables: a column a task, a row an agent, the return with its interval in each cell.

    One run a task: mean and 95% interval over its episodes. Several equally trained ones: mean of their mean returns ±
    one standard deviation over seeds (n − 1), and their number. Below, the training steps. Procgen: unseen levels,
    sampled actions. Empty where nothing was measured.
    """
    cells: dict[str, dict[str, str]] = {}
    algorithms = sorted({run.algorithm for run in runs}, key=["ppo", "sppo", "sac", "protosac"].index)
    for task in sorted({run.env for run in runs}):
        for algorithm in algorithms:
            of_task = [run for run in runs if (run.env, run.algorithm) == (task, algorithm)]
            if not of_task:
                continue
            steps = max(run.timesteps for run in of_task)
            seeds = [run for run in of_task if _same_steps(run.timesteps, steps)]
            known = [evaluations.complete(run) if play else evaluations.known(run) for run in seeds]
            own = [values["unseen" if "unseen" in values else "eval"] for values in known if values]
            if not own:  # released before returns were kept: the card has the mean and its interval
                kept = seeds[0].results.get("unseen") or seeds[0].results.get("eval")
                text = str(Interval(kept["mean"], kept["low"], kept["high"])) if kept else ""
            elif len(own) == 1:
                text = str(bootstrap_mean(own[0]))
            else:
                means = [values.mean() for values in own]
                text = f"{np.mean(means):.2f} ± {np.std(means, ddof=1):.2f} ({len(own)} seeds)"
            name = agent_name(algorithm)
            cells.setdefault(name, {})[task] = text
            cells.setdefault(f"steps of {name}", {})[task] = f"{steps:,}"
            random = next((values["random"] for values in known if "random" in values), None)
            kept = seeds[0].results.get("random")
            if random is not None:
                cells.setdefault("random", {})[task] = str(bootstrap_mean(random))
            elif kept:
                cells.setdefault("random", {})[task] = str(Interval(kept["mean"], kept["low"], kept["high"]))
    order = ["random", *map(agent_name, algorithms), *(f"steps of {agent_name(a)}" for a in algorithms)]
    table = pd.DataFrame(cells).T.reindex([name for name in order if name in cells]).fillna("")
    return table[sorted(table.columns)].rename_axis("agent")


# -- here and published -------------------------------------------------------------------------------------------


def published_comparison(runs: Iterable[Run]) -> pd.DataFrame:
    """Each Procgen run against the published seeds at the same number of steps, by the mean return of the last 100
    training episodes, and also where the other algorithm's run on the game stops, if that is earlier.

    Only runs of the published setting (easy, all levels) on games with published curves.

    Returns:
        index ``game``, ``steps``, ``agent``; columns ``here``, ``published mean``, ``published min``, ``published
        max``, ``seeds`` (published ones) and ``where`` (inside, above or below the published seeds). ``steps`` is the
        last point of both curves up to there.
    """
    runs = [r for r in runs if r.algorithm in SEMANTIC_ALGORITHMS and r.mode == "easy" and r.num_levels == 0]
    rows = []
    for run in runs:
        published = published_seeds(run.algorithm, run.env)
        curve = read_progress(run.path).set_index("total_timesteps")["eprewmean"].dropna()
        for end in sorted({r.timesteps for r in runs if r.env == run.env and r.timesteps <= run.timesteps}):
            common = published.index.intersection(curve.index[curve.index <= end])
            if not len(published.columns) or not len(common):
                continue
            steps, here = int(common.max()), float(curve.loc[common.max()])
            seeds = published.loc[steps]
            where = "below" if here < seeds.min() else "above" if here > seeds.max() else "inside"
            rows.append(
                {"game": run.env, "steps": steps, "agent": agent_name(run.algorithm), "seed": run.seed, "here": here}
                | {"published mean": seeds.mean(), "published min": seeds.min(), "published max": seeds.max()}
                | {"seeds": len(seeds), "where": where}
            )
    names = [
        "game",
        "steps",
        "agent",
        "seed",
        "here",
        "published mean",
        "published min",
        "published max",
        "seeds",
        "where",
    ]
    table = pd.DataFrame(rows, columns=names).drop_duplicates(["game", "steps", "agent", "seed"])
    return table.sort_values(["game", "steps", "agent"]).set_index(["game", "steps", "agent"])


# -- helpers ------------------------------------------------------------------------------------------------------


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
    if first.algorithm in SEMANTIC_ALGORITHMS:
        returns = {a: [_scaled(values["unseen"], first) for values in of_runs] for a, of_runs in known.items()}
        return returns, _scaled(random, first)
    top = float(np.mean([values["eval"].mean() for values in known[baseline]]))
    scale = (float(random.mean()), top)
    returns = {a: [between(values["eval"], *scale) for values in of_runs] for a, of_runs in known.items()}
    return returns, between(random, *scale)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _scaled(returns: np.ndarray, run: Run) -> np.ndarray:
    return normalised(returns, run.env, run.mode or "easy")


def _same_steps(a: int, b: int) -> bool:
    return max(a, b) <= SAME_STEPS * min(a, b)


def longest_runs(runs: Iterable[Run], algorithms: Sequence[str]) -> list[Run]:
    """Of each algorithm and environment the run that was trained longest."""
    best: dict[tuple[str, str], Run] = {}
    for run in runs:
        key = (run.env, run.algorithm)
        if run.algorithm in algorithms and (key not in best or run.timesteps > best[key].timesteps):
            best[key] = run
    return [best[key] for key in sorted(best)]
