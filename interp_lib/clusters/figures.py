"""Pictures of semantic clusters: the 2-D spaces, mean images, representative frames."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..common.labels import percent
from ..common.statistics import SIGNIFICANT
from ..common.style import CLUSTER_COLORS, INK, MUTED, cluster_color, readable_ink, show_state
from .sentences import Sentence


def draw_space(
    ax: Axes, points: np.ndarray, code: np.ndarray, title: str, *, axis: str, label_share: float = 0.01
) -> None:
    """Scatter of states coloured by cluster, clusters numbered at their median.

    Args:
        points: (m, 2). code: int (m,).
        axis: name of the axes, e.g. ``z`` for FDR coordinates.
        label_share: clusters with a smaller share of the states get no number of their own.
    """
    order = np.random.default_rng(0).permutation(len(points))  # no cluster lies on top of all others
    size = float(np.clip(12_000 / max(len(points), 1), 1.5, 12))
    colors = np.array([cluster_color(int(k)) for k in range(int(code.max()) + 1)])
    x, y = points[order].T
    ax.scatter(x, y, c=colors[code[order]], s=size, linewidths=0, alpha=0.65, rasterized=True)
    for k in np.unique(code):
        member = points[code == k]
        if len(member) >= label_share * len(points):
            x, y = np.median(member, axis=0)
            ax.text(
                x, y, str(k), color="white", weight="bold", fontsize=10, ha="center", va="center",
                bbox={"boxstyle": "circle,pad=0.25", "facecolor": cluster_color(int(k)), "edgecolor": "white"},
            )  # fmt: skip
    ax.set_xlabel(f"{axis}₁")
    ax.set_ylabel(f"{axis}₂")
    ax.set_title(title)
    ax.grid(visible=False)


def cluster_gallery(
    mean_images: Mapping[int, np.ndarray],
    frames: Mapping[int, np.ndarray],
    shares: Mapping[int, float],
    descriptions: Mapping[int, str] | None = None,
    sentences: Mapping[int, Sentence] | None = None,
    *,
    titles: Sequence[str] = (),
) -> Figure:
    """One row a cluster: what its mean shows, representative frames, what is said of it if anything is.

    Args:
        mean_images: uint8 (64, 64, 3) by cluster; clusters that are not in here are left out.
        frames: uint8 (m, 64, 64, 3) by cluster.
        shares: share of the states by cluster.
        descriptions: what somebody wrote, by cluster.
        sentences: what the game's concepts say, by cluster.
        titles: of the columns of pictures, the mean image's first.
    """
    clusters = sorted(mean_images)
    described, said = (
        {k: str(x) for k, x in (of or {}).items() if k in mean_images} for of in (descriptions, sentences)
    )
    worded = bool(described or said)
    columns = 1 + max((len(frames[k]) for k in clusters), default=0)
    figure, axes = plt.subplots(
        len(clusters),
        columns + worded,
        figsize=(1.25 * columns + 1.3 + 2.9 * worded, 1.32 * len(clusters)),
        squeeze=False,
        width_ratios=[1] * columns + [2.4] * worded,
    )
    for row, k in zip(axes, clusters, strict=True):
        pictures = [mean_images[k], *frames[k]]
        for ax, picture in zip(row, pictures, strict=False):
            ax.imshow(picture, interpolation="nearest")
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
        for ax in row[len(pictures) :]:
            ax.set_visible(False)
        both = k in described and k in said
        for of, y, side, width, size in ((described, 0.56, "bottom", 38, 9), (said, 0.48, "top", 50, 7)):
            if k in of:
                row[-1].set(visible=True, facecolor="none")
                color = INK if of is described else MUTED
                words = row[-1].text(
                    0, y if both else 0.5, "\n".join(textwrap.wrap(of[k], width)), fontsize=size, color=color
                )
                # People write dollars, and no formulas.
                words.set(va=side if both else "center", linespacing=1.3, parse_math=False)
        row[0].spines[:].set(visible=True, color=cluster_color(k), linewidth=3)
        share = percent(shares[k])
        row[0].set_ylabel(
            f"{k}", color=cluster_color(k), rotation=0, fontsize=16, weight="bold", labelpad=22, va="center"
        )
        row[0].annotate(
            share, (0, 0.5), xycoords="axes fraction", xytext=(-22, -17), textcoords="offset points", ha="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=9.5)
    return figure


def draw_actions(ax: Axes, shares: pd.DataFrame, counts: Mapping[int, int]) -> None:
    """How likely each action is in each cluster: a cell for each, dark where likely; numbers from 5% on.

    Args:
        shares: a row a cluster, a column an action; rows sum to 1, or are NaN for an empty cluster.
        counts: states by cluster, named beside the rows.
    """
    values = shares.to_numpy()
    most = max(0.3, np.nanmax(values, initial=0))
    cells = ax.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    for row, of_cluster in enumerate(values):
        for column, share in enumerate(of_cluster):
            if share >= 0.045:
                color = "white" if share > 0.62 * most else INK
                ax.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=7.5, color=color)
    bar = ax.figure.colorbar(cells, ax=ax, format=PercentFormatter(1, decimals=0), pad=0.02)
    bar.set_label("mean probability under the policy", fontsize=9)
    bar.outline.set_visible(False)
    ax.set_xticks(range(shares.shape[1]), shares.columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(shares)), [f"{k}   n = {counts[k]:,}" for k in shares.index])
    for label, k in zip(ax.get_yticklabels(), shares.index, strict=True):
        label.set(color=cluster_color(int(k)), weight="bold")
    ax.set(xlabel="action, by its effect in the game", ylabel="cluster")
    ax.grid(visible=False)


def plot_medoids(
    frames: Mapping[int, np.ndarray], counts: Mapping[int, int], values: Mapping[int, float], actions: pd.DataFrame,
    title: str, *, columns: int = 4, top: int = 4,
) -> Figure:  # fmt: skip
    """SPPO's clusters as prototypes: the state that stands for each, and what is done in the cluster.

    Args:
        frames: uint8 (64, 64, 3) by cluster: its medoid.
        counts: states by cluster.
        values: mean value estimate by cluster.
        actions: probability of each action, a row a cluster (:attr:`.ClusterStudy.actions`).
        title: of the figure.
        columns: of the grid.
        top: how many actions to show, the likeliest.
    """
    shown = sorted(frames, key=lambda k: -counts[k])
    total, longest = sum(counts.values()), float(np.nanmax(actions.loc[shown]))
    rows = -(-len(shown) // columns)
    fig, grid = plt.subplots(
        2 * rows, columns, figsize=(1.95 * columns, 3.1 * rows + 0.4), height_ratios=[2.1, 0.9] * rows, squeeze=False
    )
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        picture, bars = grid[2 * row, column], grid[2 * row + 1, column]
        if place >= len(shown):
            picture.axis("off")
            bars.axis("off")
            continue
        k = shown[place]
        color = cluster_color(k)
        show_state(picture, frames[k], color, width=3.0)
        share = counts[k] / total
        picture.set_title(f"cluster {k}   {percent(share)}", fontsize=9.5, pad=4)
        picture.set_xlabel(f"n = {counts[k]:,}, mean value {values[k]:.2f}", fontsize=8, color=MUTED, labelpad=3)
        most = actions.loc[k].sort_values(ascending=False, kind="stable").iloc[:top][::-1]
        most = most[most > 0]
        bars.barh(range(len(most)), most, color=color, height=0.7)
        for y, value in enumerate(most):
            bars.text(value + 0.03 * longest, y, f"{value:.0%}", va="center", fontsize=7.5, color=INK)
        bars.set_yticks(range(len(most)), most.index, fontsize=7.5)
        bars.set(xlim=(0, 1.25 * longest), ylim=(-0.6, top - 0.4))
        bars.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        bars.tick_params(axis="x", labelsize=7.5)
        bars.grid(axis="y", visible=False)
        if place + columns >= len(shown):
            bars.set_xlabel("mean probability", fontsize=8.5, labelpad=2)
    fig.suptitle(title, fontsize=11)
    return fig


def plot_groupings(table: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """Groupings side by side: a row each, a panel a measure; hollow, PPO by itself and the null.

    Args:
        table, agreement: of :class:`.groupings.Groupings`; the first grouping is what others are to agree with.
    """
    first = table.index[0]
    panels = [(name, table) for name in ("silhouette in h", "coherence", "variance of policy", "variance of values")]
    panels.append(("adjusted Rand", agreement.loc[first]))
    figure, axes = plt.subplots(1, len(panels), figsize=(12.5, 0.36 * len(table) + 1.3), sharey=True)
    places = {name: -i for i, name in enumerate(table.index)}
    for ax, (measure, of) in zip(axes, panels, strict=True):
        for name, row in of[of[measure].notna()].iterrows():
            color = CLUSTER_COLORS[0] if name == first else MUTED
            ends = [[row[measure] - row[f"{measure} low"]], [row[f"{measure} high"] - row[measure]]]
            fill = "white" if np.isnan(table.loc[name, "groups"]) else color
            ax.errorbar(row[measure], places[name], xerr=ends, fmt="o", color=color, mfc=fill, ms=5.5, lw=1.6)
        ax.set_title(f"agreement with {first}" if of is not table else measure.replace("variance of", "explains"))
        ax.grid(axis="y", visible=False)
    units = ("mean silhouette", "share of steps\nbeyond chance", *["share of variance"] * 2, "adjusted Rand index")
    for ax, unit in zip(axes, units, strict=True):
        ax.set_xlabel(unit)
        ax.margins(x=0.08)
        ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    axes[0].set_yticks(list(places.values()), list(places))
    axes[0].set_ylim(min(places.values()) - 0.6, 0.6)
    return figure


def plot_alignment(table: pd.DataFrame, differences: pd.DataFrame, hidden: Sequence[str] = ()) -> Figure:
    """Concepts × groupings: what groups tell of each concept, and how far codes are from one other grouping.

    Args:
        table, differences: of :class:`.alignment.Alignment`, the latter against one grouping.
        hidden: concepts to mark: a frame doesn't show them.
    """
    names = list(table.index.unique("grouping"))
    told = ((table["balanced accuracy"] - table["chance"]) / (1 - table["chance"])).unstack()[names]
    told = told.loc[told.mean(axis=1).sort_values(ascending=False).index]
    nats = table["mutual information (nats)"].unstack().loc[told.index, names]
    nats = nats.dropna(axis=1, how="all")
    figure, axes = plt.subplots(
        1, 3, figsize=(13.5, 0.33 * len(told) + 2.3), sharey=True, width_ratios=[len(names), nats.shape[1], 4.2]
    )
    for ax, cells, title in zip(
        axes, (told, nats), ("balanced accuracy, 0: chance, 1: all", "mutual information (nats)"), strict=False
    ):
        most = max(float(np.nanmax(cells.to_numpy())), 0.1)
        drawn = ax.imshow(cells, cmap="cividis", vmin=0, vmax=most, aspect="auto")
        for (y, x), value in np.ndenumerate(cells.to_numpy()):
            ink = readable_ink(to_hex(drawn.cmap(drawn.norm(value))))
            ax.text(x, y, f"{value:.2f}".replace("-0.00", "0.00"), ha="center", va="center", fontsize=7.5, color=ink)
        ax.set_xticks(range(cells.shape[1]), cells.columns, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_title(title, fontsize=10)
        ax.grid(visible=False)
    axes[0].set_yticks(range(len(told)), [f"{c} °" if c in hidden else c for c in told.index])
    last = axes[2]
    for y, concept in enumerate(told.index):
        row = differences.loc[concept]
        ends = [[row["difference"] - row["difference low"]], [row["difference high"] - row["difference"]]]
        color, fill = (CLUSTER_COLORS[0],) * 2 if row["p"] < SIGNIFICANT else (MUTED, "white")
        last.errorbar(row["difference"], y, xerr=ends, fmt="o", color=color, mfc=fill, ms=5, lw=1.5)
    last.axvline(0, color=INK, linewidth=0.8)
    last.set_title("codes minus k-means on h", fontsize=10)
    last.set_xlabel("balanced accuracy, on the same levels")
    last.grid(axis="y", visible=False)
    return figure
