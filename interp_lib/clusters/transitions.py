"""The policy as a graph of clusters: where the agent goes from each, how long it stays, and what good episodes do.

Being in a cluster until it is left is an option with a random duration, so the clusters form a semi-Markov decision
process (Sutton, Precup & Singh 1999): P(next | cluster) over stretches, and a dwell time for each. The episode's end is
an absorbing state. Nothing here tests that the next cluster depends on the present one alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..agents.sppo.play import Episode
from ..common.graphs import CUT, END, transitions_between
from ..common.statistics import NOTHING, columns, group_sums, ratio_interval
from .skills import successful
from .states import StateSet, stretches

ARROW = " → "


def transition_table(states: StateSet) -> pd.DataFrame:
    """P(next cluster | cluster) over stretches, for every transition that was seen, with 95% intervals.

    Intervals resample environments. Stretches that the recording's end cut off are left out: what followed is unknown.

    Returns:
        index cluster, next (:data:`~.embedding.END`: the episode ended); count, probability and its interval.
    """
    return transitions_between(_complete(states), states.meta["num_envs"])


def dwell_table(states: StateSet) -> pd.DataFrame:
    """How long the agent stays: a row a cluster with visits, mean and median dwell time in steps, and P(episode ends).

    Complete stretches only. Long ones are cut off by the recording's end more often, so means are slightly too small.
    """
    found, n = _complete(states), states.meta["num_envs"]
    rows = {}
    for k in range(states.num_codes):
        of_k = found[found["cluster"] == k]
        visits = group_sums(np.ones(len(of_k)), of_k["env"], n)
        ends = group_sums(of_k["next"] == END, of_k["env"], n)
        rows[k] = {
            "visits": len(of_k),
            **columns("mean dwell (steps)", ratio_interval(group_sums(of_k["length"], of_k["env"], n), visits)),
            "median dwell (steps)": of_k["length"].median(),
            **columns("episode ends here", ratio_interval(ends, visits)),
        }
    return pd.DataFrame(rows).T.rename_axis("cluster").astype({"visits": int})


def typical_sequences(
    episodes: Sequence[Episode], *, length: int = 3, top: int = 10, ending: bool = False
) -> pd.DataFrame:
    """Which clusters follow each other in successful episodes (:func:`.skill_videos.successful`) and in the others.

    An episode's codes, repeats collapsed, are read through a window of ``length`` clusters. Shares are of all windows
    of such episodes, so that long episodes, which have more of everything, don't count as different.

    Args:
        top: how many sequences of either kind of episode to show, the most frequent.
        ending: only the last window of each episode: what it ends with.

    Returns:
        index sequence (``7 → 1 → 5``), the one most typical of success first; count and share for either kind, with
        95% intervals that resample episodes; ``attrs`` has the numbers of episodes. Shorter episodes have no window.
    """
    good = set(successful(list(episodes)))
    counts: dict[str, list[Counter]] = {"successful": [], "other": []}
    for index, episode in enumerate(episodes):
        assert episode.codes is not None  # of an SPPO agent
        path = collapse(episode.codes)
        windows = [tuple(path[i : i + length].tolist()) for i in range(len(path) - length + 1)]
        counts["successful" if index in good else "other"].append(Counter(windows[-1:] if ending else windows))
    totals = {kind: sum(of, Counter()) for kind, of in counts.items()}
    shown = {window for total in totals.values() for window, _ in total.most_common(top)}
    rows = {}
    for window in sorted(shown):
        row: dict[str, float] = {}
        for kind, of in counts.items():
            share = ratio_interval(*(np.array(x) for x in ([c[window] for c in of], [c.total() for c in of])))
            row |= {f"{kind}: count": totals[kind][window], **columns(f"{kind}: share", share)}
        rows[ARROW.join(map(str, window))] = row
    names = [f"{kind}: count" for kind in counts]
    empty = [name for kind in counts for name in (f"{kind}: count", *columns(f"{kind}: share", NOTHING))]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=None if rows else empty).rename_axis("sequence")
    table.attrs = {kind: len(of) for kind, of in counts.items()}
    difference = table["successful: share"].fillna(0) - table["other: share"].fillna(0)
    return table.loc[difference.sort_values(ascending=False, kind="stable").index].astype(dict.fromkeys(names, int))


def collapse(codes: np.ndarray) -> np.ndarray:
    """``codes`` (T,) without repeats: 7 7 1 1 1 7 → 7 1 7."""
    codes = np.asarray(codes)
    return codes[np.append(True, codes[1:] != codes[:-1])[: len(codes)]]


def _complete(states: StateSet) -> pd.DataFrame:
    found = stretches(states)
    return found[found["next"] != CUT]
