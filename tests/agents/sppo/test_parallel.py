"""Data-parallel training: two real processes take the steps that one would, and hold the same statistics."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY

from interp_lib import SPPO, InterpError, load_agent
from interp_lib.agents.sppo.config import PPOConfig, SPPOConfig
from interp_lib.agents.sppo.kernels import fdr_loss
from interp_lib.agents.sppo.network import ActorCritic
from interp_lib.agents.sppo.parallel import Workers, own_device
from interp_lib.agents.sppo.rollout import EpisodeStatistics, RewardNormalizer
from interp_lib.agents.sppo.trainer import Trainer
from interp_lib.agents.sppo.update import Minibatch, Updater

CONFIGS = {"ppo": PPOConfig, "sppo": SPPOConfig}
BATCH = 24


def network(algorithm, seed=0):
    torch.manual_seed(seed)
    net = ActorCritic(15, **({"num_codes": 8} if algorithm == "sppo" else {}))
    with torch.no_grad():
        net.policy.weight.normal_(0, 0.3)  # ratios that clip, so that every branch of the loss has a gradient
    return net


def minibatch():
    g = torch.Generator().manual_seed(1)
    return Minibatch(
        obs=torch.randint(0, 256, (BATCH, 64, 64, 3), dtype=torch.uint8, generator=g),
        actions=torch.randint(0, 15, (BATCH,), generator=g),
        old_log_prob=torch.randn(BATCH, generator=g) * 0.3 - 2.7,
        old_value=torch.randn(BATCH, generator=g),
        # The halves differ in mean and spread: statistics of one half alone would be noticed.
        returns=torch.randn(BATCH, generator=g) * torch.linspace(0.5, 4, BATCH) + torch.linspace(-2, 2, BATCH),
    )


def take_steps(algorithm, workers=None, rows=slice(None)):
    """Three optimiser steps on the rows of the fixed minibatch → losses of each, weights."""
    net = network(algorithm)
    updater = Updater(net, CONFIGS[algorithm](env="ninja"), workers)
    batch = Minibatch(*(part[rows] for part in minibatch()))
    shares = [updater.step(batch, skill_weight=0.6) for _ in range(3)]
    losses = [{name: float(updater.workers.mean(loss)) for name, loss in share.items()} for share in shares]
    return losses, {name: w.detach() for name, w in net.state_dict().items()}


def recorded_training(workers_seed):
    """Two updates of a small trainer → what it holds afterwards, and the raw rewards of this worker's environments."""
    # Workers must not depend on having drawn the same weights.
    trainer = Trainer(network("sppo", seed=workers_seed), SPPOConfig(env="fruitbot", seed=0, **RECORDED))
    raw, (env,) = [], trainer.env.groups
    observe = env.observe

    def recording_observe():
        result = observe()
        raw.append((result.reward, result.done))
        return result

    env.observe = recording_observe
    rows = [trainer.update() for _ in range(2)]
    return {
        "weights": {name: w.detach() for name, w in trainer.network.state_dict().items()},
        "rows": rows,
        "normalizer": trainer.normalizer.state_dict(),
        "episodes": trainer.episodes.state_dict(),
        "rewards": np.stack([reward for reward, _ in raw]),
        "dones": np.stack([done for _, done in raw]),
        "first_obs": trainer._obs[0].numpy(),
    }


RECORDED = {**TINY, "num_steps": 48, "num_epochs": 1}


