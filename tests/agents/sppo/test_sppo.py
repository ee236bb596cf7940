"""PPO and SPPO as users meet them: learn, resume, predict, save, load, and the messages when something is wrong."""

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY

from interp_lib import PPO, SPPO, InterpError, load_agent
from interp_lib.agents.sppo.agents import TRAINING_STATE
from interp_lib.agents.sppo.config import SPPOConfig
from interp_lib.agents.sppo.network import ActorCritic
from interp_lib.agents.sppo.rollout import EpisodeStatistics, RewardNormalizer
from interp_lib.agents.sppo.trainer import PROGRESS_COLUMNS, Trainer
from interp_lib.common.storage import read_json
from interp_lib.envs.actions import NUM_ACTIONS
from interp_lib.envs.procgen import ProcgenVec
from interp_lib.runs.card import render_card
from interp_lib.runs.folder import find_runs

STEPS = 128  # of one update with TINY
CLOCK = ["fps", "time_elapsed"]


def observations(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)


def test_training_leaves_a_run_folder_with_one_row_an_update(tiny_sppo):
    progress = pd.read_csv(tiny_sppo / "progress.csv")
    assert tuple(progress.columns) == PROGRESS_COLUMNS
    assert progress["total_timesteps"].tolist() == [STEPS, 2 * STEPS, 3 * STEPS]
    assert progress[["policy_loss", "value_loss", "skill_loss", "vq_loss"]].notna().all(axis=None)
    agent = load_agent(tiny_sppo)
    assert isinstance(agent, SPPO) and agent.timesteps == 3 * STEPS
    assert "last_episodes" not in agent._training  # none has ended yet


def test_training_changes_every_weight_and_ppo_has_no_semantic_module():
    agent = SPPO("ninja", seed=0, device="cpu", skill_interval=1, **TINY)
    before = {name: w.clone() for name, w in agent.network.state_dict().items()}
    agent.learn(STEPS, progress=False)
    agent._trainer.skill_weight = 1.0  # the FDR layers and the codebook learn only through the skill term
    agent.learn(2 * STEPS, progress=False)
    unchanged = [name for name, w in agent.network.state_dict().items() if torch.equal(w, before[name])]
    assert unchanged == []
    assert PPO("ninja", device="cpu").network.semantic is None


