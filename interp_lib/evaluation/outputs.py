"""The outputs of notebook 02 for whatever runs there are: saved with captions that say n and what intervals cover."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..agents.learning_curve import read_progress
from ..agents.registry import ALGORITHMS
from ..agents.sppo.config import PAPER_TIMESTEPS
from ..common.errors import InterpError
from ..common.outputs import Outputs
from ..envs.names import env_title
from ..runs.curves import plot_games
from ..runs.folder import Run, find_runs
from ..runs.published import published_seeds
from .comparison import AlgorithmComparison
from .figures import plot_comparison, plot_levels, plot_published, plot_restricted
from .levels import (
    Evaluations,
    in_published_setting,
    level_table,
    longest_runs,
    paper_table,
    published_comparison,
    restricted_runs,
    restricted_table,
)


def runs_to_compare(own: Sequence[Run], released: Path | str | None, *, mode: str | None = None) -> list[Run]:
    """All runs there are to compare: every one in the folder ``released`` of the algorithms of ``own``, or these alone.

    Args:
        own: the runs a notebook shows.
        mode: Procgen's distribution mode; runs of another one are not compared.

    Raises:
        InterpError: one of ``own`` is of another mode.
    """
    for run in own:
        if run.mode != mode:
            raise InterpError(
                f"{run.name} was trained in {run.mode} mode, not in {mode}. Set the parameter mode, or train one: "
                f"interp train {run.algorithm} {run.env} --distribution-mode {mode}"
            )
    if released is None:
        return list(own)
    algorithms = {run.algorithm for run in own}
    return [run for run in find_runs(released) if run.algorithm in algorithms and run.mode == mode]


def save_levels(
    runs: Sequence[Run], evaluations: Evaluations, outputs: Outputs, *, normalise: bool = False
) -> pd.DataFrame:
    """Save returns of Procgen ``runs`` on training and unseen levels as figure and table; returns the table."""
    table = level_table(runs, evaluations, normalise=normalise)
    paths = [run.path for run in runs]
    counts = sorted({int(n) for n in table["episodes"]})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    scale = "normalised return" if normalise else "return"
    longest = max(run.timesteps for run in runs)
    note = (
        f"n = {n} episodes a side and kind of actions; 95% bootstrap intervals over the episodes of one trained agent. "
        "Deterministic: the most probable action. "
        + (f"Trained up to {longest:,} of the paper's 25M steps. " if longest < PAPER_TIMESTEPS else "")
        + ("Normalised by the ranges published with Procgen (Cobbe et al. 2020). " if normalise else "")
    )
    figure = plot_levels(table, xlabel=f"{scale} per episode (mean, 95% interval, n = {n})")
    outputs.figure(figure, "generalization", f"Return on training levels and on levels from 200,000 on. {note}", paths)
    caption = f"Mean {scale} by levels and actions, and their gap (training − unseen). {note}"
    outputs.table(table, "generalization_table", caption, paths)
    return table


def save_restricted(runs: Sequence[Run], evaluations: Evaluations, outputs: Outputs) -> str:
    """Save the classic generalization figure of runs on a limited number of levels; returns a sentence about it."""
    limited = restricted_runs(runs)
    if not limited:
        return (
            "No run here was trained on a limited number of levels, so there is no curve over their number. "
            "`interp train sppo fruitbot --num-levels 200` makes one; once released, it is drawn here."
        )
    table = restricted_table(limited, evaluations)
    paths = [run.path for run in limited]
    n = int(table["episodes"].min())
    caption = (
        "Return on training and on unseen levels by the number of training levels (Cobbe et al. 2020). Sampled "
        f"actions, n = {n} episodes or more a point, one trained agent each, 95% bootstrap intervals over episodes."
    )
    outputs.figure(plot_restricted(table), "generalization_by_levels", caption, paths)
    outputs.table(table, "generalization_by_levels_table", caption, paths)
    return f"{len(limited)} runs on limited levels: {', '.join(run.name for run in limited)}."


def save_comparison(comparison: AlgorithmComparison, outputs: Outputs) -> pd.DataFrame:
    """Save interquartile means, performance profiles and probabilities of improvement; returns the table."""
    baseline, other = ALGORITHMS[comparison.baseline].title, ALGORITHMS[comparison.other].title
    figure = plot_comparison(comparison)
    if not comparison.equal:
        figure.suptitle("Unequal training: no comparison of methods")
    how = (
        "Unseen levels, sampled actions; returns normalised by the ranges published with Procgen (Cobbe et al. 2020)."
        if ALGORITHMS[comparison.baseline].procgen
        else f"Mean actions; return 0 is the random policy's mean and 1 the mean of {baseline}'s runs on the task, "
        "both taken as exact."
    )
    left_out = "".join(f" Not in it: {task}, {why}." for task, why in comparison.left_out.items())
    caption = f"{baseline} and {other} over tasks (rliable). {how} {comparison.rests_on()}.{left_out}"
    paths = [run.path for run in comparison.runs]
    name = f"{comparison.baseline}_{comparison.other}"
    outputs.figure(figure, f"compare_{name}", caption, paths)
    outputs.table(comparison.table, f"compare_{name}_table", caption, paths)
    return comparison.table


def save_paper_table(
    runs: Sequence[Run], evaluations: Evaluations, outputs: Outputs, name: str, *, play: bool = False
) -> pd.DataFrame:
    """Save the papers' table, tasks across and agents down; returns it."""
    table = paper_table(runs, evaluations, play=play)
    caption = (
        "Mean return and 95% bootstrap interval over the episodes of one run; where there are equally trained seeds, "
        "mean ± standard deviation over them. Procgen: unseen levels, sampled actions; continuous tasks: mean actions."
    )
    outputs.table(table, name, caption, [run.path for run in runs])
    return table


