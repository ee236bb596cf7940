"""The figures of fixed data look as they did: each is compared with its picture in tests/baseline.

After a change that is meant to be seen, draw the pictures anew and look at them:

    python -m pytest tests/test_figures.py --mpl-generate-path=tests/baseline
"""

from __future__ import annotations

import functools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from interp_lib.clusters.figures import cluster_gallery, draw_actions, draw_space
from interp_lib.common.graphs import END, draw_transitions
from interp_lib.common.statistics import NOTHING, Interval
from interp_lib.common.style import cluster_color, show_deviation, use_style
from interp_lib.evaluation.figures import plot_comparison, plot_levels, plot_published, plot_restricted
from interp_lib.prototypes import PrototypeStudy
from interp_lib.prototypes.faithfulness_figure import plot_faithfulness
from interp_lib.prototypes.figures import plot_gallery, plot_likeness
from interp_lib.prototypes.likeness import Leaders, Likeness
from interp_lib.prototypes.parity import plot_parity
from interp_lib.prototypes.states import PrototypePictures
from interp_lib.prototypes.usage import prototype_usage
from interp_lib.runs.curves import draw_curve, draw_published, draw_seeds, label_axes, plot_games
from interp_lib.runs.published import published_seeds

# matplotlib brings its own font and FreeType, so pictures hardly depend on the machine; the tolerance (RMS of 255 grey
# levels) forgives an edge smoothed otherwise, and not a marker that moved: see the last test.
TOLERANCE, DPI = 0.5, 50
_compared = pytest.mark.mpl_image_compare(
    baseline_dir="baseline", tolerance=TOLERANCE, savefig_kwargs={"dpi": DPI}, style="default"
)


def looks_as_before(draw):
    """Compare the figure that ``draw`` returns; in the project's style, which pytest-mpl would reset."""

    @_compared
    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        use_style()
        return draw(*args, **kwargs)

    return drawn


@pytest.fixture()
def rng():
    return np.random.default_rng(0)


def squares(count: int) -> np.ndarray:
    """Frames (count, 64, 64, 3), each with a square somewhere else."""
    frames = np.full((count, 64, 64, 3), 40, np.uint8)
    for i, frame in enumerate(frames):
        top, left = 8 + 5 * (i % 7), 8 + 9 * (i % 5)
        frame[top : top + 16, left : left + 16] = (220, 40 * (i % 6), 120)
    return frames


@looks_as_before
def test_learning_curves():
    steps = np.arange(1, 61) * 16_384
    runs = pd.DataFrame({s: 6 * (1 - np.exp(-steps / (4e5 + 5e4 * s))) for s in range(3)}, index=steps)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    draw_published(axes[0], published_seeds("sppo", "coinrun"), "SPPO", last_step=steps[-1])
    draw_curve(axes[0], steps, runs[0].to_numpy() + np.sin(steps / 3e4), method="sppo", label="SPPO here")
    draw_seeds(axes[1], runs, method="ppo", label="PPO, mean ± sd of 3 seeds")
    for ax in axes:
        label_axes(ax, "CoinRun")
    return figure


@looks_as_before
def test_spaces_and_actions(rng):
    code = np.arange(600) % 5
    points = np.column_stack([np.cos(code), np.sin(code)]) + 0.15 * rng.standard_normal((600, 2))
    shares = pd.DataFrame(rng.dirichlet(np.ones(6), 5), columns=["left", "right", "up", "down", "jump", "no-op"])
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    draw_space(axes[0], points, code, "FDR space (n = 600 states)", axis="z")
    draw_actions(axes[1], shares, dict.fromkeys(range(5), 120))
    return figure


@looks_as_before
def test_cluster_gallery():
    frames = squares(12).reshape(3, 4, 64, 64, 3)
    means = {k: show_deviation(frames[k].mean(0) - frames.mean((0, 1))) for k in range(3)}
    shares, titles = {0: 0.5, 1: 0.3, 2: 0.2}, ["mean − all", "medoid", "25% quantile"]
    return cluster_gallery(means, dict(enumerate(frames)), shares, {1: "The agent waits for a gap."}, titles=titles)