@pytest.mark.parametrize("cls", [PPO, SPPO])
def test_resuming_gives_the_same_bits_as_not_stopping(cls, tmp_path):
    options = dict(seed=3, device="cpu", **TINY)
    how = {"progress": False, "save_seconds": 0}
    straight = cls("coinrun", **options).learn(4 * STEPS, run_dir=tmp_path / "straight", keep_every=200, **how)
    cls("coinrun", **options).learn(2 * STEPS, run_dir=tmp_path / "stopped", **how)
    kept = find_runs(tmp_path / "straight/steps")
    assert [(run.name, run.timesteps) for run in kept] == [("000000256", 2 * STEPS), ("000000512", 4 * STEPS)]
    for name, weights in load_agent(kept[0].path).network.state_dict().items():
        assert torch.equal(weights, load_agent(tmp_path / "stopped").network.state_dict()[name]), name
    # A kill after a row was written and before its checkpoint leaves a row too many.
    with (tmp_path / "stopped/progress.csv").open("a") as file:
        file.write("384,1,1\n")
    resumed = cls.load(tmp_path / "stopped", device="cpu", resume=True)
    resumed.learn(4 * STEPS, run_dir=tmp_path / "stopped", progress=False)
    for (name, a), b in zip(straight.network.state_dict().items(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    a, b = (pd.read_csv(tmp_path / run / "progress.csv").drop(columns=CLOCK) for run in ("straight", "stopped"))
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_environments_in_groups_record_what_happened_and_resume_to_the_bit():
    def trainer(**options):
        torch.manual_seed(0)
        network = ActorCritic(NUM_ACTIONS, num_codes=8)
        return Trainer(network, SPPOConfig(env="coinrun", seed=5, **TINY), env_threads=2, **options)

    grouped = trainer(env_groups=2)
    start, n = grouped.env.get_state(), TINY["num_envs"]
    assert len({*start}) == n  # the groups draw levels of their own
    first = grouped.obs.copy()
    batch, *_ = grouped._collect()
    obs, actions = (part.numpy().reshape(TINY["num_steps"], n, *part.shape[1:]) for part in batch[:2])
    replay = ProcgenVec("coinrun", n, seed=99)
    replay.set_state(start)
    np.testing.assert_array_equal(obs[0], first)
    normalizer, episodes = RewardNormalizer(n), EpisodeStatistics(n)
    for t in range(len(obs)):
        step = replay.step(actions[t])
        np.testing.assert_array_equal(step.obs, obs[t + 1] if t + 1 < len(obs) else grouped.obs)
        normalizer(step.reward, step.done)
        episodes.add(step.reward, step.done)
    assert grouped.normalizer.state_dict() == normalizer.state_dict()
    assert grouped.episodes.state_dict() == episodes.state_dict()

    straight, stopped = trainer(env_groups=2), trainer(env_groups=2)
    rows = [straight.update() for _ in range(3)]
    for _ in range(2):
        stopped.update()
    resumed = trainer(env_groups=2)
    resumed.load_state_dict(stopped.state_dict())
    last = resumed.update()
    for name in last.keys() - set(CLOCK):
        np.testing.assert_equal(last[name], rows[-1][name], err_msg=name)  # NaN equals NaN


@pytest.mark.parametrize("says_its_device", [True, False])
def test_a_state_as_a_gpu_writes_it_goes_on_here_with_new_dice_and_says_so(
    says_its_device, tiny_sppo, tmp_path, monkeypatch
):
    run_dir = Path(shutil.copytree(tiny_sppo, tmp_path / "run"))
    state = torch.load(run_dir / TRAINING_STATE, weights_only=True)
    assert state.pop("device") == "cpu"
    if says_its_device:
        state["device"] = "cuda"  # early states don't
    state["generator"] = torch.arange(16, dtype=torch.uint8)  # a seed and an offset of Philox
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(state, run_dir / TRAINING_STATE)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(run_dir / TRAINING_STATE, weights_only=True)

    agent = SPPO.load(run_dir, device="cpu", resume=True)
    now = agent._trainer.state_dict()
    torch.testing.assert_close(now["network"], state["network"], rtol=0, atol=0)
    torch.testing.assert_close(now["optimizer"], state["optimizer"], rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(now["env"], state["env"], strict=True))
    assert (now["normalizer"], now["episodes"]) == (state["normalizer"], state["episodes"])
    seed = agent.config.seed + 3  # three updates: neither the first dice nor those of another moment
    assert torch.equal(now["generator"], torch.Generator().manual_seed(seed).get_state())

    agent.learn(4 * STEPS, run_dir=run_dir, progress=False)
    again = SPPO.load(run_dir, device="cpu", resume=True)
    again.learn(5 * STEPS, run_dir=run_dir, progress=False)
    again.learn(5 * STEPS, run_dir=run_dir, progress=False)  # all done: no slice of nothing
    first, other, own = again.history
    assert [part["to"] for part in again.history] == [3 * STEPS, 4 * STEPS, 5 * STEPS]
    assert (other["device"], other["new_dice"]) == ("cpu", seed)
    assert "new_dice" not in first and "new_dice" not in own
    card = render_card(read_json(run_dir / "config.json"))
    assert "- steps 384 to 640 on" in card and f"fp32, with PyTorch {torch.__version__}" in card
    assert card.count(f"its dice start from seed {seed}") == 1


def test_going_on_from_a_release_keeps_counters_and_reward_scale(tiny_sppo, tmp_path):
    agent = SPPO.load(tiny_sppo, device="cpu")
    agent.learn(4 * STEPS, progress=False)
    assert agent.timesteps == 4 * STEPS
    assert [part["to"] for part in agent.history] == [3 * STEPS, 4 * STEPS]
    # The count of the reward statistics is that of all steps, not of the new ones.
    assert agent._trainer.normalizer.count == pytest.approx(4 * STEPS, abs=1)


def test_predict_is_what_the_logits_say(tiny_sppo):
    agent, obs = load_agent(tiny_sppo, device="cpu"), observations(6)
    actions, state = agent.predict(obs, deterministic=True)
    np.testing.assert_array_equal(actions, agent.embed(obs).logits.argmax(1))
    assert state is None and agent.predict(obs[0], deterministic=True)[0] == actions[0]
    agent.seed_sampling(1)
    first = agent.predict(obs)[0]
    agent.seed_sampling(1)
    np.testing.assert_array_equal(first, agent.predict(obs)[0])


def test_embed_gives_shapes_and_codes_of_the_nearest_vectors(tiny_sppo, tiny_ppo):
    obs = observations(5)
    e = load_agent(tiny_sppo, device="cpu").embed(obs, batch_size=2)
    assert (e.logits.shape, e.value.shape, e.feature.shape, e.fdr.shape) == ((5, 15), (5,), (5, 256), (5, 2))
    codebook = load_agent(tiny_sppo, device="cpu").network.semantic.codebook.detach().numpy()
    np.testing.assert_array_equal(e.code, np.square(e.fdr[:, None] - codebook).sum(-1).argmin(1))
    plain = load_agent(tiny_ppo, device="cpu").embed(obs)
    assert plain.fdr is None and plain.code is None
    with pytest.raises(InterpError, match="uint8"):
        load_agent(tiny_ppo).embed(obs.astype(np.float32))


def test_saved_and_loaded_agents_act_alike(tiny_sppo, tmp_path):
    agent, obs = load_agent(tiny_sppo, device="cpu"), observations(4)
    agent.save(tmp_path / "copy")
    again = SPPO.load(tmp_path / "copy", device="cpu")
    np.testing.assert_array_equal(agent.embed(obs).logits, again.embed(obs).logits)
    agent.save(tmp_path / "half", half=True)
    size = [(tmp_path / name / "policy.safetensors").stat().st_size for name in ("half", "copy")]
    assert size[0] < 0.55 * size[1]
    np.testing.assert_allclose(load_agent(tmp_path / "half").embed(obs).logits, again.embed(obs).logits, atol=1e-3)


def test_the_code_sends_no_gradient_into_the_features():
    agent = SPPO("ninja", device="cpu")
    out = agent.network(torch.from_numpy(observations(2)))
    out.logits.sum().backward()
    assert agent.network.semantic.hidden.weight.grad is None and agent.network.semantic.codebook.grad is None
    assert agent.network.encoder.dense.weight.grad is not None


def test_the_skill_weight_follows_the_return():
    agent = SPPO("fruitbot", device="cpu", **TINY)
    trainer = agent._make_trainer()
    assert trainer._next_skill_weight() == 0.0  # no episode has ended
    for mean, expected in ((-3.0, 0.0), (12.96, 0.5), (40.0, 1.0)):  # 0.8 · 32.4 = 25.92
        trainer.episodes.returns.extend([mean] * 100)
        assert trainer._next_skill_weight() == pytest.approx(expected)


def test_the_skill_weight_changes_before_every_nth_update_as_in_the_reference():
    trainer = SPPO("fruitbot", seed=0, device="cpu", **TINY | {"skill_interval": 2})._make_trainer()
    trainer.episodes.returns.extend([12.96] * 100)
    map_weights = trainer.network.semantic.hidden.weight
    rows, moved = [], []
    for _ in range(4):
        expected, before = trainer._next_skill_weight(), map_weights.detach().clone()
        rows.append((trainer.update()["skill_weight"], expected))
        moved.append(bool((map_weights != before).any()))
    # Update 2 is the first with λ > 0, of the episodes before its rollout, and the first that trains the map.
    assert [weight for weight, _ in rows] == [0.0, rows[1][1], rows[1][1], rows[3][1]] and rows[1][1] > 0.4
    assert moved == [False, True, True, True]


def test_episode_statistics_count_whole_episodes():
    statistics = EpisodeStatistics(2)
    assert math.isnan(statistics.mean_return)
    for reward, done in (([1, 5], [False, False]), ([2, 5], [True, False]), ([4, 5], [True, False])):
        statistics.add(np.array(reward, dtype=float), np.array(done))
    assert list(statistics.returns) == [3.0, 4.0] and list(statistics.lengths) == [2, 1]
    assert statistics.summary() == {"n": 2, "mean": 3.5, "std": pytest.approx(0.5**0.5, abs=1e-6)}


def test_rewards_are_clipped_to_ten_and_returns_start_anew_after_an_episode():
    normalizer = RewardNormalizer(1)
    assert abs(normalizer(np.array([1e6]), np.array([False]))[0]) <= 10
    normalizer(np.array([1.0]), np.array([True]))
    assert normalizer.returns[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "nimja"}, "Did you mean ninja"),
        ({"env": "ninja", "num_envs": 0}, "num_envs must be at least 1"),
        ({"env": "ninja", "num_minibatches": 7}, "multiple of num_minibatches"),
        ({"env": "ninja", "precision": "fp8"}, "auto, bf16, fp32"),
        ({"env": "ninja", "momentum": 1}, "unknown hyper-parameters: momentum"),
        ({"env": "ninja", "device": "tpu"}, "Valid: auto, cpu"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InterpError, match=message):
        SPPO(**options)


def test_a_loss_that_is_not_finite_stops_and_leaves_the_checkpoint(tmp_path):
    agent = SPPO("ninja", seed=0, device="cpu", **TINY)
    agent.learn(STEPS, run_dir=tmp_path / "run", progress=False)
    saved = (tmp_path / "run/policy.safetensors").read_bytes()
    with torch.no_grad():
        agent.network.value.weight.fill_(float("nan"))
    with pytest.raises(InterpError, match="loss became nan"):
        agent.learn(2 * STEPS, run_dir=tmp_path / "run", progress=False)
    assert (tmp_path / "run/policy.safetensors").read_bytes() == saved


def test_a_run_of_the_other_algorithm_is_refused(tiny_ppo):
    with pytest.raises(InterpError, match="holds a ppo run"):
        SPPO.load(tiny_ppo)
    with pytest.raises(InterpError, match="positive"):
        PPO.load(tiny_ppo).learn(0)
