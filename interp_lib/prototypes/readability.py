"""The price of readability: what return is left when states must look like the prototypes that decide for them.

A row of ``readability.csv`` is one agent, measured on evaluation episodes: its return, on the scale from a random
policy (0) to the SAC agent of its training seed (1), beside its likeness (likeness.py). There are baselines and
settings:

- *SAC* itself; *SAC distilled* into prototypes and *k-medoids* of its states (agents/protosac/distilled.py); released
  *ProtoSAC* agents, and those with an *encoder*;
- *swept*: ProtoSAC agents that were trained with other settings, each named by them.

``tools/readability.py`` makes the rows (readability_jobs.py). Intervals are 95% bootstraps over episodes of one agent.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.errors import InterpError
from ..common.statistics import interval_of
from ..common.storage import read_file, write_text
from ..envs.names import CONTINUOUS_TASKS, env_title
from .likeness import LEAST_NEAR, MOST_RATIO, MOST_SHARING, NEAR, bar_kept

SAC, DISTILLED, MEDOIDS, ENCODER, OURS, SWEPT = (
    "SAC", "SAC distilled", "k-medoids", "ProtoSAC, encoder", "ProtoSAC", "swept"
)  # fmt: skip
BASELINES = (SAC, DISTILLED, MEDOIDS, ENCODER, OURS)
LEAST_SCALED = 0.95  # of SAC's return, on the scale
MEASURES = ("return", "scaled", "nearest", "near", "ratio", "sharing")
SETTINGS = ("space", "temperature", "sharpness_weight")
KEY = ("task", "agent", "seed", "settings")  # no two rows have the same
_NUMBERS = (
    "seed", "K", "temperature", "sharpness_weight", "steps", "episodes",
    *(f"{name}{end}" for name in MEASURES for end in ("", " low", " high")),
)  # fmt: skip
COLUMNS = (*KEY, "K", *SETTINGS, "steps", *_NUMBERS[5:], "run", "made of", "revision")


def read_rows(path: Path | str) -> pd.DataFrame:
    """Read ``readability.csv``.

    Raises:
        InterpError: it is missing, damaged, or made by another version of this project.
    """
    try:
        rows = pd.read_csv(io.BytesIO(read_file(path, 2**24)), keep_default_na=False, dtype=str)
        if missing := [name for name in COLUMNS if name not in rows]:
            raise ValueError(f"no column {missing[0]}")
        for name in _NUMBERS:
            rows[name] = pd.to_numeric(rows[name].mask(rows[name] == ""))
        for name, known in (("task", CONTINUOUS_TASKS), ("agent", (*BASELINES, SWEPT))):
            if odd := sorted(set(rows[name]) - set(known)):
                raise ValueError(f"unknown {name} {odd[0]!r}")
        rows = rows.astype({"seed": int, "steps": int, "episodes": int, "K": "Int64"})
        shares = rows[["nearest", "near"]].fillna(0)
        lacking, endless = rows[["return", "scaled"]].isna(), np.isinf(rows[list(_NUMBERS)].astype(float))
        if any(odd.any(axis=None) for odd in (lacking, endless, shares != shares.clip(0, 1))):
            raise ValueError("numbers that can't be")
    except (TypeError, ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise InterpError(
            f"{path} is damaged ({reason:.100}). Restore it, or make it anew: python tools/readability.py --help."
        ) from error
    return rows[list(COLUMNS)]


def keep_row(path: Path, row: Mapping[str, Any]) -> None:
    """Put a row into the file, in the place of one with its key; several processes may do so."""
    from filelock import FileLock

    with FileLock(path.with_name(f".{path.name}.lock")):
        rows = read_rows(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))
        rows = rows[~matching(rows, row, KEY)]
        rows = pd.concat([rows.astype(object), pd.DataFrame([row], columns=list(COLUMNS), dtype=object)])
        places = {name: i for i, name in enumerate((*CONTINUOUS_TASKS, *BASELINES, SWEPT))}
        rows = rows.sort_values(list(KEY), key=lambda column: column.map(lambda value: places.get(value, value)))
        write_text(path, rows.to_csv(index=False, lineterminator="\n"))


def matching(rows: pd.DataFrame, wanted: Mapping[str, Any], names: Iterable[str]) -> pd.Series:
    """Which rows have the values of ``wanted`` in the columns ``names``, bool (rows,)."""
    found = pd.Series(True, rows.index)
    for name in names:
        found &= rows[name] == wanted[name]
    return found


def baselines_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The baselines, one row a task, agent and training seed.

    Columns: those of :data:`MEASURES`, each with `` low`` and `` high``; ``K``, ``steps``, ``episodes``.
    """
    own = rows[rows["agent"] != SWEPT]
    return own.set_index(["task", "agent", "seed"])[[*_NUMBERS[6:], "K", "steps", "episodes"]]