def worker(rank, port, folder):
    """What each of the two processes does."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    workers = Workers(torch.device("cpu"))
    result = {name: take_steps(name, workers, workers.share(BATCH)) for name in CONFIGS}
    result["training"] = recorded_training(workers_seed=rank)
    try:
        Trainer(network("ppo"), PPOConfig(env="fruitbot", num_envs=7, num_steps=16))
    except InterpError as error:
        result["odd"] = str(error)
    result["decision"] = workers.decide(rank == 0, rank == 1)
    torch.save(result, Path(folder) / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The results of both processes."""
    folder = tmp_path_factory.mktemp("parallel")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(worker, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("algorithm", list(CONFIGS))
def test_two_workers_on_the_halves_take_the_steps_of_one_process(ranks, algorithm):
    losses, weights = take_steps(algorithm)
    for rank in ranks:
        for one, two in zip(losses, rank[algorithm][0], strict=True):
            assert two == pytest.approx(one, rel=1e-4, abs=1e-5)
        for name, w in rank[algorithm][1].items():
            # Adam turns the rounding of gradients near zero into steps, so single weights differ by more than rounding.
            torch.testing.assert_close(w, weights[name], rtol=0, atol=3e-5, msg=lambda m, n=name: f"{n}: {m}")
    # The steps are far larger than the tolerance, and one half alone would have taken others.
    before, (_, half) = network(algorithm).state_dict(), take_steps(algorithm, rows=slice(0, BATCH // 2))
    for name in ("encoder.dense.weight", "value.weight"):
        assert (weights[name] - before[name]).abs().max() > 5e-4
        assert (weights[name] - half[name]).abs().max() > 1e-4


def test_workers_stay_alike_but_see_different_levels(ranks):
    a, b = (rank["training"] for rank in ranks)
    for name, w in a["weights"].items():
        assert torch.equal(w, b["weights"][name]), name
    assert not np.array_equal(a["first_obs"], b["first_obs"])
    assert a["first_obs"].shape[0] == RECORDED["num_envs"] // 2
    clock = {"fps", "time_elapsed"}
    for one, two in zip(a["rows"], b["rows"], strict=True):
        for name in one.keys() - clock:
            np.testing.assert_equal(one[name], two[name], err_msg=name)  # NaN equals NaN
    assert a["rows"][1]["total_timesteps"] == 2 * RECORDED["num_envs"] * RECORDED["num_steps"]


def test_reward_and_episode_statistics_are_those_of_one_process_with_all_environments(ranks):
    parts = [rank["training"] for rank in ranks]
    rewards, dones = (np.concatenate([part[name] for part in parts], axis=1) for name in ("rewards", "dones"))
    assert np.abs(rewards).sum() > 0 and dones.any()
    normalizer, episodes = RewardNormalizer(RECORDED["num_envs"]), EpisodeStatistics(RECORDED["num_envs"])
    for reward, done in zip(rewards, dones, strict=True):
        normalizer(reward, done)
        episodes.add(reward, done)
    for part in parts:
        assert part["normalizer"] == normalizer.state_dict()
        assert part["episodes"] == episodes.state_dict()


def test_the_first_worker_decides_and_uneven_shares_are_refused(ranks):
    for rank in ranks:
        assert rank["decision"] == (True, False)
        assert rank["odd"] == "7 environments can't be shared by 2 workers. Change --num-envs."


def test_the_fdr_loss_is_the_mean_of_its_shares():
    torch.manual_seed(0)
    h, z = torch.randn(8, 256), torch.randn(8, 2)
    halves = [fdr_loss(h, z, own=slice(i, i + 4)) for i in (0, 4)]
    torch.testing.assert_close(sum(halves) / 2, fdr_loss(h, z))


def test_alone_nothing_is_exchanged():
    workers, x = Workers(), torch.ones(3)
    assert workers.gather(x) is x and workers.mean(x) is x and workers.share(6) == slice(0, 6)
    assert workers.decide(True, False) == (True, False)
    assert own_device(torch.device("cuda")) == torch.device("cuda")


@pytest.mark.slow
def test_torchrun_trains_resumes_to_the_bit_and_leaves_a_run_folder(tmp_path):
    def train(run, updates, *more, nproc=2):
        options = [f"--{name.replace('_', '-')}={value}" for name, value in (TINY | {"skill_interval": 1}).items()]
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}", "-m", "interp_lib.cli"]
        command += ["train", "sppo", "fruitbot", f"--timesteps={128 * updates}", "--device=cpu", "--quiet", *options]
        return subprocess.run(
            [sys.executable, *command, f"--run-dir={tmp_path / run}", *more],
            capture_output=True,
            text=True,
            timeout=300,
        )

    for arguments in (("straight", 3), ("stopped", 2), ("stopped", 3, "--resume")):
        done = train(*arguments)
        assert done.returncode == 0, done.stderr
    straight, stopped = (load_agent(tmp_path / run, device="cpu") for run in ("straight", "stopped"))
    assert straight.timesteps == stopped.timesteps == 3 * 128
    for (name, a), b in zip(straight.network.state_dict().items(), stopped.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    a, b = (
        pd.read_csv(tmp_path / run / "progress.csv").drop(columns=["fps", "time_elapsed"])
        for run in ("straight", "stopped")
    )
    assert len(a) == 3
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    with pytest.raises(InterpError, match="2 worker.s., not 1. Resume it with torchrun --nproc-per-node 2"):
        SPPO.load(tmp_path / "straight", device="cpu", resume=True)
