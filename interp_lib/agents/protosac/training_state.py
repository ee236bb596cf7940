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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch

from ...common.errors import InterpError
from ...common.storage import atomic_write, refuse_nonfinite
from ...envs.continuous import make_task_vec
from .config import check_config, is_count
from .protosac import SAC, ProtoSAC

FORMAT = 2  # 1 was Stable-Baselines3's zip, which holds pickles
_MANIFEST, _TENSORS = "state.json", "tensors.safetensors"
_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
_MEMBERS = {_MANIFEST, _TENSORS, *(f"replay/{name}.npy" for name in _ARRAYS)}
_MOST_JSON = 16_000_000  # bytes; so is the header of safetensors at most
_NPY_HEADER = 10_000
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_last_projection")
_EPISODE = ("r", "l", "t")  # return, length, seconds, as SB3's Monitor has them
_MEMORY = ("step", "exp_avg", "exp_avg_sq")  # Adam's, of each parameter
_CHUNK = 1 << 24
MOST_ENVS = 1024


def write_state(agent: SAC | ProtoSAC, path: Path) -> None:
    """Write the training state of ``agent``, atomically.

    Raises:
        InterpError: the disk is full or the folder can't be written.
    """
    buffer, env = agent.replay_buffer, agent.env
    assert buffer is not None and env is not None
    filled = buffer.size()
    digests: dict[str, str] = {}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:

        def add(member: str, write: Callable[[Any], Any]) -> None:
            with archive.open(member, "w", force_zip64=True) as target:
                digesting = _Digesting(target)
                write(digesting)
                digests[member] = digesting.digest.hexdigest()

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(agent).items()}
        add(_TENSORS, lambda target: target.write(safetensors.torch.save(tensors)))
        for name in _ARRAYS:
            array = getattr(buffer, name)[:filled]
            add(f"replay/{name}.npy", partial(np.lib.format.write_array, array=array, allow_pickle=False))
        manifest = {
            "format": FORMAT,
            "config": agent._config(),
            "counters": {name: getattr(agent, name) for name in _COUNTERS if hasattr(agent, name)},
            "seconds_trained": float(agent.seconds_trained),
            "episodes": [{key: float(episode[key]) for key in _EPISODE} for episode in agent.ep_info_buffer or ()],
            "n_envs": env.num_envs,
            "position": buffer.pos,
            "filled": filled,
            "sha256": digests,
        }
        text = json.dumps(manifest).encode()
        archive.writestr(_MANIFEST, text)
        archive.comment = _sha256(text).encode()


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
    manifest, sizes = _manifest(archive, path)
    config, digests = manifest["config"], manifest["sha256"]
    check_config(config, path, cls.algorithm)
    agent = cls._rebuild(config, path, sizes[_TENSORS], "auto")
    if sizes[_TENSORS] > sum(like.nbytes for like in _likes(agent).values()) + _MOST_JSON:
        raise ValueError(f"{_TENSORS} is too long")
    content = archive.read(_TENSORS)
    if _sha256(content) != digests[_TENSORS]:
        raise ValueError(f"the checksum of {_TENSORS} differs")
    tensors = safetensors.torch.load(content)
    refuse_nonfinite(tensors, path)
    _load_tensors(agent, tensors)

    position, filled, n_envs = (_count(manifest, name) for name in ("position", "filled", "n_envs"))
    steps = max(agent.buffer_size // max(n_envs, 1), 1)
    full = filled == steps
    if not 1 <= n_envs <= MOST_ENVS or filled > steps or not (position < steps if full else position == filled):
        raise ValueError("the replay buffer's position")
    for name, row in _row_sizes(agent).items():
        if not 0 < sizes[f"replay/{name}.npy"] - filled * n_envs * row <= _NPY_HEADER:
            raise ValueError(f"{name} is not as long as it should be")
    agent.set_env(make_task_vec(config["env"], n_envs))
    agent._make_buffer()
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
    episodes = [{key: _number(episode[key]) for key in _EPISODE} for episode in manifest["episodes"]]
    agent.ep_info_buffer = deque(episodes, maxlen=agent._stats_window_size)
    agent.ep_success_buffer = deque(maxlen=agent._stats_window_size)
    return agent


def _manifest(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What state.json holds, and the size of each member in bytes."""
    entries = archive.infolist()
    members = {info.filename: info for info in entries}
    if "agent.zip" in members:
        raise InterpError(
            f"{path} is of an earlier version, whose states could run code when they were read. "
            "It can't be resumed; train the run again, in another folder."
        )
    if set(members) != _MEMBERS or len(entries) != len(_MEMBERS):
        raise ValueError(f"it does not consist of {', '.join(sorted(_MEMBERS))}")
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in entries):
        raise ValueError("a member is compressed")
    if members[_MANIFEST].file_size > _MOST_JSON:
        raise ValueError(f"{_MANIFEST} is too long")
    text = archive.read(_MANIFEST)
    if archive.comment != _sha256(text).encode():
        raise ValueError("its checksum differs")
    manifest = json.loads(text)
    if manifest["format"] != FORMAT:
        raise InterpError(
            f"{path} has format {manifest['format']!r:.80}; this version reads {FORMAT}. Update interp-lib."
        )
    return manifest, {name: info.file_size for name, info in members.items()}


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
            tensors |= {f"{name}.optimizer.{number}.{key}": memory[key] for key in _MEMORY}
    return tensors


def _likes(agent: SAC | ProtoSAC) -> dict[str, torch.Tensor]:
    """One of the same kind for all that :func:`_tensors` can give for this agent."""
    likes = {name: tensor for name, tensor in _tensors(agent).items() if ".optimizer." not in name}
    for name, optimizer in _optimizers(agent).items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, p in enumerate(parameters):
            kinds = zip(_MEMORY, (torch.zeros(()), p, p), strict=True)
            likes |= {f"{name}.optimizer.{number}.{key}": like for key, like in kinds}
    return likes


def _load_tensors(agent: SAC | ProtoSAC, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of :func:`_tensors`; ValueError where names, shapes or types are not those of this agent."""
    likes = _likes(agent)
    for name in (*(name for name in likes if ".optimizer." not in name), *tensors):
        if name not in likes:
            raise ValueError(f"{name!r:.80} belongs to no part of this agent")
        tensor, like = tensors.get(name), likes[name]
        if tensor is None or tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise ValueError(f"{name} is missing, or is not that of this agent")
    agent.policy.load_state_dict({name: tensors[f"policy.{name}"] for name in agent.policy.state_dict()})
    if agent.log_ent_coef is not None:
        agent.log_ent_coef.data.copy_(tensors["log_ent_coef"])
    for name, optimizer in _optimizers(agent).items():
        state = optimizer.state_dict()
        prefix = f"{name}.optimizer."
        for number in {int(found.split(".")[2]) for found in tensors if found.startswith(prefix)}:
            state["state"][number] = {key: tensors[f"{prefix}{number}.{key}"] for key in _MEMORY}  # all or none
        optimizer.load_state_dict(state)


def _row_sizes(agent: SAC | ProtoSAC) -> dict[str, int]:
    """Bytes that one transition takes in each array of the replay buffer."""
    space, actions = agent.observation_space, math.prod(agent.action_space.shape or ())
    observation = math.prod(space.shape or ()) * np.dtype(space.dtype).itemsize
    return dict.fromkeys(_ARRAYS, 4) | dict.fromkeys(_ARRAYS[:2], observation) | {"actions": 4 * actions}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
    if not is_count(values[name]):
        raise ValueError(f"{name} is no count")
    return values[name]


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r:.80} is no number")
    return float(value)