def save_learning_curves(runs: Sequence[Run], outputs: Outputs) -> None:
    """Save the learning curves of all published games that a run here was trained on, inside the published range."""
    runs = longest_runs(in_published_setting(runs), ALGORITHMS)
    published = {r.name: published_seeds(r.algorithm, r.env) for r in runs}
    runs = [r for r in runs if len(published[r.name].columns)]
    if not runs:
        return
    curves = {
        a: {env_title(r.env): read_progress(r.path).set_index("total_timesteps")["eprewmean"] for r in of_a}
        for a in ALGORITHMS
        if (of_a := [r for r in runs if r.algorithm == a])
    }
    bands = {a: {env_title(r.env): published[r.name] for r in runs if r.algorithm == a} for a in curves}
    least, most = (f"{pick(r.timesteps for r in runs):,}" for pick in (min, max))
    outputs.figure(
        plot_games(curves, bands),
        "learning_curves_of_all_games",
        "Mean return of the last 100 training episodes: one seed here (bold: moving average 0.9, the paper's form; "
        "faint: as logged) and the range and mean of the published seeds, smoothed alike. The runs here have "
        f"{least} to {most} of the paper's {PAPER_TIMESTEPS:,} steps.",
        [run.path for run in runs],
    )


def save_published(runs: Sequence[Run], outputs: Outputs) -> pd.DataFrame:
    """Save runs here against the published seeds at the same number of steps; returns the table, empty without any."""
    table = published_comparison(runs)
    if table.empty:
        return table
    names = {(game, agent) for game, _, agent in table.index}
    paths = [run.path for run in in_published_setting(runs) if (run.env, run.record.title) in names]
    caption = (
        "Mean return of the last 100 training episodes here (one seed a row; normal 95% interval over those episodes) "
        "and in the published seeds after the same number of steps, on the benchmark's scale (easy) so that games "
        "share an axis. A fourth seed of the same kind would lie within the range of three with probability 1/2."
    )
    outputs.figure(plot_published(table), "published_and_here", caption, paths)
    outputs.table(table, "published_and_here_table", caption, paths)
    return table
