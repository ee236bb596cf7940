"""Every file that a command reads, damaged in every way, and the commands that read it.

Each gets one line that says what is wrong, quickly, and nothing is computed from wrong data. `list` and `verify` look
at many runs: they say it among the others and end with status 1.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY

from interp_lib import SPPO
from interp_lib.agents.sppo.agents import TRAINING_STATE
from interp_lib.agents.sppo.training_state import write_state
from interp_lib.cli import main
from interp_lib.clusters.collect import collect_states
from interp_lib.common.storage import read_json, read_tensors, write_json, write_tensors
from interp_lib.pipeline.release import evaluate_and_release
from interp_lib.runs.folder import load_agent, sha256

NAME = "sppo-fruitbot-s0"
PROTOTYPES = "protosac-pendulum-s100"  # a released run: its commands read the same kinds of files
OUTCOMES: collections.Counter = collections.Counter()
KILOBYTES_IN_GIGABYTE = 2**20

READERS = {
    "config.json": ("evaluate", "list", "verify", "release", "embed", "videos", "browse", "resume"),
    "policy.safetensors": ("evaluate", "verify", "release", "embed", "videos", "browse"),
    "progress.csv": ("resume", "release", "list", "verify"),
    "returns.csv": ("list", "verify"),
    "card.md": ("verify",),
    "descriptions.yml": ("release", "embed", "videos", "browse"),
    TRAINING_STATE: ("resume",),
    "states.h5": ("browse",),
    "campaign.csv": ("campaign",),
    f"{PROTOTYPES}/config.json": ("prototypes", "evaluate prototypes", "browse prototypes"),
    f"{PROTOTYPES}/policy.safetensors": ("browse prototypes", "prototypes", "evaluate prototypes"),
}


def arguments(command, folder):
    run, prototypes = folder / "checkpoints" / NAME, folder / PROTOTYPES
    return {
        "evaluate": ["evaluate", run, "--episodes", 2],
        "list": ["checkpoints", "list", "--folder", run.parent],
        "verify": ["checkpoints", "verify", "--folder", run.parent],
        "release": ["checkpoints", "release", folder / "runs" / NAME, "--episodes", 2, "--folder", folder / "out"],
        "embed": ["embed", run, "--steps", 4, "--out", folder / "out"],
        "videos": ["videos", run, "--episodes", 2, "--max-steps", 9, "--out", folder / "out"],
        "browse": ["browse", run, "--states", folder / "states.h5", "--export", folder / "out.html"],
        "resume": ["train", "sppo", "fruitbot", "--resume", "--run-dir", folder / "runs" / NAME, "--timesteps", 512,
                   "--device", "cpu", "--quiet"],
        "campaign": ["campaign", "status", "--file", folder / "campaign.csv"],
        "prototypes": ["prototypes", prototypes, "--episodes", 1, "--out", folder / "out"],
        "evaluate prototypes": ["evaluate", prototypes, "--episodes", 1],
        "browse prototypes": ["browse", prototypes, "--export", folder / "out.html"],
    }[command]  # fmt: skip


@pytest.fixture(scope="module")
def intact(tiny_sppo, tmp_path_factory):
    """Everything the commands read, in one folder; beside it, the same of another run."""
    folder = tmp_path_factory.mktemp("corpus")
    shutil.copytree(tiny_sppo, folder / "runs" / NAME)
    evaluate_and_release(tiny_sppo, folder / "checkpoints", episodes=2)
    collect_states(load_agent(folder / "checkpoints" / NAME), folder / "states.h5", steps=4, num_envs=4, progress=False)
    (folder / "campaign.csv").write_text("algorithm,env,seed,timesteps\nsppo,fruitbot,0,1000\n")
    for run in (folder / "runs" / NAME, folder / "checkpoints" / NAME):
        (run / "descriptions.yml").write_text("0: between $x{ and $y, it pays $5% or $6\n")
    shutil.copytree(ROOT / "checkpoints" / PROTOTYPES, folder / PROTOTYPES)
    other = folder / "other"
    shutil.copytree(ROOT / "checkpoints" / "protosac-lunarlander-s0", other / PROTOTYPES)
    SPPO("fruitbot", seed=1, device="cpu", **TINY).learn(128, run_dir=other / "run", progress=False)
    evaluate_and_release(other / "run", other / "checkpoints", episodes=2)
    collect_states(load_agent(other / "run"), other / "states.h5", steps=4, num_envs=4, progress=False)
    return folder


def places(folder, file):
    """Where ``file`` lies: in the run that is trained, in the released one, or beside them."""
    inside = [folder / "runs" / NAME / file, folder / "checkpoints" / NAME / file]
    return [path for path in (*inside, folder / file) if os.path.lexists(path)]


# -- damage: each takes a file and changes it -----------------------------------------------------------------------


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def directory(path):
    path.unlink()
    path.mkdir()


def loop(path):
    path.unlink()
    path.symlink_to(path.name)


def dangling(path):
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def huge(path):
    os.truncate(path, 12 * 2**30)  # sparse


def binary(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def utf16(path):
    path.write_bytes("total_timesteps,eprewmean\n1,2\n".encode("utf-16"))


ANYWHERE = (truncated, empty, directory, loop, dangling, pipe, huge, binary, utf16)
HARMLESS = {  # an empty or shortened text that is whole as it is, and a card that nobody parses
    *(("descriptions.yml", how) for how in (truncated, empty)),
    *(("card.md", how) for how in (truncated, empty, huge, binary, utf16)),
}


def flipped(path, at=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 4
    path.write_bytes(data)


def json_with(**values):
    def change(path):
        path.write_text(json.dumps({**read_json(path), **values}))

    change.__name__ = "with " + json.dumps(values)[:60]
    return change


def hyperparameters(**values):
    def change(path):
        config = read_json(path)
        path.write_text(json.dumps({**config, "hyperparameters": {**config["hyperparameters"], **values}}))

    change.__name__ = "hyperparameters " + json.dumps(values)[:60]
    return change


def text(content):
    def change(path):
        path.write_text(content)

    change.__name__ = f"text {content[:30]!r}"
    return change


def nan_weights(path):
    tensors = read_tensors(path)
    write_tensors(path, {name: tensor * float("nan") for name, tensor in tensors.items()})
    config = read_json(path.with_name("config.json"))
    if "files" in config:  # whoever changes weights can change a checksum
        write_json(path.with_name("config.json"), {**config, "files": {**config["files"], path.name: sha256(path)}})


def hostile_names(path):
    write_tensors(path, {"a\n\x1b[31mb": torch.zeros(3)})


def state_with(change):
    def write(path):
        state = torch.load(path, weights_only=True)
        change(state)
        write_state(state, path)

    write.__name__ = change.__name__
    return write


def empty_state(state):
    state.clear()


def without_env(state):
    del state["env"]


def fewer_envs(state):
    state["env"] = state["env"][:3]


def nan_network(state):
    state["network"]["value.weight"] *= float("nan")


def wrong_moments(state):
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(2)


def of_other_game(state):
    state["env"] = [torch.cat([part[:8], part[8:] + 1]) for part in state["env"]]


def cut_environments(path):
    state = torch.load(path, weights_only=True)
    state["env"] = [part[:-500] for part in state["env"]]
    torch.save(state, path)


def column(name, change):
    def write(path):
        with h5py.File(path, "r+") as file:
            values = change(file[name][:])
            del file[name]
            file.create_dataset(name, data=values)

    write.__name__ = f"column {name}"
    return write


def meta(**values):
    def write(path):
        with h5py.File(path, "r+") as file:
            file.attrs["meta"] = json.dumps({**json.loads(file.attrs["meta"]), **values})

    write.__name__ = f"meta {values}"
    return write


def claims_much(path):
    with h5py.File(path, "r+") as file:
        del file["feature"]
        file.create_dataset("feature", (16, 10**9), np.float32, chunks=(1, 1000))


def flipped_column(path):
    with h5py.File(path) as file:
        at = file["fdr"].id.get_chunk_info(0).byte_offset
    flipped(path, at + 9)


def other_rows(path):
    path.write_text(path.read_text() + "512,abc,xyz\n")


# What no config of any algorithm may say.
CONFIG: list = [
    text("[]"), text("3"), text("null"), text("[" * 10**5), text('{"a":' * 10**5),
    json_with(hyperparameters=None), json_with(hyperparameters=[1]), json_with(hyperparameters={}),
    json_with(results=None), json_with(results={"unseen": {"mean": "x"}}), json_with(timesteps=float("nan")),
    json_with(timesteps=float("inf")), json_with(timesteps=-5), json_with(timesteps="5"), json_with(format=99),
    json_with(seed=[]), json_with(env=7), json_with(env="ni\nja"), json_with(env="coinrun"),
    json_with(algorithm="ppo"), json_with(algorithm={}), json_with(history={}), json_with(history=[3]),
    json_with(training=[]), json_with(files=[]), json_with(provenance=[]),
]  # fmt: skip
ROWS = "total_timesteps,eprewmean,eplenmean\n"
SPECIAL = {
    "config.json": [
        *CONFIG, hyperparameters(num_codes="8"),
        hyperparameters(num_codes=10**12), hyperparameters(num_codes=8.5), hyperparameters(num_envs=10**9),
        hyperparameters(start_level=2147400000), hyperparameters(device="cpu"), hyperparameters(env="ninja"),
    ],
    "policy.safetensors": [flipped, nan_weights, hostile_names],
    f"{PROTOTYPES}/config.json": [
        *CONFIG, json_with(spaces={}), json_with(spaces={"observation": 3}), json_with(prototypes=[]),
        hyperparameters(n_prototypes=10**9), hyperparameters(n_prototypes="32"), hyperparameters(latent_dim=-1),
        hyperparameters(policy_kwargs={"net_arch": [10**9]}), hyperparameters(mixture="evil"),
    ],
    f"{PROTOTYPES}/policy.safetensors": [flipped, nan_weights, hostile_names],
    "progress.csv": [other_rows, text(ROWS), text(ROWS + "abc,xyz,1\n"), text(ROWS + "128,nan,1\n"),
                     text("a,b\n1,2\n"), text(ROWS + "384,inf,1\n"), text("x" * 100)],
    "returns.csv": [flipped, text("unseen\nnan\n"), text("a,b\nc,d\n")],
    "descriptions.yml": [
        text("[" * 10**5), text("0: 2020-99-99"), text("!!int x: y"), text("0: !!int x"), text("0: !!timestamp x"),
        text("? [1]\n: x"), text("99: x"), text("0: a\n0: b"), text("- a"), text("0: [a]"), text("&a 0: *b"),
    ],
    TRAINING_STATE: [
        flipped, cut_environments, *map(state_with, (empty_state, without_env, fewer_envs)),
        *map(state_with, (nan_network, wrong_moments, of_other_game)),
    ],
    "states.h5": [
        flipped_column, claims_much, meta(num_codes=10**9), meta(steps=10**9), meta(num_envs=-4), meta(num_codes="8"),
        column("fdr", lambda x: x * np.nan), column("fdr", lambda x: x[..., None]), column("action", lambda x: x + 99),
        column("obs", lambda x: x[:, :8, :8]), column("t", lambda x: x[::-1]), column("code", lambda x: x - 9),
        column("value", lambda x: x[:5]), column("kept", lambda x: x.astype(float)),
    ],
    "campaign.csv": [text("a,b\n"), text("algorithm,env,seed,timesteps\nsppo,ninja,x,1\n"),
                     text("algorithm,env,seed,timesteps\nsppo,ninja,1,nan\n")],
}  # fmt: skip


def others(file):
    def another_runs(path):
        if file == "states.h5":
            source = path.parent / "other" / file
        elif file.startswith(PROTOTYPES):
            source = path.parents[1] / "other" / file
        else:
            of = "run" if path.parts[-3] == "runs" else "checkpoints/run"
            source = path.parents[2] / "other" / of / file
        shutil.copyfile(source, path)

    return another_runs


def cases():
    for file, commands in READERS.items():
        damages = [how for how in ANYWHERE if (file, how) not in HARMLESS] + SPECIAL.get(file, [])
        if file not in ("card.md", "descriptions.yml", "campaign.csv") and not file.endswith("config.json"):
            damages.append(others(file))
        for how in damages:
            for command in commands:
                yield file, how, command


def is_fine(file, how, command):
    """What a command may take, because no wrong data come of it."""
    name = how.__name__
    return (
        # Weights of another run in the folder of one that is still trained: nothing says whose they are.
        (file == "policy.safetensors" and command == "release" and name in ("another_runs", "flipped"))
        # What comes after the last checkpoint's row, a resumed run writes again.
        or (file == "progress.csv" and command == "resume" and how is other_rows)
        # Zeros behind a whole file of HDF5.
        or (file == "states.h5" and how is huge)
    )


def damaged_copy(intact, folder, file, how):
    shutil.copytree(intact, folder, symlinks=True)
    for path in places(folder, file):
        how(path)


def attempt(folder, command, capsys):
    """Status and output of a command, in this process."""
    capsys.readouterr()
    began = time.process_time()
    status = main([str(argument) for argument in arguments(command, folder)])
    took = time.process_time() - began
    captured = capsys.readouterr()
    assert took < 10, f"{took:.0f} s"
    return status, captured.out, captured.err


def check(intact, folder, file, how, command, capsys):
    damaged_copy(intact, folder, file, how)
    what = f"{file}, {how.__name__}: {command}"
    status, out, err = attempt(folder, command, capsys)
    if is_fine(file, how, command):
        assert status == 0, (what, err)
        OUTCOMES["harmless"] += 1
    elif command in ("list", "verify"):
        assert status == 1 and file in out and err == "", (what, status, out, err)
        OUTCOMES["named among other runs"] += 1
    else:
        assert status == 2, (what, status, out, err)
        assert err.startswith("interp: ") and len(err.splitlines()) == 1 and err.rstrip("\n").isprintable(), (what, err)
        OUTCOMES["one line"] += 1
    shutil.rmtree(folder)


def memory(name):
    """VmRSS or VmHWM (its peak) of this process, in KiB."""
    return int(next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name)).split()[1])


def run_all(chosen, intact, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    OUTCOMES.clear()
    failures = []
    before = memory("VmRSS")  # of whatever ran in this process until now
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for number, (file, how, command) in enumerate(chosen):
        try:
            check(intact, tmp_path / str(number), file, how, command, capsys)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failures.append(f"{file}, {how.__name__}, {command}: {type(error).__name__} {error}"[:600])
    grown = (memory("VmHWM") - before) / KILOBYTES_IN_GIGABYTE
    with capsys.disabled():
        print(f"\ncorpus: {len(chosen)} commands, {dict(OUTCOMES)}, {len(failures)} failures, {grown:.1f} GiB more")
    assert not failures, "\n".join(failures)
    assert grown < 1.5


def test_every_damage_of_every_file_is_named_by_a_command_that_reads_it(intact, tmp_path, capsys, monkeypatch):
    """Each damage with one of the commands, in turn."""
    seen: collections.Counter = collections.Counter()
    chosen = []
    for file, how, command in cases():
        turn = READERS[file][seen[file] % len(READERS[file])]
        if command == READERS[file][-1]:
            chosen.append((file, how, turn))
            seen[file] += 1
    run_all(chosen, intact, tmp_path, capsys, monkeypatch)


@pytest.mark.slow
def test_every_damage_of_every_file_is_named_by_every_command(intact, tmp_path, capsys, monkeypatch):
    run_all(list(cases()), intact, tmp_path, capsys, monkeypatch)


def test_what_is_intact_goes_through(intact, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(intact, tmp_path / "copy")
    for command in (
        "list",
        "verify",
        "evaluate",
        "resume",
        "browse",
        "campaign",
        "videos",
        "evaluate prototypes",
        "browse prototypes",
    ):
        status, _, err = attempt(tmp_path / "copy", command, capsys)
        assert status == 0, (command, err)


@pytest.mark.parametrize(
    ("file", "how", "command"),
    [("config.json", text("[" * 10**5), "evaluate"), (TRAINING_STATE, state_with(of_other_game), "resume"),
     ("policy.safetensors", hostile_names, "evaluate"), (TRAINING_STATE, cut_environments, "resume")],
    ids=["deep-config", "state-of-another-game", "hostile-names", "cut-environments"],
)  # fmt: skip
def test_a_process_of_its_own_says_the_same(file, how, command, intact, tmp_path):
    damaged_copy(intact, tmp_path / "copy", file, how)
    line = [sys.executable, "-m", "interp_lib.cli", *map(str, arguments(command, tmp_path / "copy"))]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.rstrip("\n").isprintable(), done.stderr


def test_no_bit_of_a_training_state_can_be_flipped(intact, tmp_path):
    from interp_lib import InterpError
    from interp_lib.agents.sppo.training_state import read_state

    path = tmp_path / TRAINING_STATE
    whole = (intact / "runs" / NAME / TRAINING_STATE).read_bytes()
    dice = np.random.default_rng(0)
    taken = 0
    for at in dice.integers(0, len(whole), 40):
        data = bytearray(whole)
        data[at] ^= 1 << int(dice.integers(8))
        path.write_bytes(data)
        try:
            read_state(path)
            taken += 1
        except InterpError:
            pass
    assert taken == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["results"]["unseen"].update(mean=c["results"]["unseen"]["high"] + 0.5, high=999), "unseen"),
        (lambda c: c["results"]["train"].update(episodes=500), "train"),
        (lambda c: c.update(timesteps=25_000_000), "25,000,000 steps"),
    ],
)
def test_a_config_that_other_files_contradict_is_named(change, message, intact, tmp_path, capsys):
    shutil.copytree(intact / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / NAME / "config.json"
    config = read_json(path)
    change(config)
    write_json(path, config)
    for command in ("list", "verify"):
        status, out, _ = attempt(tmp_path, command, capsys)
        assert status == 1 and message in out
    assert main(["checkpoints", "pull", str(path.parents[1]), "--folder", str(tmp_path / "pulled")]) == 2
    assert not (tmp_path / "pulled" / NAME).exists()


def test_dollars_in_a_description_are_drawn_as_they_are():
    from interp_lib.clusters.figures import cluster_gallery

    frames = np.zeros((2, 64, 64, 3), np.uint8)
    for words in ("between $x{ and $y", "pays $5% or $6"):
        figure = cluster_gallery({0: frames[0]}, {0: frames}, {0: 1.0}, {0: words})
        figure.canvas.draw()


def test_states_that_another_collection_replaced_are_not_mixed_with_its_own(intact, tmp_path):
    from interp_lib import InterpError
    from interp_lib.clusters.states import load_states

    shutil.copyfile(intact / "states.h5", tmp_path / "states.h5")
    states = load_states(tmp_path / "states.h5")
    shutil.copyfile(intact / "other/states.h5", tmp_path / "states.h5")
    with pytest.raises(InterpError, match="replaced meanwhile"):
        states.frames([0, 1])
