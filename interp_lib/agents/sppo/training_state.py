"""training_state.pt: written with a digest, and looked over before anything of it reaches PyTorch or Procgen.

It is PyTorch's zip of tensors and plain values. Neither its reader nor Procgen's, which ends the whole process when it
meets something else, would notice other bytes.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.errors import InterpError
from ...common.storage import atomic_write, read_file

_DIGEST = 64  # characters of a SHA-256, which the zip has as its comment: nothing else of it changes
_NO_COMMENT = b"\x00\x00"
_LAST_EPISODES = {"episodes.returns": 0.0, "episodes.lengths": 0}
_MOST_STATE = 2**24  # bytes of an environment's; a usual one has 30 KB


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write ``state`` atomically, with the SHA-256 of what is written.

    Raises:
        InterpError: the folder can't be written to, or the disk is full.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getbuffer()
    digest = hashlib.sha256(data).hexdigest().encode()
    with atomic_write(path) as file:
        file.write(data[: -len(_NO_COMMENT)])
        file.write(struct.pack("<H", _DIGEST) + digest)


def read_state(path: Path) -> tuple[dict[str, Any], bool]:
    """What :func:`write_state` wrote, with its tensors on the CPU, and whether it has a digest: early states have none.

    Raises:
        InterpError: the file is missing, altered or none of these.
    """
    data = read_file(path)
    start, size, digest = data[: -_DIGEST - 2], data[-_DIGEST - 2 : -_DIGEST], data[-_DIGEST:]
    sealed = size == struct.pack("<H", _DIGEST)
    try:
        if sealed and hashlib.sha256(start + _NO_COMMENT).hexdigest().encode() != digest:
            raise ValueError("its digest differs")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
            if not sealed and (archive.comment or archive.testzip() is not None):
                raise ValueError("its checksums differ")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever broken bytes make of the readers
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise InterpError(f"{path} is damaged ({reason}). Delete it to go on from weights.") from error
    if not isinstance(state, dict):
        raise InterpError(f"{path} is damaged (no state). Delete it to go on from weights.")
    return state, sealed


def check_state(state: Mapping[str, Any], own: Mapping[str, Any], parameters: list[Tensor]) -> None:
    """Compare a state with one of the trainer that is to go on from it: names, kinds, shapes, and the game.

    Args:
        own: the trainer's state as it is now.
        parameters: of its network, in the order of the optimiser.

    Raises:
        ValueError: it doesn't fit.
        KeyError, TypeError, AttributeError: it lacks something, or has something else in its place.
    """
    for name in ("network", "normalizer", "episodes", "updates", "seconds", "skill_weight", "optimizer_steps"):
        _same_form(state[name], own[name], name)
    (group,), moments = state["optimizer"]["param_groups"], state["optimizer"]["state"]
    _same_form(group["lr"], 0.0, "learning rate")
    indices = list(range(len(parameters)))
    if group["params"] != indices or not set(moments) <= set(indices):
        raise ValueError("optimizer is of other parameters")
    for index, of_one in moments.items():
        like = parameters[index].detach().cpu()
        _same_form(of_one, {"step": torch.zeros(()), "exp_avg": like, "exp_avg_sq": like}, "optimizer")
    if len(state["env"]) != len(own["env"]):
        raise ValueError(f"it has {len(state['env'])} environments, not {len(own['env'])}")
    for theirs, ours in zip(state["env"], own["env"], strict=True):
        if (
            theirs.dtype != torch.uint8
            or theirs.dim() != 1
            or len(theirs) > _MOST_STATE
            or _head(theirs) != _head(ours)
        ):
            raise ValueError("its environments are of another game, mode or level range")
    dice = state["generator"]
    if dice.dtype != torch.uint8 or dice.dim() != 1 or len(dice) > _MOST_STATE:
        raise ValueError("generator is damaged")


def _head(state: Tensor) -> bytes:
    """Of an environment's state: format, game, the game's options and level range, but not its levels."""
    start = state[:40].numpy().tobytes()
    size = int.from_bytes(start[4:8], "little")
    return state[: 8 + min(size, 32) + 64].numpy().tobytes()


def _same_form(value: Any, like: Any, name: str) -> None:
    if isinstance(like, Tensor):
        if value.shape != like.shape or value.dtype != like.dtype or not value.isfinite().all():
            raise ValueError(f"{name} has another shape, or numbers that are not finite")
    elif isinstance(like, dict):
        if value.keys() != like.keys():
            raise ValueError(f"{name} has other entries")
        for key in like:
            _same_form(value[key], like[key], f"{name}.{key}")
    elif isinstance(like, list):
        if name in _LAST_EPISODES and len(value) <= 100:  # as many as have ended
            like = [_LAST_EPISODES[name]] * len(value)
        if len(value) != len(like):
            raise ValueError(f"{name} has another length")
        for part, one in zip(value, like, strict=True):
            _same_form(part, one, name)
    elif not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} is no number")
    elif isinstance(like, int) and (not isinstance(value, int) or value < 0):
        raise ValueError(f"{name} is no count")