def settings_of_ours(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of agents that learned with their prototypes, whatever their settings."""
    return rows[rows["agent"].isin((SWEPT, OURS, ENCODER)) & rows["near"].notna()]


def front(rows: pd.DataFrame, measure: str, *, most: bool = True) -> pd.DataFrame:
    """The rows that no other one beats in both ``measure`` and scaled return, by falling scaled return.

    Args:
        measure: a column; the more of it the better, unless ``most`` is False.
    """
    kept, best = [], -np.inf
    sign = 1 if most else -1
    order = np.lexsort((-sign * rows[measure], -rows["scaled"]))
    for place in order:
        if (value := sign * rows[measure].iloc[place]) > best:
            kept.append(place)
            best = value
    return rows.iloc[kept]


def looks_alike(row: pd.Series) -> bool:
    """Whether an agent keeps all three bars of likeness, by their intervals."""
    bars = ("near", LEAST_NEAR, True), ("ratio", MOST_RATIO, False), ("sharing", MOST_SHARING, False)
    return all(bar_kept(interval_of(row, name), bar, least=least) == "kept" for name, bar, least in bars)


def front_verdict(rows: pd.DataFrame) -> str:
    """What readability costs, a paragraph a task that has ProtoSAC agents."""
    ours = settings_of_ours(rows).groupby("task", sort=False)
    return "\n".join(f"- {_verdict(task, of)}{_made_of_sac(rows[rows['task'] == task])}" for task, of in ours)


def _made_of_sac(rows: pd.DataFrame) -> str:
    """What SAC returns once it is made readable, seed by seed; empty where nobody did."""
    said = []
    for agent in (DISTILLED, MEDOIDS):
        if len(of := rows[rows["agent"] == agent]):
            returns = " · ".join(f"{scaled:.0%}" for scaled in of["scaled"])
            said.append(f"{agent} {returns} (the bar is kept by {of.apply(looks_alike, axis=1).sum()} of {len(of)})")
    return f" Made of SAC afterwards, seed by seed: {', '.join(said)}." if said else ""


def _verdict(task: str, rows: pd.DataFrame) -> str:
    alike, best = rows[rows.apply(looks_alike, axis=1)], _best(rows)
    bar = (
        f"the bar of likeness (leader among the {NEAR} nearest ≥ {LEAST_NEAR:.0%}, ratio ≤ {MOST_RATIO:g}, "
        f"≤ {MOST_SHARING:g} share a decision)"
    )
    title = f"**{env_title(task)}**: of {len(rows)} ProtoSAC agents"
    if not len(alike):
        return f"{title} none keeps {bar}; the best returns {_of_sac(best)} ({_named(best)})."
    readable = _best(alike)
    scaled = interval_of(readable, "scaled")
    cost = best["scaled"] - scaled.mean
    dearer = "No agent returns more"
    if cost > 0:
        dearer = f"The best of all returns {_of_sac(best)} ({_named(best)}): readability costs {cost:.0%} of that gain"
    reached = bar_kept(scaled, LEAST_SCALED, least=True)
    chosen = "; the best of several is flattered by its choice" if len(alike) > 1 else ""
    return (
        f"{title} {len(alike)} keep{'s' * (len(alike) == 1)} {bar}; the best of them returns {_of_sac(readable)} "
        f"({_named(readable)}). At least {LEAST_SCALED:.0%}: {reached}{chosen}. {dearer}."
    )


def _best(rows: pd.DataFrame) -> pd.Series:
    return rows.iloc[int(rows["scaled"].argmax())]


def _of_sac(row: pd.Series) -> str:
    scaled = interval_of(row, "scaled")
    return f"{scaled.mean:.0%} [{scaled.low:.0%}, {scaled.high:.0%}] of what SAC gains over a random policy"


def _named(row: pd.Series) -> str:
    return f"{row['settings'] or row['agent'] + ' as released'}, seed {row['seed']}"
