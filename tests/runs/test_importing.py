"""Released checkpoints: read as data, whatever the file asks for, and equal to the reference once imported."""

import hashlib
import os
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from conftest import ROOT
from golden import FIXTURES, fixture_weights

from interp_lib import InterpError, load_agent
from interp_lib.agents.sppo.config import PPOConfig, SPPOConfig
from interp_lib.agents.sppo.network import ActorCritic
from interp_lib.agents.sppo.update import Minibatch, Updater
from interp_lib.cli import main
from interp_lib.common.storage import read_json, read_tensors
from interp_lib.runs.importing import find_scope, import_checkpoint, load_reference_weights, read_released_checkpoint

REFERENCE = ROOT.parent / "shared" / "reference"
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "sppo_golden.npz").exists(),
    reason="the full reference data (13 MB) is not beside this checkout; test_golden.py checks the compact one",
)


@pytest.fixture(scope="module")
def weights():
    return fixture_weights(np.load(FIXTURES / "sppo_compact.npz"))


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    """A file as the authors' code writes it: variables, Adam's moments, and two numpy scalars."""
    path = tmp_path_factory.mktemp("released") / "checkpoint"
    moments = {
        name.replace(":0", f"/{slot}:0"): np.zeros_like(w) for name, w in weights.items() for slot in ("Adam", "Adam_1")
    }
    joblib.dump({**weights, "beta1_power:0": np.float32(0.9), **moments, "beta2_power:0": np.float32(0.99)}, path)
    return path


def ppo_weights(weights):
    """The same as a PPO checkpoint: another scope, no semantic module."""
    semantic = ("layer_16", "layer_17", "embeddings_vqvae")
    return {n.replace("sppo2", "ppo2"): w for n, w in weights.items() if not any(s in n for s in semantic)}


def same_weights(run_dir, weights, scope):
    expected = ActorCritic(15, **({"num_codes": 8} if scope == "sppo2_model" else {}))
    load_reference_weights(expected, weights, scope)
    imported = read_tensors(run_dir / "policy.safetensors")
    assert imported.keys() == expected.state_dict().keys()
    return all(torch.equal(imported[name], w) for name, w in expected.state_dict().items())


def test_import_writes_a_run_and_says_what_it_left_out(checkpoint, weights, tmp_path, capsys):
    run_dir = tmp_path / "sppo-ninja-imported"
    assert main(["checkpoints", "import", str(checkpoint), str(run_dir), "--env", "ninja"]) == 0
    out = capsys.readouterr().out
    assert "41 variables, 659,426 parameters" in out
    assert "not mapped: 82 moments of Adam" in out and "not mapped: 2 step powers of Adam" in out
    assert "recorded as 0: seed, timesteps" in out
    assert same_weights(run_dir, weights, "sppo2_model")
    config = read_json(run_dir / "config.json")
    assert (config["algorithm"], config["env"], config["seed"], config["timesteps"]) == ("sppo", "ninja", 0, 0)
    assert config["imported"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert "provenance" not in config  # this machine trained nothing
    card = (run_dir / "card.md").read_text()
    assert "seed: unknown" in card and "steps trained: unknown" in card
    agent = load_agent(run_dir, device="cpu")
    obs = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert agent.embed(obs).fdr.shape == (3, 2) and agent.predict(obs)[0].shape == (3,)


def test_a_ppo_checkpoint_has_its_own_scope_and_no_codes(weights, tmp_path):
    joblib.dump({**ppo_weights(weights), "ppo2_model/extra:0": np.ones(3, np.float32)}, tmp_path / "ppo")
    imported = import_checkpoint(tmp_path / "ppo", tmp_path / "run", env="jumper", seed=2021, timesteps=25_001_984)
    assert (imported.algorithm, imported.unknown) == ("ppo", ())
    assert imported.not_mapped == {"other variables": ["ppo2_model/extra:0"]}
    assert same_weights(tmp_path / "run", ppo_weights(weights), "ppo2_model")
    card = (tmp_path / "run/card.md").read_text()
    assert "seed: 2021" in card and "25001984" in card
    with pytest.raises(InterpError, match="already holds a run"):
        import_checkpoint(tmp_path / "ppo", tmp_path / "run", env="jumper")


def test_another_number_of_codes_follows_from_the_codebook(weights, tmp_path):
    codebook = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    joblib.dump({**weights, "sppo2_model/pi/embeddings_vqvae:0": codebook}, tmp_path / "five")
    import_checkpoint(tmp_path / "five", tmp_path / "run", env="ninja")
    np.testing.assert_array_equal(load_agent(tmp_path / "run").network.semantic.codebook.detach().numpy(), codebook.T)


def test_every_kind_of_number_is_read_as_joblib_reads_it(tmp_path):
    arrays = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "half": np.arange(3, dtype=np.float16),
        "integers": np.arange(4),
        "flags": np.array([True, False]),
        "empty": np.empty((0, 3), np.float32),
        "zero-dimensional": np.array(2.5),
        "scalar": np.float32(0.25),
    }
    for protocol in (2, 3, 4, 5):
        arrays_or_less = {k: v for k, v in arrays.items() if k != "scalar" or protocol > 2}
        joblib.dump(arrays_or_less, tmp_path / "file", protocol=protocol)
        expected, read = joblib.load(tmp_path / "file"), read_released_checkpoint(tmp_path / "file")
        for name, value in expected.items():
            np.testing.assert_array_equal(read[name], value)
            assert read[name].dtype == value.dtype, name