@looks_as_before
def test_transition_graph():
    counts = np.array([[0, 28, 12, 0, 0], [8, 0, 8, 12, 12], [20, 20, 0, 0, 2], [3, 1, 1, 0, 0]])
    transitions = (
        pd.DataFrame(counts, columns=[0, 1, 2, 3, END])
        .rename_axis("cluster")
        .rename_axis("next", axis=1)
        .stack()
        .to_frame("count")
    )
    transitions["probability"] = transitions["count"] / transitions["count"].groupby("cluster").transform("sum")
    centres = {0: np.array([0.0, 0.0]), 1: np.array([1.0, 0.2]), 2: np.array([0.4, 1.0]), 3: np.array([1.0, 1.0])}
    figure, ax = plt.subplots(figsize=(6, 6))
    shares, dwell = {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}, {0: 12.0, 1: 5.5, 2: 3.0, 3: 1.5}
    draw_transitions(ax, transitions, centres, shares, dict(enumerate(squares(4))), dwell)
    return figure


def level_rows() -> pd.DataFrame:
    rows = []
    for game, base in (("coinrun", 5.0), ("fruitbot", 9.0)):
        for agent, gain in (("SPPO", 1.5), ("PPO", 0.8), ("random", -2.0)):
            row = {"game": game, "agent": agent, "steps": 500_000, "actions": "sampled"}
            for side, shift in (("train", 0.4), ("unseen", 0.0)):
                mean = base + gain + shift
                row |= {side: mean, f"{side} low": mean - 0.4, f"{side} high": mean + 0.4}
            rows.append(row)
    return pd.DataFrame(rows)


@looks_as_before
def test_training_and_unseen_levels():
    return plot_levels(level_rows(), xlabel="return per episode (mean, 95% interval, n = 500)")


@looks_as_before
def test_number_of_training_levels():
    rows = level_rows().query("agent != 'random'")
    unseen = [name for name in rows if name.startswith("unseen")]
    few, more, most = (rows.assign(levels=n) for n in (50, 200, 1000))
    few[unseen] -= 2.5
    more[unseen] -= 1.0
    return plot_restricted(pd.concat([few, more, most]))


@looks_as_before
def test_comparison_of_two_algorithms():
    thresholds = np.linspace(0, 1, 41)
    profiles = {
        name: np.clip([1 - thresholds**p, 0.95 - thresholds**p, 1.05 - thresholds**p], 0, 1)
        for name, p in (("ppo", 0.7), ("sppo", 1.4))
    }
    table = pd.DataFrame(
        {"IQM": [0.42, 0.55], "IQM low": [0.4, 0.52], "IQM high": [0.45, 0.58]}
        | {"mean": [0.44, 0.53], "mean low": [0.42, 0.51], "mean high": [0.46, 0.55]},
        index=["PPO", "SPPO"],
    )
    by_task = {"coinrun": Interval(0.62, 0.57, 0.67), "fruitbot": Interval(0.71, 0.66, 0.76)}
    comparison = SimpleNamespace(
        baseline="ppo", other="sppo", table=table, thresholds=thresholds, profile=profiles.get,
        improvement=(Interval(0.66, 0.62, 0.7), by_task), unequal_improvement={"ninja": Interval(0.8, 0.7, 0.9)},
        scale="normalised return", unit="episodes", size=lambda: "n = 500 episodes of 1 seed",
        random_profile=lambda: 1 - thresholds**0.3,
    )  # fmt: skip
    return plot_comparison(comparison)


@looks_as_before
def test_all_games(rng):
    steps = 16_384 * np.arange(1, 61)
    curve = pd.Series(8 - 5 * np.exp(-steps / 4e5) + 0.4 * rng.standard_normal(60), index=steps)
    seeds = pd.DataFrame({seed: curve + 0.3 * rng.standard_normal(60) for seed in range(3)})
    games = {"CoinRun": curve, "Ninja": curve[:40]}
    return plot_games(
        {"ppo": games, "sppo": {"CoinRun": curve}}, dict.fromkeys(("ppo", "sppo"), dict.fromkeys(games, seeds))
    )


