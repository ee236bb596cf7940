"""Is ProtoSAC as good as SAC? Equivalence over training seeds, from returns that ``tools/parity.py`` measured.

Seeds from :data:`UNTOUCHED` on were never looked at while settings were chosen; where both algorithms have such runs of
a task, only those are compared. A seed is a pair of runs of equal training steps, and its difference the mean over
episodes of equal seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..agents.registry import ALGORITHMS
from ..agents.returns import evaluate_side_by_side
from ..common.errors import InterpError
from ..common.outputs import Outputs
from ..common.statistics import equivalence, equivalence_verdicts, holm
from ..common.storage import write_text
from ..common.style import GRID, INK
from ..envs.names import CONTINUOUS_TASKS, env_title
from ..runs.folder import Run, find_runs, load_agent, read_run, sha256

UNTOUCHED = 100
MARGIN = 5.0  # % of the range from random actions to SAC
FILE = "parity.csv"  # beside the runs
AGAIN = "Measure again: python tools/parity.py"
_PAIR = ("sac", "protosac")
_FIRST_EPISODE = 10_000  # far from training seeds: an environment's first episode has the run's
_COLUMNS = ["task", "algorithm", "training_seed", "episode_seed", "return", "steps", "weights"]


def seed_pairs(folder: Path | str, task: str) -> list[tuple[Run, Run]]:
    """SAC and ProtoSAC runs of ``task`` in ``folder``, by seed: untouched ones where there are any, else all."""
    of = [{run.seed: run for run in find_runs(folder, algorithm=a, env=task) if not run.variant} for a in _PAIR]
    pairs = [(of[0][seed], of[1][seed]) for seed in sorted({*of[0]} & {*of[1]})]
    pairs = [(sac, ours) for sac, ours in pairs if sac.timesteps == ours.timesteps]
    return [pair for pair in pairs if pair[0].seed >= UNTOUCHED] or pairs


def measure_parity(folder: Path | str, tasks: Iterable[str], episodes: int) -> Iterator[str]:
    """Measure the runs of ``tasks`` and random actions into ``folder``'s :data:`FILE`, written after each of them.

    What was measured of the same weights with as many episodes stays; so do other tasks.

    Args:
        episodes: of each, seeds from 10,000 on, with mean actions.

    Yields:
        what was measured, a line each.
    """
    path = Path(folder) / FILE
    table = _read(path) if path.exists() else pd.DataFrame(columns=_COLUMNS)
    for task in tasks:
        runs = [run for pair in seed_pairs(folder, task) for run in pair]
        wanted = {("random", 0, ""): None, **{(run.algorithm, run.seed, _weights(run.path)): run for run in runs}}
        keys = pd.Series(
            list(zip(table["algorithm"], table["training_seed"], table["weights"], strict=True)), table.index
        )
        table = table[(table["task"] != task) | keys.isin(wanted)]
        _write(table, path)
        for (algorithm, seed, weights), run in wanted.items() if runs else ():
            here = (table[["task", "algorithm", "training_seed"]] == (task, algorithm, seed)).all(axis=1)
            if here.sum() == episodes:
                continue
            agent = None if run is None else load_agent(run.path)
            returns, lengths = evaluate_side_by_side(agent, task, episodes, seed=_FIRST_EPISODE)
            seeds = range(_FIRST_EPISODE, _FIRST_EPISODE + episodes)
            rows = pd.DataFrame(
                dict(zip(_COLUMNS, (task, algorithm, seed, seeds, returns, lengths, weights), strict=True))
            )
            table = (pd.concat([table[~here], rows]) if len(table) else rows).sort_values(_COLUMNS[:4])
            _write(table, path)
            yield f"{task} {algorithm} {seed}: {returns.mean():.2f} over {episodes} episodes"


def read_parity(folder: Path | str) -> pd.DataFrame:
    """The returns in ``folder``, a row an episode: task, algorithm (``random`` too), seeds, return, length, weights.

    Raises:
        InterpError: not measured yet, or of other weights than the runs in ``folder`` have.
    """
    path = Path(folder) / FILE
    if not path.exists():
        raise InterpError(f"{path} is missing. {AGAIN}")
    rows = _read(path)
    agents = rows[rows["algorithm"] != "random"].groupby(["algorithm", "task", "training_seed"])["weights"]
    for (algorithm, task, seed), weights in agents:
        run = read_run(Path(folder) / f"{algorithm}-{task}-s{seed}")
        if set(weights) != {_weights(run.path)}:
            raise InterpError(f"{path} has returns of other weights than {run.name}'s. {AGAIN}")
    return rows


def parity(rows: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """Equivalence of both algorithms on each task, from :func:`read_parity`.

    Differences, ProtoSAC minus SAC, are in % of the range from random actions to SAC (means over all seeds and
    episodes, taken as known).

    Returns:
        a row a task: ``seeds`` and ``episodes`` (numbers), ``untouched`` (whether all seeds are); mean returns of
        ``random``, ``SAC`` and ``ProtoSAC``; ``difference`` with its 90% interval over seeds, ``difference low`` to
        ``difference high``; ``p`` of equivalence, corrected over tasks (Holm), and the ``verdict`` of
        :func:`~interp_lib.common.statistics.equivalence_verdicts`.
    """
    facts, results = {}, []
    for task in CONTINUOUS_TASKS:
        of = {
            algorithm: table.pivot(index="training_seed", columns="episode_seed", values="return")
            for algorithm, table in rows[rows["task"] == task].groupby("algorithm")
        }
        if not of.keys() >= {"random", *_PAIR}:
            continue  # measuring was stopped
        sac, ours = of["sac"].align(of["protosac"], join="inner")
        random, mean = of["random"].to_numpy().mean(), sac.to_numpy().mean()
        differences = 100 * (ours - sac).mean(axis=1) / (mean - random if mean > random else np.nan)
        results.append(result := equivalence(differences.to_numpy(), margin))
        facts[task] = {
            "seeds": len(sac), "episodes": sac.shape[1], "untouched": bool((sac.index >= UNTOUCHED).all()),
            "random": random, "SAC": mean, "ProtoSAC": ours.to_numpy().mean(), "difference": result.mean,
            "difference low": result.low, "difference high": result.high,
        }  # fmt: skip
    table = pd.DataFrame(list(facts.values()), index=pd.Index(list(facts), name="task"))
    return table.assign(p=holm([r.p for r in results]), verdict=equivalence_verdicts(results))


def parity_verdict(table: pd.DataFrame) -> str:
    """What was found, a sentence a task: a Markdown list."""
    lines = []
    for task, row in table.iterrows():
        mean, low, high = (
            row[["difference", "difference low", "difference high"]].astype(float).round(1) + 0.0
        )  # no "-0.0"
        interval = "one seed has no interval" if np.isnan(low) else f"90% interval {low:.1f} to {high:.1f}"
        seeds = f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"
        known = "" if row["untouched"] else ", none kept from tuning"
        lines.append(
            f"{env_title(str(task))}: {row['verdict']}; ProtoSAC's return differs by {mean:.1f}% "
            f"({interval}; {seeds}{known}; p = {row['p']:.2g}).".replace("-", "−")
        )
    return "\n".join(f"- {line}" for line in lines)


def plot_parity(table: pd.DataFrame, margin: float = MARGIN) -> Figure:
    """Difference of each task with its 90% interval; the margin is shaded, and the shape says the verdict."""
    fig, axes = plt.subplots(figsize=(7.2, 1.3 + 0.45 * len(table)))
    axes.axvspan(-margin, margin, color=GRID, zorder=0, label=f"within {margin:g}%")
    axes.axvline(0, color=INK, lw=0.8)
    color, y = ALGORITHMS["protosac"].color, np.arange(len(table))
    axes.hlines(y, table["difference low"], table["difference high"], colors=color, lw=2.2)
    for verdict, marker in (("equivalent", "o"), ("worse", "<"), ("better", ">"), ("not shown", "s")):
        here = table["verdict"].str.startswith(verdict).to_numpy()
        face = "white" if verdict == "not shown" else color
        if here.any():
            axes.plot(table["difference"][here], y[here], marker, color=color, mfc=face, ms=7, label=verdict)
    names = [f"{env_title(str(task))} (n = {seeds})" for task, seeds in table["seeds"].items()]
    axes.set_yticks(y, names)
    axes.set_ylim(len(table) - 0.5, -0.5)
    # Linear to twice the margin, and then by powers of ten: one seed may be far off, and two have long intervals.
    axes.set_xscale("symlog", linthresh=2 * margin, linscale=1.5)
    reach = 1.5 * max(2 * margin, table[["difference", "difference low", "difference high"]].abs().max(axis=None))
    ticks = [x for x in (0, margin, 2 * margin, 100, 1000) if x < reach]
    axes.set_xticks([*(-x for x in ticks[:0:-1]), *ticks], minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set(xlim=(-reach, reach), xlabel="ProtoSAC − SAC, % of random → SAC (n training seeds)")
    axes.grid(False, axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def save_parity(folder: Path | str, outputs: Outputs) -> pd.DataFrame:
    """Save the table and picture of both algorithms' equivalence, from the returns in ``folder``.

    Raises:
        InterpError: see :func:`read_parity`.
    """
    rows = read_parity(folder)
    table = parity(rows)
    runs = rows[rows["algorithm"] != "random"][["algorithm", "task", "training_seed"]].drop_duplicates()
    paths = [Path(folder) / f"{a}-{task}-s{seed}" for a, task, seed in runs.itertuples(index=False)]
    counts = ", ".join(str(n) for n in sorted(set(table["episodes"])))
    caption = (
        "Return of ProtoSAC minus that of SAC in % of the range from random actions to SAC: mean over training seeds "
        f"(n; {counts} episodes each, paired by seed, mean actions) with 90% interval (Student's t). Equivalence "
        f"within {MARGIN:g}% by two one-sided t-tests at 5%, corrected over tasks (Holm)."
    )
    outputs.figure(plot_parity(table), "parity", f"{caption} Shaded: the margin.", paths)
    outputs.table(table, "parity_table", caption, paths)
    return table


def _read(path: Path) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path, na_filter=False, dtype={"weights": str, "return": float, "training_seed": int})
    except ValueError as error:  # no UTF-8, no table, no numbers
        raise InterpError(f"{path} is damaged. Remove it. {AGAIN}") from error
    if list(rows) != _COLUMNS:
        raise InterpError(f"{path} is no table of returns. Remove it. {AGAIN}")
    return rows


def _write(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))


def _weights(run_dir: Path) -> str:
    """The first 16 digits of the SHA-256 of a run's weights."""
    path = run_dir / "policy.safetensors"
    if not path.is_file():
        raise InterpError(f"{path} is missing. Restore it or train the run again.")
    return sha256(path)[:16]