# -- files that are something else --------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def malicious_files(marker):
    command = f"touch {marker}"
    weights = np.zeros(2, np.float32)
    nested = np.array([Calls(os.system, command)], dtype=object)
    return {
        "a call": ({"w": weights, "x": Calls(os.system, command)}, r"asks for posix\.system"),
        "a call of eval": ({"x": Calls(eval, f"open({str(marker)!r}, 'w')")}, r"asks for builtins\.eval"),
        "an object array": ({"w": nested}, "asks for arrays of type 'O8'"),
        "a structured array": ({"w": np.zeros(2, [("a", "O")])}, "asks for arrays of type 'V8'"),
        "another array class": ({"w": np.ma.masked_array([1.0])}, r"asks for numpy\.ma\."),
        "a harmless class": ({"w": Path("x")}, r"asks for pathlib\."),
    }


@pytest.mark.parametrize("kind", malicious_files("marker"))
def test_a_file_that_asks_for_more_than_arrays_is_refused_and_not_executed(kind, tmp_path, capsys):
    marker = tmp_path / "executed"
    value, message = malicious_files(marker)[kind]
    joblib.dump(value, tmp_path / "file")
    with pytest.raises(InterpError, match=message + ".*nothing was executed"):
        read_released_checkpoint(tmp_path / "file")
    status = main(["checkpoints", "import", str(tmp_path / "file"), str(tmp_path / "run"), "--env", "ninja"])
    assert status == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not marker.exists() and not (tmp_path / "run").exists()


def test_the_malicious_files_do_execute_elsewhere(tmp_path):
    """Otherwise the test above would prove nothing."""
    for kind in ("a call", "an object array"):
        marker = tmp_path / kind.replace(" ", "-")
        joblib.dump(malicious_files(marker)[kind][0], tmp_path / "file")
        joblib.load(tmp_path / "file")
        assert marker.exists()


def global_(module, name):
    return b"c" + module + b"\n" + name + b"\n"


def text(s):
    return b"X" + len(s).to_bytes(4, "little") + s


WRAPPER = global_(b"joblib.numpy_pickle", b"NumpyArrayWrapper")
ARRAY = global_(b"numpy", b"ndarray")
DTYPE = global_(b"numpy", b"dtype") + b"(X\x02\x00\x00\x00f4\x89\x88tR"


