"""Parity: TOST over seeds by hand, and returns that are measured once, of the weights they say."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from interp_lib import InterpError
from interp_lib.common.outputs import Outputs, saved_outputs
from interp_lib.prototypes.parity import measure_parity, parity, parity_verdict, read_parity, save_parity, seed_pairs


def copy_run(source, folder, algorithm, seed, **changes):
    """A released pendulum run as that of another seed."""
    target = folder / f"{algorithm}-pendulum-s{seed}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(f"checkpoints/{source}", target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"seed": seed} | changes))


@pytest.fixture()
def folder(tmp_path):
    for seed in (0, 1):
        for algorithm in ("sac", "protosac"):
            copy_run(f"{algorithm}-pendulum-s{100 + seed}", tmp_path, algorithm, seed)
    return tmp_path


def rows(task, differences, first=100):
    """SAC returns 100 on every episode, random actions 0; ProtoSAC's two episodes lie 1 around its difference."""
    made = [(task, "random", 0, e, 0.0) for e in (7, 8)]
    for seed, difference in enumerate(differences, first):
        made += [(task, "sac", seed, e, 100.0) for e in (7, 8)]
        made += [(task, "protosac", seed, e, 100 + difference + sign) for e, sign in ((7, -1), (8, 1))]
    return pd.DataFrame(made, columns=["task", "algorithm", "training_seed", "episode_seed", "return"])


def test_parity_by_hand():
    # Differences of 1, 2 and 3% of the range: p = 0.01755 (see the statistics' tests), and one task more doubles it.
    table = parity(rows("pendulum", [1, 2, 3]))
    assert table.loc["pendulum", ["seeds", "episodes", "untouched", "verdict"]].tolist() == [3, 2, True, "equivalent"]
    assert table.loc["pendulum", ["random", "SAC", "ProtoSAC", "difference"]].tolist() == [0, 100, 102, 2]
    assert table["p"].item() == pytest.approx(0.01755, abs=1e-5)
    two = parity(pd.concat([rows("pendulum", [1, 2, 3]), rows("hopper", [-30, -31, -32], first=0)]))
    assert two["p"].tolist() == pytest.approx([2 * 0.01755, 1], abs=1e-3)
    assert two["verdict"].tolist() == ["equivalent", "worse by more than the margin"]
    assert parity_verdict(two).splitlines() == [
        "- Pendulum: equivalent; ProtoSAC's return differs by 2.0% (90% interval 0.3 to 3.7; 3 seeds; p = 0.035).",
        "- Hopper: worse by more than the margin; ProtoSAC's return differs by −31.0% (90% interval −32.7 to −29.3; "
        "3 seeds, none kept from tuning; p = 1).",
    ]
    assert parity(rows("pendulum", [1, 2, 3]), margin=3)["verdict"].item() == "not shown"


def test_only_seeds_of_both_count():
    measured = rows("pendulum", [1, 2, 3])
    measured = measured[(measured["training_seed"] != 102) | (measured["algorithm"] == "sac")]
    assert parity(measured).loc["pendulum", ["seeds", "difference"]].tolist() == [2, 1.5]
    assert parity(measured[measured["algorithm"] != "protosac"]).empty


def test_untouched_seeds_are_compared_alone_and_with_equal_training(folder):
    assert [sac.seed for sac, _ in seed_pairs(folder, "pendulum")] == [0, 1]
    copy_run("sac-pendulum-s102", folder, "sac", 100)
    assert [sac.seed for sac, _ in seed_pairs(folder, "pendulum")] == [0, 1]  # ProtoSAC has no such run yet
    copy_run("protosac-pendulum-s102", folder, "protosac", 100, timesteps=7)
    assert [sac.seed for sac, _ in seed_pairs(folder, "pendulum")] == [0, 1]
    copy_run("protosac-pendulum-s102", folder, "protosac", 100)
    assert [(sac.name, ours.name) for sac, ours in seed_pairs(folder, "pendulum")] == [
        ("sac-pendulum-s100", "protosac-pendulum-s100")
    ]
    assert seed_pairs(folder, "hopper") == []


def test_returns_are_measured_once_and_refused_of_other_weights(folder):
    with pytest.raises(InterpError, match="parity.csv is missing. Measure again: python tools/parity.py"):
        read_parity(folder)
    assert len(list(measure_parity(folder, ["pendulum", "hopper"], 3))) == 5  # random actions and four agents
    first = (folder / "parity.csv").read_bytes()
    assert list(measure_parity(folder, ["pendulum"], 3)) == [] and (folder / "parity.csv").read_bytes() == first
    outputs = Outputs(folder / "figures", "04")
    table = save_parity(folder, outputs)
    assert table.loc["pendulum", ["seeds", "episodes", "untouched"]].tolist() == [2, 3, False]
    # Both are good agents, and the range is random to SAC, some 1,100.
    assert abs(table["difference"].item()) < 5 and np.isfinite(table["difference low"].item())
    assert [(o.name, o.kind) for o in saved_outputs(folder / "figures")["04"]] == [
        ("parity", "figure"), ("parity_table", "table"),
    ]  # fmt: skip

    copy_run("protosac-pendulum-s102", folder, "protosac", 0)
    with pytest.raises(
        InterpError, match="returns of other weights than protosac-pendulum-s0's. Measure again"
    ) as error:
        read_parity(folder)
    assert "\n" not in str(error.value)
    (line,) = measure_parity(folder, ["pendulum"], 3)
    assert line.startswith("pendulum protosac 0: -") and len(read_parity(folder)) == 15

    shutil.rmtree(folder / "sac-pendulum-s1")
    assert list(measure_parity(folder, ["pendulum"], 3)) == [] and len(read_parity(folder)) == 9
    for damaged in (b"task\n", b"\xff,\n", first.replace(b"-", b"none", 1)):
        (folder / "parity.csv").write_bytes(damaged)
        with pytest.raises(InterpError, match="Remove it. Measure again"):
            read_parity(folder)
