"""From released runs to tables of their returns: training and unseen levels, the papers' form, here and published.

Returns come from the release where it kept them (``runs.released_returns``); others are played when asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..agents.learning_curve import read_progress
from ..agents.registry import ALGORITHMS
from ..common.statistics import NOTHING, Interval, bootstrap_mean, columns, mean_difference
from ..envs.procgen import normalised
from ..runs.checks import released_returns
from ..runs.folder import Run
from ..runs.published import published_seeds
from .returns import evaluate_run, random_returns

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
        episodes = self.procgen_episodes if run.record.procgen else self.continuous_episodes
        for ending, fixed in (("", None), ("_deterministic", True))[: 1 + run.record.procgen]:
            if not known.keys() & {f"unseen{ending}", "eval"}:
                played = evaluate_run(run, episodes, deterministic=fixed)
                known |= {f"{side}{ending}": returns.returns for side, (returns, _) in played.items()}
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
        returns = {side: scaled(values, run) if normalise else values for side, values in known.items()}
        for actions, ending in (("sampled", ""), ("deterministic", "_deterministic")):
            train, unseen = returns[f"train{ending}"], returns[f"unseen{ending}"]
            row = {"game": run.env, "agent": run.record.title, "run": run.name, "steps": run.timesteps}
            row |= {"actions": actions, **columns("train", bootstrap_mean(train))}
            row |= columns("unseen", bootstrap_mean(unseen)) | columns("gap", mean_difference(train, unseen))
            rows.append(row | {"episodes": min(len(train), len(unseen))})
        episodes = len(returns["random"])
        if episodes > random.get(run.env, {}).get("episodes", 0):
            row = {"game": run.env, "agent": "random", "actions": "uniform", "episodes": episodes}
            random[run.env] = row | columns("unseen", bootstrap_mean(returns["random"]))
    table = pd.DataFrame([*rows, *random.values()])
    table["steps"] = table["steps"].astype("Int64")  # random play has none
    return table.sort_values("game", kind="stable").reset_index(drop=True)


def gap_sentences(table: pd.DataFrame) -> list[str]:
    """What the gaps of :func:`level_table` carry, a sentence a kind of actions."""
    sentences = []
    for actions, part in table.dropna(subset="gap").groupby("actions", sort=False):
        sides = {"worse": part[part["gap low"] > 0], "better": part[part["gap high"] < 0]}
        found = [
            f"{len(rows)} did {how} on unseen levels ({', '.join(rows['agent'] + ' on ' + rows['game'])})"
            for how, rows in sides.items()
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
    limited = (run for run in runs if run.record.procgen and run.num_levels > 0)
    return sorted(limited, key=lambda run: (run.env, run.algorithm, run.num_levels))


def restricted_table(runs: Sequence[Run], evaluations: Evaluations) -> pd.DataFrame:
    """As :func:`level_table`, sampled actions only, with a column ``levels``: the number of training levels."""
    table = level_table(runs, evaluations)
    table = table[table["actions"] == "sampled"]
    levels = {run.name: run.num_levels for run in runs}
    return table.assign(levels=table["run"].map(levels)).reset_index(drop=True)


def paper_table(runs: Sequence[Run], evaluations: Evaluations, *, play: bool = False) -> pd.DataFrame:
    """The form of the papers' tables: a column a task, a row an agent, the return with its interval in each cell.

    One run a task: mean and 95% interval over its episodes. Several equally trained ones: mean of their mean returns ±
    one standard deviation over seeds (n − 1), and their number. Below, the training steps. Procgen: unseen levels,
    sampled actions. Empty where nothing was measured. Variants are left out.
    """
    runs = [run for run in runs if not run.variant]
    cells: dict[str, dict[str, str]] = {}
    algorithms = sorted({run.algorithm for run in runs}, key=list(ALGORITHMS).index)
    for task in sorted({run.env for run in runs}):
        for algorithm in algorithms:
            of_task = [run for run in runs if (run.env, run.algorithm) == (task, algorithm)]
            if not of_task:
                continue
            steps = max(run.timesteps for run in of_task)
            seeds = [run for run in of_task if same_steps(run.timesteps, steps)]
            known = [evaluations.complete(run) if play else evaluations.known(run) for run in seeds]
            side, name = "unseen" if ALGORITHMS[algorithm].procgen else "eval", ALGORITHMS[algorithm].title
            own = [values[side] for values in known if values]
            random = [values["random"] for values in known if "random" in values][:1]
            cells.setdefault(name, {})[task] = _mean_return(own, seeds[0].results.get(side))
            cells.setdefault(f"steps of {name}", {})[task] = f"{steps:,}"
            if text := _mean_return(random, seeds[0].results.get("random")):
                cells.setdefault("random", {})[task] = text
    titles = [ALGORITHMS[algorithm].title for algorithm in algorithms]
    order = ["random", *titles, *(f"steps of {title}" for title in titles)]
    table = pd.DataFrame(cells).T.reindex([name for name in order if name in cells]).fillna("")
    return table[sorted(table.columns)].rename_axis("agent")


def _mean_return(seeds: Sequence[np.ndarray], kept: Mapping[str, float] | None) -> str:
    """A cell of :func:`paper_table`, from the returns of each seed, or from what a card has ``kept`` of them."""
    if len(seeds) > 1:
        means = [values.mean() for values in seeds]
        return f"{np.mean(means):.2f} ± {np.std(means, ddof=1):.2f} ({len(seeds)} seeds)"
    if seeds:
        return str(bootstrap_mean(seeds[0]))
    return str(Interval(kept["mean"], kept["low"], kept["high"])) if kept else ""


# -- here and published -------------------------------------------------------------------------------------------


def in_published_setting(runs: Iterable[Run]) -> list[Run]:
    """Those of ``runs`` that were trained as the published ones: Procgen, easy, on all levels."""
    return [run for run in runs if run.record.procgen and run.mode == "easy" and run.num_levels == 0]


def published_comparison(runs: Iterable[Run]) -> pd.DataFrame:
    """Each Procgen run against the published seeds at the same number of steps, by the mean return of the last 100
    training episodes, and also where the other algorithm's run on the game stops, if that is earlier.

    Only runs of the published setting (easy, all levels) on games with published curves.

    Returns:
        index ``game``, ``steps``, ``agent``; columns ``here`` with its 95% interval over those episodes (NaN where the
        run didn't keep their spread: before its end, or an early run), ``published mean``, ``published min``,
        ``published max``, ``seeds`` (published ones) and ``where``: inside the published seeds; above or below them,
        with the whole interval; or between, where only the mean lies outside. ``steps`` is the last point of both
        curves up to there.
    """
    runs = in_published_setting(runs)
    rows = []
    for run in runs:
        published = published_seeds(run.algorithm, run.env)
        curve = read_progress(run.path).set_index("total_timesteps")["eprewmean"].dropna()
        for end in sorted({r.timesteps for r in runs if r.env == run.env and r.timesteps <= run.timesteps}):
            common = published.index.intersection(curve.index[curve.index <= end])
            if not len(published.columns) or not len(common):
                continue
            steps = int(common.max())
            here = _last_returns(run, steps, float(curve.loc[steps]))
            seeds = published.loc[steps]
            row = {"game": run.env, "steps": steps, "agent": run.record.title, "seed": run.seed}
            row |= columns("here", here) | {f"published {what}": seeds.agg(what) for what in ("mean", "min", "max")}
            rows.append(row | {"seeds": len(seeds), "where": _where(here, seeds)})
    index = ["game", "steps", "agent"]
    names = [*index, "seed", *columns("here", NOTHING)]
    names += ["published mean", "published min", "published max", "seeds", "where"]
    table = pd.DataFrame(rows, columns=names).drop_duplicates([*index, "seed"])
    return table.sort_values(index).set_index(index)


def _last_returns(run: Run, steps: int, mean: float) -> Interval:
    """Mean return of the last training episodes at ``steps``; its interval (normal) where their spread was kept."""
    last = run.config.get("training", {}).get("last_episodes")
    if not last or steps != run.timesteps:
        return Interval(mean, np.nan, np.nan)
    reach = 1.96 * last["std"] / np.sqrt(last["n"])
    return Interval(mean, mean - reach, mean + reach)


def _where(here: Interval, seeds: pd.Series) -> str:
    low, high = (here.mean if np.isnan(bound) else bound for bound in (here.low, here.high))
    if seeds.min() <= here.mean <= seeds.max():
        return "inside"
    return "below" if high < seeds.min() else "above" if low > seeds.max() else "between"


def same_steps(a: int, b: int) -> bool:
    """Whether runs of ``a`` and ``b`` steps count as equally trained."""
    return max(a, b) <= SAME_STEPS * min(a, b)


def longest_runs(runs: Iterable[Run], algorithms: Collection[str]) -> list[Run]:
    """Of each algorithm and environment the run that was trained longest."""
    chosen = [run for run in runs if run.algorithm in algorithms]
    chosen.sort(key=lambda run: (run.env, run.algorithm, -run.timesteps))
    return [next(alike) for _, alike in itertools.groupby(chosen, lambda run: (run.env, run.algorithm))]


def scaled(returns: np.ndarray, run: Run) -> np.ndarray:
    """Returns of a Procgen run on the benchmark's scale: 0 is blind play, 1 the best possible."""
    return normalised(returns, run.env, run.mode or "easy")