@looks_as_before
def test_published_and_here():
    table = pd.DataFrame(
        {"game": ["coinrun", "fruitbot"], "steps": [491_520, 1_769_472], "agent": ["SPPO", "PPO"], "here": [6.6, 14.0]}
        | {"here low": [5.9, np.nan], "here high": [7.3, np.nan]}  # a run that kept no spread has no interval
        | {"published mean": [6.4, 15.0], "published min": [6.0, 13.0], "published max": [7.0, 17.5], "seeds": [3, 3]}
    )
    return plot_published(table.set_index(["game", "steps", "agent"]))


@looks_as_before
def test_faithfulness():
    def intervals(means, index, columns=("loss", "low", "high"), spread=3.0):
        table = dict(zip(columns, (means, np.subtract(means, spread), np.add(means, spread)), strict=True))
        return pd.DataFrame(table | {"episodes": 30}, index=pd.Index(index))

    verdicts = ["not needed", "undecided", "needed"]
    controls = intervals([0.4, 70, -1, 8], ["top 1", "1 at random", "k-means states", "random states"])
    controls["verdict"] = ["not needed", "needed", "not needed", "undecided"]
    ablation = intervals([-0.5, 4, 12], [4, 0, 2]).assign(verdict=verdicts)
    pure = pd.concat(
        [
            intervals([0.8, 0.7, 0.1], ["leading prototype", "k-means", "random"], names, 0.05)
            for names in (("actions", "actions_low", "actions_high"), ("values", "values_low", "values_high"))
        ],
        axis=1,
    ).drop(columns="episodes")
    return plot_faithfulness(controls, ablation, pure, [cluster_color(k) for k in range(6)], "#8A2F86")


@looks_as_before
def test_parity():
    facts = {"difference": [0.5, -30, 4, 290], "difference low": [-1, -45, -9, np.nan]}
    facts |= {"difference high": [2, -15, 17, np.nan], "seeds": [5, 3, 2, 1]}
    facts["verdict"] = ["equivalent", "worse by more than the margin", "not shown", "not shown"]
    return plot_parity(pd.DataFrame(facts, index=["pendulum", "lunarlander", "halfcheetah", "hopper"]))


@looks_as_before
def test_likeness():
    means = {"nearest": [0.6, 0.3, 0.1], "near": [0.75, 0.5, 0.2]}
    means |= {"ratio": [0.4, 0.9, 8.0], "sharing": [3.5, np.nan, np.nan]}
    table = {name + end: factor * np.array(m) for name, m in means.items() for end, factor in
             (("", 1), ("_low", 0.8), ("_high", 1.2))}  # fmt: skip
    return plot_likeness(pd.DataFrame(table, index=["agent", "shuffled leaders", "chosen uniformly"]), "#8A2F86")


def usage_of(rng, prototypes: int = 6):
    return prototype_usage(rng.dirichlet(0.4 * np.arange(1, prototypes + 1), 300))


@looks_as_before
def test_prototype_gallery(rng):
    prototypes = SimpleNamespace(action_means=rng.normal(size=(6, 2)), action_stds=np.full((6, 2), 0.3))
    bounds = SimpleNamespace(low=-np.ones(2), high=np.ones(2))
    study = PrototypeStudy(SimpleNamespace(prototypes=prototypes, action_space=bounds), [])
    vars(study).update(
        pictures=PrototypePictures(squares(6), "nearest", "", tuple(f"speed {k}.0" for k in range(6))),
        usage=usage_of(rng),
        info=SimpleNamespace(action_names=("main engine", "side engine")),
        table=pd.DataFrame({"led": 0.0}, index=[f"P{k}" for k in range(6)]),  # nothing to say about when they lead
        likeness=Likeness(*[Leaders(*[NOTHING] * 4)] * 3, NOTHING, [(0, 5), (2, 5)], 300, 1),
    )
    return plot_gallery(study, columns=3)


def test_a_change_that_can_be_seen_is_above_the_tolerance(tmp_path):
    from matplotlib.testing.compare import compare_images

    use_style()
    pictures = []
    for move in (0.0, 0.25):
        rows = level_rows()
        rows.loc[0, "unseen"] += move  # one marker of eight
        pictures.append(tmp_path / f"{move}.png")
        plot_levels(rows, xlabel="return").savefig(pictures[-1], dpi=DPI)
    assert compare_images(*map(str, pictures), tol=TOLERANCE) is not None
