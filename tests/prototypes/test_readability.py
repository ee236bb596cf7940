"""The price of readability: rows made, kept and read; the front, the table and the sentence by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from interp_lib.common.errors import InterpError
from interp_lib.common.outputs import Outputs
from interp_lib.prototypes.outputs import save_baselines, save_front
from interp_lib.prototypes.readability import (
    COLUMNS,
    DISTILLED,
    ENCODER,
    MEASURES,
    MEDOIDS,
    OURS,
    SAC,
    SWEPT,
    baselines_table,
    front,
    front_verdict,
    keep_row,
    looks_alike,
    read_rows,
)
from interp_lib.prototypes.readability_figure import draw_front
from interp_lib.prototypes.readability_jobs import baseline_jobs, make_rows, scaled_return, sweep_jobs


def row(agent, scaled, near=None, sharing=2.0, *, task="lunarlander", settings="", ratio=0.4, k=32, wide=0.02, seed=0):
    """A row whose intervals are ``wide`` on both sides."""
    found = {"return": 200 * scaled, "scaled": scaled}
    if near is not None:
        found |= {"nearest": near - 0.1, "near": near, "ratio": ratio, "sharing": sharing}
    measured = {name: found.get(name, np.nan) for name in MEASURES}
    ends = {
        f"{name}{end}": v + sign * wide for name, v in measured.items() for end, sign in ((" low", -1), (" high", 1))
    }
    own = {} if near is None else {"K": k, "space": "observation", "temperature": 0.1, "sharpness_weight": 0.1}
    about = {"steps": 1000, "episodes": 10, "run": f"protosac-{task}-s{seed}", "made of": "abc", "revision": "def"}
    return {"task": task, "agent": agent, "seed": seed, "settings": settings} | own | measured | ends | about


ROWS = [
    row(SAC, 1.0, wide=0.0),
    row(DISTILLED, 0.7, 0.5, 9),
    row(MEDOIDS, 0.2, 0.95, 1.2),
    row(ENCODER, 1.02, 0.3, 4.5),
    row(OURS, 0.97, 0.9, 2.0),
    row(SWEPT, 0.99, 0.6, 5.0, settings="temperature=0.3", k=64),
    row(SWEPT, 0.90, 0.97, 1.5, settings="temperature=0.05"),
    row(SWEPT, 0.85, 0.95, 1.6, settings="temperature=0.07"),
]


@pytest.fixture()
def path(tmp_path):
    """The file, its rows kept in another order."""
    for one in reversed(ROWS):
        keep_row(tmp_path / "readability.csv", one)
    return tmp_path / "readability.csv"


@pytest.fixture()
def rows(path):
    return read_rows(path)


# The file


def test_rows_come_back_in_order_and_a_new_one_takes_the_place_of_the_old(path, rows):
    assert rows["agent"].tolist() == [one["agent"] for one in ROWS]
    assert rows["settings"].tolist()[5:] == ["temperature=0.05", "temperature=0.07", "temperature=0.3"]
    assert rows.loc[0, ["K", "near", "space"]].isna().tolist()[:2] == [True, True] and rows["K"].iloc[-1] == 64
    keep_row(path, ROWS[4] | {"scaled": 0.5})
    again = read_rows(path)
    pd.testing.assert_frame_equal(again.drop(index=4), rows.drop(index=4))
    assert again.loc[4, "scaled"] == 0.5 and len(again) == len(ROWS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace(",0.97,", ",much,", 1), "much"),
        (lambda text: text.replace("scaled low", "scaled lowest"), "no column scaled low"),
        (lambda text: text.replace("lunarlander,SAC,", "moonlander,SAC,"), "unknown task 'moonlander'"),
        (lambda text: text.replace("lunarlander,ProtoSAC,", "lunarlander,ProtoSAD,"), "unknown agent 'ProtoSAD'"),
        (lambda text: text.replace(",1000,10,", ",1000,ten,", 1), "ten"),
        (lambda text: text.replace(",0.97,", ",inf,", 1), "numbers that can't be"),
        (lambda text: text.replace("0.95,0.93,0.97", "1.95,0.93,0.97"), "numbers that can't be"),
        (lambda text: text + '"', "damaged"),
        (lambda text: "", "damaged"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(path, change, reason):
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(InterpError) as refused:
        read_rows(path)
    assert str(path) in str(refused.value) and reason in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(InterpError):
        keep_row(path, ROWS[0])  # and is not written over
    assert path.read_text() == change(text)


def test_a_missing_file_is_said_so(tmp_path):
    with pytest.raises(InterpError, match="does not exist"):
        read_rows(tmp_path / "readability.csv")


# What the rows say


def test_the_front_is_what_nothing_beats(rows):
    ours = rows[rows["agent"].isin((OURS, ENCODER, SWEPT))]
    assert front(ours, "near")["scaled"].tolist() == [1.02, 0.99, 0.97, 0.90]
    assert front(ours, "sharing", most=False)["scaled"].tolist() == [1.02, 0.97, 0.90]  # 5.0 share at 0.99: beaten
    twins = pd.DataFrame([row(SWEPT, 0.9, 0.8, settings="a"), row(SWEPT, 0.9, 0.85, settings="b")])
    assert front(twins, "near")["settings"].tolist() == ["b"]


def test_likeness_is_kept_by_intervals():
    kept = pd.Series(row(OURS, 1, 0.83, 2.9))
    assert looks_alike(kept)
    for name, value in (("near low", 0.79), ("ratio high", 0.51), ("sharing high", 3.1), ("near low", np.nan)):
        assert not looks_alike(kept.where(kept.index != name, value))


def test_the_verdict_names_the_best_that_is_readable_and_what_it_costs(rows):
    (said,) = front_verdict(rows).splitlines()
    assert said.startswith("- **LunarLander**: of 5 ProtoSAC agents 3 keep the bar")
    assert "the best of them returns 97% [95%, 99%] of what SAC gains" in said and "At least 95%: kept;" in said
    assert "the best of all returns 102%" in said.lower() and "costs 5% of that gain" in said

    assert "SAC distilled 70% (the bar is kept by 0 of 1), k-medoids 20% (the bar is kept by 1 of 1)." in said

    one = pd.DataFrame([row(SWEPT, 0.9, 0.9, settings="temperature=0.1"), row(SWEPT, 0.8, 0.2, settings="x=1")])
    said = front_verdict(one)
    assert "1 keeps the bar" in said and "At least 95%: not kept. No agent returns more." in said
    assert "temperature=0.1, seed 0" in said and "flattered" not in said and "Made of SAC" not in said
    none = front_verdict(pd.DataFrame([row(ENCODER, 1.1, 0.3)]))
    assert "of 1 ProtoSAC agents none keeps the bar" in none and "110%" in none


def test_the_table_is_of_baselines_alone(rows):
    table = baselines_table(rows)
    assert table.index.get_level_values("agent").tolist() == [SAC, DISTILLED, MEDOIDS, ENCODER, OURS]
    assert tuple(table.loc[("lunarlander", MEDOIDS, 0), ["near", "near low", "near high", "K"]]) == (
        0.95,
        0.93,
        0.97,
        32,
    )
    assert table.loc[("lunarlander", SAC, 0), ["near", "sharing"]].isna().all()


def test_scaled_return_pairs_episodes():
    sac, random = np.array([10.0, 30.0, 50.0]), np.array([0.0, 20.0, 40.0])  # episodes differ more than agents
    half = scaled_return((sac + random) / 2, sac, random)
    assert half == pytest.approx((0.5, 0.5, 0.5))
    assert scaled_return(random, sac, random).mean == 0 and scaled_return(sac, sac, random) == (1, 1, 1)


def test_the_figure_has_every_agent_the_bars_and_the_front(rows):
    other = pd.DataFrame([row(MEDOIDS, -0.1, 0.9, 1.1, task="pendulum"), row(OURS, 1, 0.9, 1.1, task="pendulum")])
    figure = draw_front(pd.concat([rows, other]))
    panels = figure.axes
    assert [axes.get_title() + axes.get_title("left") for axes in panels] == ["LunarLander", "Pendulum", "", ""]
    above, below = panels[0], panels[2]
    marks = [line.get_xydata()[0].tolist() for line in above.lines if line.get_linestyle() == "None"]
    assert sorted(marks) == sorted([one["near"], one["scaled"]] for one in ROWS[1:])
    bars = {(line.get_xdata()[0], line.get_linestyle()) for line in above.lines if len(set(line.get_xdata())) == 1}
    assert (0.8, "--") in bars and below.get_xlim()[0] > 9 > 1 > below.get_xlim()[1]  # fewer is at the right
    (steps,) = [line for line in above.lines if line.get_drawstyle().startswith("steps")]
    assert steps.get_xydata().tolist() == [[0.3, 1.02], [0.6, 0.99], [0.9, 0.97], [0.97, 0.90]]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:2] == ["ProtoSAC, K = 32", "ProtoSAC, K = 64"] and "SAC, k-medoids" in names


def test_outputs_say_how_many_episodes_and_where_they_come_from(rows, tmp_path):
    outputs = Outputs(tmp_path, "04")
    save_front(rows, outputs)
    save_baselines(rows, outputs)
    for name in ("readability_front", "readability_baselines"):
        said = json.loads((tmp_path / "04" / f"{name}.json").read_text())
        assert "n = 10 episodes" in said["caption"] and "95% bootstrap" in said["caption"]
        assert [run["name"] for run in said["runs"]] == ["protosac-lunarlander-s0"]


# Making rows


def test_baselines_of_released_pendulum_are_made_once(tmp_path):
    jobs = baseline_jobs([ROOT / "checkpoints"], ["pendulum"], episodes=2, states=400, seeds=[100], prototypes=8)
    assert [job.agent for job in jobs][:3] == [SAC, DISTILLED, MEDOIDS]
    jobs = [job for job in jobs if job.agent in (SAC, MEDOIDS)]
    path = tmp_path / "readability.csv"
    rows = make_rows(path, jobs, progress=False)
    assert rows["agent"].tolist() == [SAC, MEDOIDS] and list(rows.columns) == list(COLUMNS)
    assert rows.loc[0, ["scaled", "scaled low", "scaled high"]].tolist() == [1, 1, 1]
    assert rows.loc[1, "scaled"] < 1 and rows.loc[1, "K"] == 8 and rows.loc[1, "space"] == "observation"
    assert 0 <= rows.loc[1, "near low"] <= rows.loc[1, "near"] <= rows.loc[1, "near high"] <= 1

    path.write_text(path.read_text().replace(rows["revision"][1], "as before"))
    assert (make_rows(path, jobs, progress=False)["revision"] == "as before").all()
    others = baseline_jobs([ROOT / "checkpoints"], ["pendulum"], episodes=2, states=300, seeds=[100], prototypes=8)
    again = make_rows(path, [job for job in others if job.agent == MEDOIDS], progress=False)
    assert (again["revision"] == "as before").tolist() == [True, False]  # of other states


def test_a_sweep_trains_each_setting_and_goes_on_where_it_stopped(tmp_path):
    def jobs(values, steps=120):
        places = {"folders": [ROOT / "checkpoints"], "runs_dir": tmp_path / "runs"}
        return sweep_jobs("pendulum", steps, 3, values, **places, episodes=2, progress=False)

    values = {"n_prototypes": ["4"], "temperature": ["0.1", "0.5"]}
    path = tmp_path / "readability.csv"
    first, second = jobs(values)
    assert not first.made_of() and first.settings == "n_prototypes=4 temperature=0.1 (120 steps)"
    rows = make_rows(path, [first], progress=False)
    assert first.is_done(rows) and not second.is_done(rows)
    rows = make_rows(path, [first, second], progress=False)
    assert rows["temperature"].tolist() == [0.1, 0.5] and (rows["K"] == 4).all() and (rows["steps"] == 120).all()
    assert (rows["agent"] == SWEPT).all() and rows["run"].is_unique and (rows["seed"] == 3).all()
    for left in ("config.json", "policy.safetensors"):  # as a kill leaves it between two files
        (tmp_path / "runs" / rows["run"][1] / left).unlink()
    assert second.made_of() is None and second.is_done(rows)  # its row stays as long as nothing says otherwise
    (tmp_path / "empty.csv").write_text(",".join(COLUMNS) + "\n")
    again = make_rows(tmp_path / "empty.csv", [second], progress=False)
    pd.testing.assert_frame_equal(again, rows[1:].reset_index(drop=True))
    with pytest.raises(InterpError, match="unknown setting 'temprature'. Did you mean temperature"):
        jobs({"temprature": ["1"]})
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_what_can_not_be_measured_is_refused(tmp_path):
    with pytest.raises(InterpError, match="no seed of carracing has both"):
        baseline_jobs([ROOT / "checkpoints"], ["carracing"], episodes=2, seeds=[99])
    with pytest.raises(InterpError, match="two episodes or more, not 1"):
        baseline_jobs([ROOT / "checkpoints"], ["pendulum"], episodes=1)