def header(shape, subclass=ARRAY, dtype=DTYPE, more=b""):
    """A hand-written pickle of one array's header; ``shape`` as opcodes."""
    fields = text(b"subclass") + subclass + text(b"shape") + shape + text(b"dtype") + dtype
    fields += text(b"order") + text(b"C") + text(b"allow_mmap") + b"\x89" + more
    return b"\x80\x03}" + text(b"w") + WRAPPER + b")\x81}(" + fields + b"ub"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # Instance attributes of the header could shadow the methods that joblib calls on it.
        (header(b"K\x01\x85", more=b"X\x04\x00\x00\x00read" + global_(b"numpy", b"ndarray")), "unknown kind"),
        (header(b"K\x01\x85", subclass=WRAPPER), "unknown kind"),
        (header(b"K\x01\x85", dtype=b"N"), "unknown kind"),
        # A state for the class itself would stay in this process.
        (b"\x80\x03" + WRAPPER + b"(N}X\x04\x00\x00\x00readNstb.", "the state of a type"),
        (header(b"\x8a\x06" + (10**13).to_bytes(6, "little") + b"\x85"), "longer than the file"),
        (header(b"J\xff\xff\xff\xff\x85"), "impossible array shape"),
        (header(b"K\x01\x85") + b"\x00\x00", "damaged"),
        (b"\x80\x03cos\nsys\\tem\n.", "asks for os"),
        (b"\x80\x03(X\x02\x00\x00\x00idios\nsystem\n.", "asks for os.system"),
        (b"\x80\x03}.", "no policy"),
        (b"\x80\x03]K\x01a.", "does not map variable names to arrays"),
        (b"\x80\x03}K\x01K\x02s.", "does not map variable names to arrays"),
        (b"\x80\x03N", "damaged"),
        (b"\x80", "damaged"),
        (b"", "not an uncompressed joblib file"),
        (b"hello, I am a text file\n", "not an uncompressed joblib file"),
    ],
)
def test_hand_made_files_get_one_line(data, message, tmp_path):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(InterpError, match=message) as error:
        find_scope(read_released_checkpoint(tmp_path / "file"))
    assert len(str(error.value).splitlines()) == 1


def test_the_hand_made_header_is_a_good_one(tmp_path):
    (tmp_path / "file").write_bytes(header(b"K\x02\x85") + np.array([1.5, -2], "<f4").tobytes() + b"s.")
    np.testing.assert_array_equal(read_released_checkpoint(tmp_path / "file")["w"], [1.5, -2])


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999999])
def test_a_truncated_file_is_damaged(checkpoint, tmp_path, share):
    data = checkpoint.read_bytes()
    (tmp_path / "file").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InterpError, match=r"is damaged.*Download it again"):
        import_checkpoint(tmp_path / "file", tmp_path / "run", env="ninja")
    assert not (tmp_path / "run").exists()


def test_other_mistakes_are_named(weights, tmp_path):
    def attempt(variables, message, **options):
        joblib.dump(variables, tmp_path / "file")
        with pytest.raises(InterpError, match=message):
            import_checkpoint(tmp_path / "file", tmp_path / "run", **{"env": "ninja", **options})
        assert not (tmp_path / "run").exists()

    attempt({n.replace("/pi/", "/policy/"): w for n, w in weights.items()}, "no policy")
    attempt({**weights, **ppo_weights(weights)}, r"2 policies \(ppo2_model, sppo2_model\)")
    attempt({n: w for n, w in weights.items() if n != "sppo2_model/vf/b:0"}, "no variable sppo2_model/vf/b:0")
    attempt({**weights, "sppo2_model/pi/w:0": np.zeros((256, 6))}, r"has shape \(6, 256\), expected \(15, 256\)")
    attempt({**weights, "sppo2_model/pi/embeddings_vqvae:0": np.zeros(3)}, r"expected \(2, K\)")
    attempt(weights, "Did you mean ninja", env="nimja")
    attempt(weights, "must not be negative", seed=-1)
    with pytest.raises(InterpError, match="cannot read .*nowhere: No such file"):
        import_checkpoint(tmp_path / "nowhere", tmp_path / "run", env="ninja")
    joblib.dump(weights, tmp_path / "compressed", compress=3)
    with pytest.raises(InterpError, match="not an uncompressed joblib file"):
        import_checkpoint(tmp_path / "compressed", tmp_path / "run", env="ninja")
    (tmp_path / "plain").write_bytes(pickle.dumps({"w": np.zeros(2)}))
    with pytest.raises(InterpError, match=r"asks for numpy\.core\.multiarray\._reconstruct"):
        read_released_checkpoint(tmp_path / "plain")


