"""All that a resume needs, in one file that is written as a whole and holds nothing to unpickle.

    state.json              config.json's content, counters, and a SHA-256 of each of the others
    tensors.safetensors     policy with critic targets, log of the entropy coefficient, moments of the optimisers
    replay/<array>.npy      the filled part of the replay buffer

The archive's comment is the SHA-256 of state.json. Members are stored as they are: none can unfold to more than the
file. What is read is compared with what the config asks for, sizes first, before memory is taken for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections import deque
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch

from ...common.errors import InterpError
from ...common.storage import atomic_write, refuse_nonfinite
from ...envs.continuous import make_task_vec
from .config import check_config
from .protosac import SAC, ProtoSAC

FORMAT = 2  # 1 was Stable-Baselines3's zip, which holds pickles
_MANIFEST, _TENSORS = "state.json", "tensors.safetensors"
_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_MEMBERS = {_MANIFEST, _TENSORS, *(f"replay/{name}.npy" for name in _ARRAYS)}
_MOST_JSON = 16_000_000  # bytes; so is the header of safetensors at most
_NPY_HEADER = 10_000
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_last_projection")
_MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's, beside its step
_CHUNK = 1 << 24
MOST_ENVS = 1024


def write_state(agent: SAC | ProtoSAC, path: Path) -> None:
    """Write the training state of ``agent``, atomically.

    Raises:
        InterpError: the disk is full or the folder can't be written.
    """
    buffer, env = agent.replay_buffer, agent.env
    assert buffer is not None and env is not None
    filled = buffer.buffer_size if buffer.full else buffer.pos
    digests: dict[str, str] = {}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open(_TENSORS, "w", force_zip64=True) as member:
            digesting = _Digesting(member)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(agent).items()}
            digesting.write(safetensors.torch.save(tensors))
            digests[_TENSORS] = digesting.digest.hexdigest()
        for name in _ARRAYS:
            with archive.open(f"replay/{name}.npy", "w", force_zip64=True) as member:
                digesting = _Digesting(member)
                np.lib.format.write_array(digesting, getattr(buffer, name)[:filled], allow_pickle=False)
                digests[f"replay/{name}.npy"] = digesting.digest.hexdigest()
        manifest = {
            "format": FORMAT,
            "config": agent._config(),
            "counters": {name: getattr(agent, name) for name in _COUNTERS if hasattr(agent, name)},
            "seconds_trained": float(agent.seconds_trained),
            "episodes": [
                {key: float(episode[key]) for key in ("r", "l", "t")} for episode in agent.ep_info_buffer or ()
            ],
            "n_envs": env.num_envs,
            "position": buffer.pos,
            "filled": filled,
            "sha256": digests,
        }
        text = json.dumps(manifest).encode()
        archive.writestr(_MANIFEST, text)
        archive.comment = hashlib.sha256(text).hexdigest().encode()


def read_state(path: Path, cls: type[SAC] | type[ProtoSAC]) -> SAC | ProtoSAC:
    """The agent of a training state, on its task, ready to learn on.

    Raises:
        InterpError: the file is missing, damaged, altered, of another algorithm or of an earlier format.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return _read(archive, path, cls)
    except (zipfile.BadZipFile, safetensors.SafetensorError, LookupError, TypeError, ValueError, EOFError,
            RecursionError, NotImplementedError, RuntimeError, OverflowError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InterpError(f"{path} is damaged ({reason}). The run can't be resumed; train it again.") from error
    except OSError as error:
        raise InterpError(f"cannot read {path}: {error.strerror or error}. The run can't be resumed.") from error


def _read(archive: zipfile.ZipFile, path: Path, cls: type[SAC] | type[ProtoSAC]) -> SAC | ProtoSAC:
    members = {info.filename: info for info in archive.infolist()}
    if "agent.zip" in members:
        raise InterpError(
            f"{path} is of an earlier version, whose states could run code when they were read. "
            "It can't be resumed; train the run again, in another folder."
        )
    if set(members) != _MEMBERS or len(archive.infolist()) != len(_MEMBERS):
        raise ValueError(f"it does not consist of {', '.join(sorted(_MEMBERS))}")
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in members.values()):
        raise ValueError("a member is compressed")
    if members[_MANIFEST].file_size > _MOST_JSON:
        raise ValueError(f"{_MANIFEST} is too long")
    text = archive.read(_MANIFEST)
    if archive.comment != hashlib.sha256(text).hexdigest().encode():
        raise ValueError("its checksum differs")
    manifest = json.loads(text)
    if manifest["format"] != FORMAT:
        raise InterpError(
            f"{path} has format {manifest['format']!r:.80}; this version reads {FORMAT}. Update interp-lib."
        )
    config, digests = manifest["config"], manifest["sha256"]
    check_config(config, path, cls.algorithm)

    size = members[_TENSORS].file_size
    agent = cls._rebuild(config, path, size, "auto")
    if size > _most_bytes(agent) + _MOST_JSON:
        raise ValueError(f"{_TENSORS} is too long")
    with archive.open(_TENSORS) as member:
        content = member.read()
    if hashlib.sha256(content).hexdigest() != digests[_TENSORS]:
        raise ValueError(f"the checksum of {_TENSORS} differs")
    tensors = safetensors.torch.load(content)
    refuse_nonfinite(tensors, path)
    _load_tensors(agent, tensors)

    position, filled, n_envs = (_count(manifest, name) for name in ("position", "filled", "n_envs"))
    assert agent._deferred_buffer_size is not None
    steps = max(agent._deferred_buffer_size // max(n_envs, 1), 1)
    full = filled == steps
    if not 1 <= n_envs <= MOST_ENVS or filled > steps or not (position < steps if full else position == filled):
        raise ValueError("the replay buffer's position")
    _check_sizes(agent, filled * n_envs, {name: members[f"replay/{name}.npy"].file_size for name in _ARRAYS})
    agent.set_env(make_task_vec(config["env"], n_envs))
    agent._make_deferred_buffer()
    buffer = agent.replay_buffer
    assert buffer is not None
    for name in _ARRAYS:
        with archive.open(f"replay/{name}.npy") as member:
            if _read_array(member, getattr(buffer, name)[:filled]) != digests[f"replay/{name}.npy"]:
                raise ValueError(f"the checksum of {name} differs")
    buffer.pos, buffer.full = position, full

    for name in _COUNTERS:
        if hasattr(agent, name):
            setattr(agent, name, _count(manifest["counters"], name))
    agent._learned_with = config.get("provenance")
    agent.seconds_trained = _number(manifest["seconds_trained"])
    episodes = [{key: _number(episode[key]) for key in ("r", "l", "t")} for episode in manifest["episodes"]]
    agent.ep_info_buffer = deque(episodes, maxlen=agent._stats_window_size)
    agent.ep_success_buffer = deque(maxlen=agent._stats_window_size)
    return agent


def _optimizers(agent: SAC | ProtoSAC) -> dict[str, torch.optim.Optimizer]:
    named = {"actor": agent.actor.optimizer, "critic": agent.critic.optimizer}
    return named | ({} if agent.ent_coef_optimizer is None else {"ent_coef": agent.ent_coef_optimizer})


def _tensors(agent: SAC | ProtoSAC) -> dict[str, torch.Tensor]:
    """Policy, entropy coefficient and, by parameter number, what the optimisers remember."""
    tensors = {f"policy.{name}": tensor for name, tensor in agent.policy.state_dict().items()}
    if agent.log_ent_coef is not None:
        tensors["log_ent_coef"] = agent.log_ent_coef
    for name, optimizer in _optimizers(agent).items():
        for number, memory in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.optimizer.{number}.{key}": memory[key] for key in ("step", *_MOMENTS)}
    return tensors


def _load_tensors(agent: SAC | ProtoSAC, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of :func:`_tensors`.

    Raises:
        ValueError: names, shapes or types are not those of this agent.
    """
    left = dict(tensors)

    def take(name: str, like: torch.Tensor) -> torch.Tensor:
        tensor = left.pop(name, None)
        if tensor is None or tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise ValueError(f"{name} is missing, or is not that of this agent")
        return tensor

    policy = {name: take(f"policy.{name}", like) for name, like in agent.policy.state_dict().items()}
    agent.policy.load_state_dict(policy)
    if agent.log_ent_coef is not None:
        agent.log_ent_coef.data.copy_(take("log_ent_coef", agent.log_ent_coef))
    for name, optimizer in _optimizers(agent).items():
        state = optimizer.state_dict()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):
            prefix = f"{name}.optimizer.{number}."
            if f"{prefix}step" in left:
                memory = {key: take(prefix + key, parameter) for key in _MOMENTS}
                state["state"][number] = memory | {"step": take(f"{prefix}step", torch.zeros(()))}
        optimizer.load_state_dict(state)
    if left:
        raise ValueError(f"{next(iter(left))!r:.80} belongs to no part of this agent")


def _most_bytes(agent: SAC | ProtoSAC) -> int:
    """The size of all that :func:`_tensors` can give for this agent."""
    parameters = [p for o in _optimizers(agent).values() for group in o.param_groups for p in group["params"]]
    policy = sum(tensor.nbytes for tensor in agent.policy.state_dict().values())
    return policy + sum(2 * p.nbytes + 4 for p in parameters) + 4


def _check_sizes(agent: SAC | ProtoSAC, transitions: int, sizes: dict[str, int]) -> None:
    """Compare the arrays' sizes in bytes with those of so many transitions.

    Raises:
        ValueError: they differ.
    """
    space = agent.observation_space
    observation = math.prod(space.shape or ()) * np.dtype(space.dtype).itemsize
    rows = {"observations": observation, "next_observations": observation}
    rows["actions"] = 4 * math.prod(agent.action_space.shape or ())
    for name, size in sizes.items():
        if not 0 < size - transitions * rows.get(name, 4) <= _NPY_HEADER:
            raise ValueError(f"{name} is not as long as it should be")


class _Digesting:
    """Hashes what is read from a file, or written to it, on its way."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


def _read_array(member: IO[bytes], target: np.ndarray) -> str:
    """Read an npy file into ``target``, whose shape and type it must have; returns the file's SHA-256."""
    file: Any = _Digesting(member)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)  # which parses no more than 10,000 bytes
    if (shape, fortran, dtype) != (target.shape, False, target.dtype):
        raise ValueError(f"an array is {dtype} {shape!r:.80}, not {target.dtype} {target.shape}")
    flat = target.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _CHUNK):
        part = file.read(min(_CHUNK, len(flat) - start))
        flat[start : start + _CHUNK] = np.frombuffer(part, np.uint8)  # of another length where the file is cut
    if file.read(1):
        raise ValueError("an array is too long")
    return file.digest.hexdigest()


def _count(values: Any, name: str) -> int:
    value = values[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError(f"{name} is no count")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r:.80} is no number")
    return float(value)
