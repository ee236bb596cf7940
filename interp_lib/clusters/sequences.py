"""In which order an agent goes through its clusters, in episodes that succeed and in others.

Whether a sequence is more than its clusters is tested by shuffling the stretches of each episode. No two equal ones may
meet, so orders are reached by swaps that keep to that, from a common start that is itself reached by swaps from the
real order: the real one and the shuffled ones are then exchangeable (Besag & Clifford 1989), and the test is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from ..agents.sppo.play import Episode
from ..common.statistics import NOTHING, SIGNIFICANT, columns, holm, ratio_interval
from .skills import successful

ARROW = " → "
SWEEPS = 8  # swaps tried for each stretch
SHUFFLES, LABELLINGS = 1999, 9999


def typical_sequences(
    episodes: Sequence[Episode], *, length: int = 3, top: int = 10, ending: bool = False
) -> pd.DataFrame:
    """Which clusters follow each other in successful episodes (:func:`successful`) and in the others.

    An episode's codes, repeats collapsed, are read through a window of ``length`` clusters. Shares are of all windows
    of such episodes, so that long episodes, which have more of everything, don't count as different. Sequences are
    chosen on every second episode of either kind, and counted and tested on the others, or chance would choose them.

    Args:
        top: how many sequences of either kind of episode to choose, the most frequent.
        ending: only the last window of each episode: what it ends with.

    Returns:
        index sequence (``7 → 1 → 5``), the one most typical of success first; count and share for either kind, with
        95% intervals that resample episodes; the share with the stretches of each episode shuffled; and two p-values,
        each corrected over the sequences (Holm): ``p order``, of stretches coming in any order within their episode,
        and ``p success``, of success not mattering (labels shuffled over episodes). ``attrs`` has the numbers of
        episodes that are counted. Shorter episodes have no window.
    """
    good = set(successful(episodes))
    kinds = {
        "successful": [i for i in range(len(episodes)) if i in good],
        "other": [i for i in range(len(episodes)) if i not in good],
    }
    paths = [collapse(episode.codes) for episode in episodes]  # type: ignore[arg-type]  # of an SPPO agent
    chosen = {
        window
        for of in kinds.values()
        for window, _ in Counter(w for i in of[::2] for w in _windows(paths[i], length, ending)).most_common(top)
    }
    names = [ARROW.join(map(str, window)) for window in sorted(chosen)]
    tested = np.array([i for of in kinds.values() for i in of[1::2]], dtype=np.int64)
    succeeded = np.isin(tested, kinds["successful"])
    found = [Counter(_windows(paths[i], length, ending)) for i in tested]
    counts = np.array([[c[window] for window in sorted(chosen)] for c in found], float).reshape(len(tested), len(names))
    totals = np.array([c.total() for c in found], dtype=float)
    rows: dict[str, dict[str, float]] = {}
    for column, name in enumerate(names):
        rows[name] = {}
        for kind, part in (("successful", succeeded), ("other", ~succeeded)):
            share = ratio_interval(counts[part, column], totals[part])
            rows[name] |= {f"{kind}: count": counts[part, column].sum(), **columns(f"{kind}: share", share)}
    empty = [n for kind in kinds for n in (f"{kind}: count", *columns(f"{kind}: share", NOTHING))]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=None if rows else empty).rename_axis("sequence")
    rng = np.random.default_rng(0)
    shuffled = _shuffled_counts([paths[i] for i in tested], sorted(chosen), length, ending, rng)
    table["share"] = counts.sum(0) / max(totals.sum(), 1)
    table["share, shuffled"] = shuffled.mean(0) / max(totals.sum(), 1)
    table["p order"] = holm(_two_sided(shuffled, counts.sum(0)))
    table["p success"] = holm(_success_p(counts, totals, succeeded, rng))
    table.attrs = {"successful": int(succeeded.sum()), "other": int((~succeeded).sum())}
    difference = table["successful: share"].fillna(0) - table["other: share"].fillna(0)
    whole = {f"{kind}: count": int for kind in kinds}
    return table.loc[difference.sort_values(ascending=False, kind="stable").index].astype(whole)


def sequence_verdict(table: pd.DataFrame) -> str:
    """What :func:`typical_sequences` found, in a sentence."""
    order, success = (table[p] < SIGNIFICANT for p in ("p order", "p success"))
    often = order & (table["share"] > table["share, shuffled"])
    differ = ", ".join(table.index[success]) or "none"
    return (
        f"Of {len(table)} sequences, {int(order.sum())} don't come as often as with each episode's stretches shuffled "
        f"({int(often.sum())} more often); different between successful and other episodes: {differ} "
        f"(permutation tests, Holm, {SIGNIFICANT:.0%})."
    )


def shuffled_orders(path: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Orders of ``path`` (L,), in which no two equal neighbours meet, exchangeable with it → int64 (count, L)."""
    start = _swapped(np.asarray(path, dtype=np.int64)[None], rng)
    return _swapped(start.repeat(count, axis=0), rng)