# -- the reference's own files ------------------------------------------------------------------------------------


def golden_batch(golden):
    return Minibatch(
        obs=torch.from_numpy(golden["batch/obs"]),
        actions=torch.from_numpy(golden["batch/actions"]).long(),
        old_log_prob=-torch.from_numpy(golden["batch/neglogpacs"]),
        old_value=torch.from_numpy(golden["batch/values"]),
        returns=torch.from_numpy(golden["batch/returns"]),
    )


@needs_reference
def test_the_released_checkpoint_acts_as_the_reference(tmp_path):
    import_checkpoint(REFERENCE / "sppo_checkpoint.joblib", tmp_path / "run", env="ninja")
    golden = np.load(REFERENCE / "sppo_golden.npz")
    embedding = load_agent(tmp_path / "run", device="cpu").embed(golden["batch/obs"])
    for name in ("logits", "value", "feature", "fdr"):
        np.testing.assert_allclose(getattr(embedding, name), golden[f"forward/{name}"], rtol=0, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(embedding.code, golden["forward/code"][:, 0])


@needs_reference
@pytest.mark.parametrize("algorithm", ["ppo", "sppo"])
def test_losses_and_every_parameter_over_three_updates_equal_the_reference(algorithm):
    golden = dict(np.load(REFERENCE / f"{algorithm}_golden.npz"))
    scope = f"{algorithm}2_model"
    settings = dict(
        env="ninja",
        learning_rate=float(golden["batch/learning_rate"]),
        clip_range=float(golden["batch/clip_range"]),
    )
    config = SPPOConfig(**settings, vq_beta=0.25) if algorithm == "sppo" else PPOConfig(**settings)
    network = ActorCritic(15, **({"num_codes": 8} if algorithm == "sppo" else {}))
    weights = {name.removeprefix("before/"): w for name, w in golden.items() if name.startswith("before/")}
    load_reference_weights(network, weights, scope)
    with torch.no_grad():
        out = network(torch.from_numpy(golden["batch/obs"]))
    for name in ("logits", "value"):
        np.testing.assert_allclose(getattr(out, name).numpy(), golden[f"forward/{name}"], rtol=0, atol=1e-5)
    updater, batch = Updater(network, config), golden_batch(golden)
    for step in (1, 2, 3):
        losses = updater.step(batch, skill_weight=float(golden["batch/skill_weight"]))
        reported = {name.split("/")[1]: float(v) for name, v in golden.items() if name.startswith(f"step{step}/")}
        assert set(reported) <= set(losses) and len(reported) >= 5
        for name, expected in reported.items():
            # The first step compares losses alone; later ones also carry the optimiser's rounding.
            tolerance = dict(rel=1e-5, abs=1e-8) if step == 1 else dict(rel=1e-3, abs=1e-5)
            assert losses[name] == pytest.approx(expected, **tolerance), (step, name)
    expected = ActorCritic(15, **({"num_codes": 8} if algorithm == "sppo" else {}))
    load_reference_weights(expected, {n: golden[f"after3/{n}"] for n in weights}, scope)
    for (name, a), b in zip(network.state_dict().items(), expected.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-4, err_msg=name)
