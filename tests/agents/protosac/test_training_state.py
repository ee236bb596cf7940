"""The training state of SAC and ProtoSAC: a resume goes on exactly, and nothing that a folder holds runs or bursts."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import shutil
import time
import zipfile

import cloudpickle
import numpy as np
import pytest
import safetensors.torch
import torch

from interp_lib.agents.protosac import SAC, ProtoSAC, train_run
from interp_lib.agents.protosac.training import STATE, _load_state
from interp_lib.agents.protosac.training_state import _optimizers, read_state, write_state
from interp_lib.cli import main
from interp_lib.common.errors import InterpError
from interp_lib.envs.continuous import make_task_vec
from interp_lib.runs.training import LOCK

SMALL = {"net_arch": (32, 32), "batch_size": 32, "learning_starts": 50, "n_prototypes": 6, "latent_dim": 8}
ARGUMENTS = dict(learning_starts=20, batch_size=16, policy_kwargs={"net_arch": [32, 32]}, seed=3)
STATES = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)


def train(run_dir, algorithm="protosac", **options):
    options = {"overrides": SMALL, "timesteps": 60} | options
    return train_run(algorithm, "pendulum", run_dir=run_dir, progress=False, **options)


def resume(run_dir, capsys, algorithm="protosac", timesteps=70):
    """`interp train --resume` → exit status and what it printed as an error."""
    capsys.readouterr()
    arguments = ["train", algorithm, "pendulum", "--run-dir", str(run_dir), "--resume", "--quiet"]
    status = main([*arguments, "--timesteps", str(timesteps)])
    return status, capsys.readouterr().err


def refused(run_dir, capsys, message=""):
    began = time.monotonic()
    status, error = resume(run_dir, capsys)
    assert status == 2 and error.startswith("interp: ") and error.count("\n") == 1 and message in error, error
    assert time.monotonic() - began < 10


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return train(tmp_path_factory.mktemp("state") / "run")


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def rewrite(run_dir, change=lambda manifest: None, members=None, compress=()):
    """Write a state again, with checksums that fit: what somebody would who wants it to be read."""
    path = run_dir / STATE
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()} | (members or {})
    manifest = json.loads(content.pop("state.json"))
    manifest["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    change(manifest)
    text = json.dumps(manifest).replace('"DEEP"', "[" * 100_000 + "]" * 100_000).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name in compress else zipfile.ZIP_STORED)
        archive.writestr("state.json", text)
        archive.comment = hashlib.sha256(text).hexdigest().encode()


# -- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [SAC, ProtoSAC])
@pytest.mark.parametrize("case", ["begun", "learning", "full, two environments", "fixed entropy"])
def test_a_state_gives_back_all_of_the_agent(algorithm, case, tmp_path):
    options = {"ent_coef": 0.1} if case == "fixed entropy" else {"ent_coef": "auto_0.3"}
    n_envs = 2 if "two" in case else 1
    env = make_task_vec("pendulum", n_envs, 0)
    agent = algorithm("MlpPolicy", env, buffer_size=60 if "full" in case else 1000, **options, **ARGUMENTS)
    agent.task = "pendulum"
    agent.learn({"begun": 5, "learning": 230}.get(case, 90))
    agent.seconds_trained = 12.5
    write_state(agent, tmp_path / STATE)
    again = read_state(tmp_path / STATE, algorithm)

    for name, tensor in agent.policy.state_dict().items():
        assert torch.equal(tensor, again.policy.state_dict()[name]), name
    for name, optimizer in _optimizers(agent).items():
        ours, theirs = (o.state_dict() for o in (optimizer, _optimizers(again)[name]))
        assert ours["state"].keys() == theirs["state"].keys() and (case == "begun") == (not ours["state"])
        for number, memory in ours["state"].items():
            assert memory.keys() == theirs["state"][number].keys() == {"step", "exp_avg", "exp_avg_sq"}
            assert all(torch.equal(value, theirs["state"][number][key]) for key, value in memory.items())
    buffer, other = agent.replay_buffer, again.replay_buffer
    assert (buffer.pos, buffer.full, buffer.buffer_size) == (other.pos, other.full, other.buffer_size)
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        np.testing.assert_array_equal(getattr(buffer, name), getattr(other, name))
    for name in ("num_timesteps", "_n_updates", "_episode_num", "seconds_trained", "seed", "n_envs"):
        assert getattr(again, name) == getattr(agent, name), name
    assert [e["r"] for e in again.ep_info_buffer] == [float(e["r"]) for e in agent.ep_info_buffer]
    assert getattr(again, "_last_projection", None) == getattr(agent, "_last_projection", None)
    if case == "begun":
        return
    for each in (agent, again):  # and they go on alike
        np.random.seed(1)
        torch.manual_seed(1)
        each._logger = agent.logger
        each._current_progress_remaining = 0.5
        each.train(5, 16)
    for name, tensor in agent.policy.state_dict().items():
        assert torch.equal(tensor, again.policy.state_dict()[name]), name
    env.close()


def test_a_run_resumed_before_learning_begins_explores_anew(tmp_path):
    run = train(tmp_path / "run", timesteps=20)
    train(run, timesteps=40, resume=True, overrides=None)
    actions = _load_state(run, "protosac", "pendulum").replay_buffer.actions
    assert np.abs(actions[:40]).min() > 0 and not np.isin(actions[20:40], actions[:20]).any()


def test_a_config_that_was_to_follow_the_state_follows_it_on_resume(run, capsys):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"timesteps": 10}))
    assert resume(run, capsys, timesteps=60) == (0, "")
    assert json.loads((run / "config.json").read_text()) == config
    assert resume(run, capsys, timesteps=60) == (2, f"interp: {run} is already at 60 steps. Ask for more timesteps.\n")
    (run / "config.json").unlink()
    assert resume(run, capsys)[0] == 0
    assert json.loads((run / "config.json").read_text())["timesteps"] == 70

    (run / "config.json").write_text(json.dumps(config | {"seed": 5}))
    refused(run, capsys, "are of different runs")


def test_settings_given_to_a_resume_are_refused(run, capsys):
    before = (run / STATE).read_bytes()
    for settings in (["--batch-size", "16"], ["--set", "batch_size=16"]):
        assert main(["train", "protosac", "pendulum", "--run-dir", str(run), "--resume", "--quiet", *settings]) == 2
        assert "a resumed run keeps its settings" in capsys.readouterr().err
    assert (run / STATE).read_bytes() == before


@pytest.mark.parametrize("arguments", [[], ["--resume"]])
@pytest.mark.parametrize("algorithm", ["sac", "protosac"])
def test_a_folder_without_a_state_is_started_over(arguments, algorithm, tmp_path, capsys):
    small = ["--set", "net_arch=32,32", "--timesteps", "4", "--run-dir", str(tmp_path), "--quiet"]
    (tmp_path / LOCK).touch()
    for curve in (None, "total_timesteps\n", "total_timesteps,eprewmean\n100,-3\n"):
        if curve is not None:
            (tmp_path / "progress.csv").write_text(curve)
        (tmp_path / ".training_state.zip.abcd1234").write_text("what a killed process was writing")
        assert main(["train", algorithm, "pendulum", *small, *arguments]) == 0, capsys.readouterr().err
        assert (tmp_path / "progress.csv").read_text().count("\n") > 1
        assert not list(tmp_path.glob(".training_state*"))
        for name in ("config.json", STATE, "policy.safetensors"):
            (tmp_path / name).unlink()
        (tmp_path / "progress.csv").unlink()
    assert (tmp_path / "progress.csv.old").read_text() == "total_timesteps,eprewmean\n100,-3\n"


def test_an_agent_without_a_state_is_not_overwritten(run, capsys):
    (run / STATE).unlink()
    before = (run / "policy.safetensors").read_bytes()
    refused(run, capsys, "no training state to go on from")
    (run / "config.json").unlink()
    refused(run, capsys, "no training state to go on from")
    assert (run / "policy.safetensors").read_bytes() == before


# -- nothing runs ---------------------------------------------------------------------------------------------------


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def serialized(mark):
    return {":type:": "<class 'x'>", ":serialized:": base64.b64encode(cloudpickle.dumps(Payload(mark))).decode()}


def earlier_state(run_dir, mark, where):
    """A state as it was written before, with a payload."""
    agent = ProtoSAC("MlpPolicy", make_task_vec("pendulum"), buffer_size=100, **ARGUMENTS)
    agent.task = "pendulum"
    saved = io.BytesIO()
    agent.save(saved)
    with zipfile.ZipFile(saved) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if where == "policy.pth":
        evil = io.BytesIO()
        torch.save({"state_dict": {}, "evil": Payload(mark)}, evil)
        content["policy.pth"] = evil.getvalue()
    else:
        content["data"] = json.dumps(json.loads(content["data"]) | {where: serialized(mark)}).encode()
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with zipfile.ZipFile(run_dir / STATE, "w") as archive:
        archive.writestr("agent.zip", inner.getvalue())
        archive.writestr("position", "0")
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
            array = io.BytesIO()
            np.save(array, getattr(agent.replay_buffer, name)[:0])
            archive.writestr(f"replay/{name}.npy", array.getvalue())


@pytest.mark.parametrize("where", ["an_extra_key", "lr_schedule", "policy.pth"])
def test_a_state_of_the_earlier_format_is_refused_and_runs_nothing(where, run, tmp_path, capsys):
    earlier_state(run, tmp_path / "mark", where)
    refused(run, capsys, "is of an earlier version, whose states could run code")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("where", ["config", "manifest", "lr", "tensors", "array", "another member"])
def test_nothing_in_a_state_is_unpickled(where, run, tmp_path, capsys):
    mark = tmp_path / "mark"
    pickled, array = io.BytesIO(), io.BytesIO()
    torch.save(Payload(mark), pickled)
    np.save(array, np.array([Payload(mark)] * 60, object), allow_pickle=True)

    def put(manifest):
        if where == "config":
            manifest["config"]["evil"] = serialized(mark)
            manifest["config"]["hyperparameters"]["evil"] = serialized(mark)
        elif where == "lr":
            manifest["config"]["hyperparameters"]["learning_rate"] = serialized(mark)
        elif where == "manifest":
            manifest["evil"] = manifest["position"] = serialized(mark)

    members = {
        "tensors": {"tensors.safetensors": pickled.getvalue()},
        "array": {"replay/rewards.npy": array.getvalue()},
        "another member": {"policy.pth": pickled.getvalue()},
    }.get(where)
    rewrite(run, put, members)
    refused(run, capsys)
    assert not mark.exists()


# -- nothing explodes, nothing damaged is used ----------------------------------------------------------------------


def npy(shape, data=b""):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def setting(**changes):
    return lambda manifest: manifest["config"]["hyperparameters"].update(changes)


def top(**changes):
    return lambda manifest: manifest.update(changes)


BOMBS = {
    "a member that unfolds": dict(members={"replay/rewards.npy": bytes(200_000_000)}, compress=["replay/rewards.npy"]),
    "a long manifest": dict(change=top(padding="x" * 17_000_000)),
    "a deep manifest": dict(change=top(padding="DEEP")),
    "a header of 10^12 elements": dict(members={"replay/rewards.npy": npy((10**12, 1))}),
    "wide layers": dict(change=setting(policy_kwargs={"net_arch": [10**9]})),
    "layers without end": dict(change=setting(policy_kwargs={"net_arch": [32] * 10**6})),
    "many critics": dict(change=setting(policy_kwargs={"net_arch": [32, 32], "n_critics": 10**9})),
    "many prototypes": dict(change=setting(n_prototypes=10**9)),
    "many dimensions": dict(change=setting(latent_dim=10**12)),
    "a large buffer": dict(change=setting(buffer_size=10**15)),
    "a larger one": dict(change=setting(buffer_size=10**30)),
    "a full large one": dict(change=lambda m: (setting(buffer_size=10**12)(m), top(filled=10**12, position=0)(m))),
    "many environments": dict(change=top(n_envs=10**6)),
    "large observations": dict(
        change=lambda m: m["config"]["spaces"]["observation"].update(shape=[10**6, 10**6], low="-inf", high="inf")
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_sizes_are_checked_before_memory_is_taken(bomb, run, capsys):
    rewrite(run, **BOMBS[bomb])
    refused(run, capsys)


def tensors_with(run_dir, **changes):
    with zipfile.ZipFile(run_dir / STATE) as archive:
        tensors = safetensors.torch.load(archive.read("tensors.safetensors"))
    for name, change in changes.items():
        found = name.replace("__", ".")
        tensors[found] = change(tensors[found])
    return {"tensors.safetensors": safetensors.torch.save(tensors)}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("policy__actor__means", lambda t: torch.full_like(t, float("nan"))),
        ("critic__optimizer__0__exp_avg", lambda t: t / 0),
        ("critic__optimizer__0__exp_avg_sq", lambda t: t[:1]),
        ("policy__actor__means", lambda t: t.double()),
    ],
)
def test_weights_that_are_not_finite_or_do_not_fit_are_refused(name, change, run, capsys):
    rewrite(run, members=tensors_with(run, **{name: change}))
    refused(run, capsys)


@pytest.mark.parametrize(
    "change",
    [
        top(format=99), top(config=None), top(config=[]), top(counters={}), top(position=3), top(position=-1),
        top(filled=10), top(n_envs=0), top(seconds_trained="long"), top(episodes=[{}]), top(sha256=None),
        lambda m: m.pop("sha256"), lambda m: m["counters"].update(num_timesteps="8"),
        lambda m: m["config"].pop("hyperparameters"), lambda m: m["config"].update(env="hopper"),
        lambda m: m["config"].update(algorithm="sac"), lambda m: m["config"].update(timesteps=-1),
    ],
)  # fmt: skip
def test_a_manifest_of_the_wrong_kind_is_one_line(change, run, capsys):
    rewrite(run, change)
    refused(run, capsys)


def test_what_is_in_the_place_of_a_state_is_one_line(run, tmp_path, capsys):
    content = (run / STATE).read_bytes()

    def is_refused(make):
        (run / STATE).unlink()
        make(run / STATE)
        refused(run, capsys)
        (run / STATE).rmdir() if (run / STATE).is_dir() else (run / STATE).unlink()
        (run / STATE).touch()

    for length in (0, 10, len(content) // 2, len(content) - 1):
        is_refused(lambda path, length=length: path.write_bytes(content[:length]))
    is_refused(lambda path: path.write_bytes(np.random.default_rng(0).bytes(10_000)))
    is_refused(lambda path: path.mkdir())
    is_refused(lambda path: path.symlink_to(path))
    is_refused(lambda path: path.symlink_to(tmp_path / "nowhere"))
    with (run / STATE).open("wb") as file:
        file.truncate(12 * 10**9)  # takes no room on the disk
    refused(run, capsys)


def test_no_flipped_bit_changes_what_is_read(original, tmp_path):
    content, path = (original / STATE).read_bytes(), tmp_path / STATE
    expected = read_state(original / STATE, ProtoSAC)
    dice, refusals = random.Random(0), 0
    where = [dice.randrange(len(content)) for _ in range(60)] + [dice.randrange(-4000, 0) for _ in range(60)]
    for byte in where:
        altered = bytearray(content)
        altered[byte] ^= 1 << dice.randrange(8)
        path.write_bytes(altered)
        try:
            agent = read_state(path, ProtoSAC)
        except InterpError as error:
            assert "\n" not in str(error)
            refusals += 1
            continue
        for name, tensor in expected.policy.state_dict().items():  # a date in the archive's directory, say
            assert torch.equal(tensor, agent.policy.state_dict()[name])
        np.testing.assert_array_equal(agent.replay_buffer.observations, expected.replay_buffer.observations)
        assert agent.num_timesteps == expected.num_timesteps
    print(f"{refusals} of {len(where)} flipped bits refused, the others without effect")
    assert refusals >= 60