def _swapped(paths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    orders, length = paths.shape
    padded = np.pad(paths, ((0, 0), (1, 1)), constant_values=-1)  # no cluster has that number
    flat, row = padded.reshape(-1), np.arange(orders) * (length + 2) + 1
    for _ in range(SWEEPS * length):
        i, j = row + rng.integers(length, size=(2, orders))
        a, b = flat[i], flat[j]
        flat[i], flat[j] = b, a
        clash = (flat[i - 1] == b) | (flat[i + 1] == b) | (flat[j - 1] == a) | (flat[j + 1] == a)
        flat[i], flat[j] = np.where(clash, a, b), np.where(clash, b, a)
    return padded[:, 1:-1]


def _windows(path: np.ndarray, length: int, ending: bool) -> list[tuple[int, ...]]:
    found = [tuple(path[i : i + length].tolist()) for i in range(len(path) - length + 1)]
    return found[-1:] if ending else found


def _shuffled_counts(
    paths: Sequence[np.ndarray], sequences: Sequence[tuple[int, ...]], length: int, ending: bool,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """How often each of M ``sequences`` comes over all episodes with their stretches shuffled → (SHUFFLES, M)."""
    counts = np.zeros((SHUFFLES, len(sequences)))
    for path in paths:
        if len(path) < length:
            continue
        windows = sliding_window_view(shuffled_orders(path, SHUFFLES, rng), length, axis=1)[:, -1 if ending else 0 :]
        for column, sequence in enumerate(sequences):
            if set(sequence) <= set(path.tolist()):
                counts[:, column] += (windows == sequence).all(2).sum(1)
    return counts


def _two_sided(null: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """p-values (M,) of ``observed`` (M,) among as many draws (R, M) of what chance gives, itself one of them."""
    tails = [(1 + side.sum(0)) / (1 + len(null)) for side in (null >= observed - 1e-12, null <= observed + 1e-12)]
    return np.minimum(2 * np.minimum(*tails), 1)


def _success_p(counts: np.ndarray, totals: np.ndarray, success: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """p-values (M,) of the difference of shares, labels of episodes shuffled; NaN where either kind has none."""
    if not success.any() or success.all():
        return np.full(counts.shape[1], np.nan)

    def differences(labels: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return labels @ counts / (labels @ totals)[:, None] - ~labels @ counts / (~labels @ totals)[:, None]

    labels = rng.permuted(np.tile(success, (LABELLINGS, 1)), axis=1)
    return _two_sided(np.nan_to_num(differences(labels)), np.nan_to_num(differences(success[None])[0]))


def collapse(codes: np.ndarray) -> np.ndarray:
    """``codes`` (T,) without repeats: 7 7 1 1 1 7 → 7 1 7."""
    codes = np.asarray(codes)
    return codes[np.append(True, codes[1:] != codes[:-1])[: len(codes)]]
