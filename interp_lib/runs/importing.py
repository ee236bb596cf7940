"""Checkpoints of the reference implementation: read as data, never executed, and turned into a run folder.

The authors release TensorFlow variables as a joblib file, which is a pickle. What unpickling would call is decided
here, not by the file: the few things that a dict of numpy arrays needs, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler
from torch import Tensor, nn

from ..agents.sppo.network import ActorCritic
from ..common.errors import InterpError
from ..common.storage import read_json, write_json, write_text
from ..envs.names import check_seed

_NUMBER_TYPE = re.compile(r"[biuf]\d{1,2}")
_HEADER = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
_LEFT_OUT = {  # kinds of variables that are not mapped → their names; a name is of the first that fits
    "moments of Adam": re.compile(r".*/Adam(_1)?:0", re.DOTALL),
    "step powers of Adam": re.compile(r"(.*/)?beta[12]_power(_\d+)?:0"),
    "other variables": re.compile(r".*", re.DOTALL),
}


@dataclass(frozen=True)
class ImportedCheckpoint:
    """What :func:`import_checkpoint` made of a file.

    Attributes:
        run_dir: the run folder written.
        algorithm: ``ppo`` or ``sppo``.
        variables, parameters: how many variables were mapped, and how many numbers they hold.
        not_mapped: kind of variable → names of those left out (Adam's moments and step powers, others).
        unknown: what the file does not say and the caller did not either: ``seed``, ``timesteps``.
    """

    run_dir: Path
    algorithm: str
    variables: int
    parameters: int
    not_mapped: dict[str, list[str]]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"imported {self.algorithm.upper()} into {self.run_dir}: "
            f"{self.variables} variables, {self.parameters:,} parameters"
        ]
        for kind, names in self.not_mapped.items():
            shown = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
            lines.append(f"not mapped: {len(names)} {kind} ({shown})")
        if self.unknown:
            lines.append(f"not in the file and not given, so recorded as 0: {', '.join(self.unknown)}")
        return "\n".join(lines)


def import_checkpoint(
    file: Path | str, run_dir: Path | str, *, env: str, seed: int | None = None, timesteps: int | None = None
) -> ImportedCheckpoint:
    """Turn a released SPPO or PPO checkpoint into a run folder that ``load_agent`` reads.

    Whether it is SPPO or PPO, and the number of codes, follow from its variables; other hyper-parameters are set to
    the paper's. There is no progress.csv: the file holds no learning curve.

    Args:
        file: joblib dict of variable name → array.
        run_dir: a folder without a run.
        env: Procgen game it was trained on, which the file does not say.
        seed, timesteps: of its training where known; recorded as 0 and called unknown otherwise.

    Raises:
        InterpError: the file is no such checkpoint or asks for more than arrays, or ``run_dir`` holds a run already.
    """
    from ..agents.sppo.agents import PPO, SPPO

    file, run_dir = Path(file), Path(run_dir)
    if (run_dir / "config.json").exists():
        raise InterpError(f"{run_dir} already holds a run. Choose another folder.")
    if min(seed or 0, timesteps or 0) < 0:
        raise InterpError("seed and timesteps must not be negative.")
    check_seed(seed)
    variables = read_released_checkpoint(file)
    scope = find_scope(variables)
    codebook = variables.get(f"{scope}/pi/embeddings_vqvae:0")
    options: dict[str, Any] = {"seed": seed or 0, "device": "cpu"}
    if codebook is not None:
        if codebook.ndim != 2:
            raise InterpError(f"variable {scope}/pi/embeddings_vqvae:0 has shape {codebook.shape}, expected (2, K).")
        options["num_codes"] = codebook.shape[1]
    agent = PPO(env, **options) if codebook is None else SPPO(env, **options)
    load_reference_weights(agent.network, variables, scope)
    agent.timesteps = timesteps or 0
    agent.save_run(run_dir)

    mapped = reference_name_map(agent.network, scope)
    imported = ImportedCheckpoint(
        run_dir=run_dir,
        algorithm=agent.algorithm,
        variables=len(mapped),
        parameters=sum(parameter.numel() for parameter in mapped.values()),
        not_mapped=_sort_leftovers([name for name in variables if name not in mapped]),
        unknown=tuple(name for name, value in (("seed", seed), ("timesteps", timesteps)) if value is None),
    )
    config = read_json(run_dir / "config.json")
    del config["provenance"]  # of this machine, which trained nothing
    config["imported"] = {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "scope": scope,
        "not_mapped": {kind: len(names) for kind, names in imported.not_mapped.items()},
        "unknown": list(imported.unknown),
    }
    write_json(run_dir / "config.json", config)
    write_text(run_dir / "card.md", _render_card(config))
    return imported


def read_released_checkpoint(path: Path | str) -> dict[str, np.ndarray]:
    """Read a joblib dict of numeric arrays as data: variable name → array (0-d for scalars).

    Raises:
        InterpError: the file is missing, damaged or something else, or asks for more than numpy arrays.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(1) != pickle.PROTO:
                raise InterpError(f"{path} is no released checkpoint: not an uncompressed joblib file.")
            file.seek(0)
            value = _ArraysOnlyUnpickler(path, file).load()
    except InterpError:
        raise
    except OSError as error:
        raise InterpError(f"cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:  # whatever broken bytes make of the unpickler
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise InterpError(f"{path} is damaged ({detail}). Download it again.") from error
    if not isinstance(value, dict) or not all(isinstance(name, str) and _is_numeric(v) for name, v in value.items()):
        raise InterpError(f"{path} is no released checkpoint: it does not map variable names to arrays of numbers.")
    return {name: np.asarray(array) for name, array in value.items()}


def find_scope(variables: Mapping[str, np.ndarray]) -> str:
    """The scope of the policy among variable names, such as ``sppo2_model``.

    Raises:
        InterpError: there is not exactly one.
    """
    scopes = [name.removesuffix("/pi/w:0") for name in variables if name.endswith("/pi/w:0")]
    if len(scopes) != 1:
        found = f"{len(scopes)} policies ({', '.join(sorted(scopes))})" if scopes else "no policy"
        raise InterpError(f"the checkpoint holds {found}; a released one has one variable <scope>/pi/w:0.")
    return scopes[0]


class _ArraysOnlyUnpickler(NumpyUnpickler):
    """joblib's unpickler, but the file chooses among five harmless names and fills in nothing but array headers."""

    dispatch = NumpyUnpickler.dispatch.copy()

    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(str(path), file, ensure_native_byte_order=True)
        self._size = os.fstat(file.fileno()).st_size

    def find_class(self, module: str, name: str) -> Any:
        """Decide what the file may call: numpy's own dtype and scalar are replaced by strict stand-ins."""
        allowed: dict[str, Any] = {
            "joblib.numpy_pickle.NumpyArrayWrapper": NumpyArrayWrapper,
            "numpy.ndarray": np.ndarray,
            "numpy.dtype": self._dtype,
            "numpy.core.multiarray.scalar": _scalar,
            "numpy._core.multiarray.scalar": _scalar,
        }
        asked = f"{module}.{name}"
        if asked not in allowed:
            raise self._refused(asked)
        return allowed[asked]

    def load_build(self) -> None:
        """Fill in an array's header and read the array, or check a dtype's byte order."""
        state, target = self.stack[-1], self.stack[-2]
        if isinstance(target, np.dtype):
            if state[1] not in "<|":
                raise InterpError(f"{self.filename} holds big-endian numbers, which no released checkpoint does.")
            self.stack.pop()
        elif type(target) is NumpyArrayWrapper and isinstance(state, dict):
            self._check_header(state)
            super().load_build()
        else:
            raise self._refused(f"the state of a {type(target).__name__}")

    # pickle finds its handlers in this table, not by name.
    dispatch[pickle.BUILD[0]] = load_build

    def _dtype(self, code: Any, *_: Any) -> np.dtype:
        if not (isinstance(code, str) and _NUMBER_TYPE.fullmatch(code)):
            raise self._refused(f"arrays of type {code!r}"[:60])
        return np.dtype("<" + code)

    def _check_header(self, header: dict[str, Any]) -> None:
        of_numbers = header["subclass"] is np.ndarray and isinstance(header["dtype"], np.dtype)
        if not set(header) <= _HEADER or not of_numbers:
            raise self._refused("an array of an unknown kind")
        shape = header["shape"]
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("impossible array shape")
        # Said before memory is asked for: a damaged header can claim any size.
        if int(np.prod(shape, dtype=object)) * header["dtype"].itemsize > self._size:
            raise ValueError("an array is longer than the file")

    def _refused(self, what: str) -> InterpError:
        what = what.encode("unicode_escape").decode()  # the file's words stay on one line
        return InterpError(
            f"{self.filename} asks for {what}; refused, and nothing was executed. Arrays of numbers only."
        )


def _scalar(dtype: np.dtype, data: bytes) -> np.generic:
    if not isinstance(dtype, np.dtype):
        raise ValueError("a scalar without a type")
    return np.frombuffer(data, dtype, count=1)[0]


def _is_numeric(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf"


def _sort_leftovers(names: list[str]) -> dict[str, list[str]]:
    kinds = {name: next(kind for kind, pattern in _LEFT_OUT.items() if pattern.fullmatch(name)) for name in names}
    found = {kind: [name for name in names if kinds[name] == kind] for kind in _LEFT_OUT}
    return {kind: names for kind, names in found.items() if names}


def _render_card(config: dict[str, Any]) -> str:
    imported = config["imported"]
    seed, steps = ("unknown" if name in imported["unknown"] else config[name] for name in ("seed", "timesteps"))
    return f"""# {config["algorithm"].upper()} on {config["env"]}, imported

Weights of `{imported["file"]}` (SHA-256 {imported["sha256"]}), trained by the reference implementation,
not by this repository's code. Nothing has been measured on them here.

- environment: {config["env"]}, as said at the import; the file does not hold it
- seed: {seed}
- environment steps trained: {steps}
- hyper-parameters in `config.json`: the paper's, but for what follows from the weights
- not in the file: learning curve, reward scale, skill weight λ
"""


def reference_name_map(network: ActorCritic, scope: str = "sppo2_model") -> dict[str, Tensor]:
    """Map each variable name of the reference to our parameter tensor (a live view, not a copy)."""
    parts = filter(None, (network.encoder, network.semantic))
    modules = (module for part in parts for module in part.modules())  # in the order of their definition, as there
    names: dict[str, Tensor] = {}
    for i, layer in enumerate(module for module in modules if isinstance(module, (nn.Conv2d, nn.Linear))):
        assert layer.bias is not None
        names[f"{scope}/pi/layer_{i}/kernel:0"] = layer.weight
        names[f"{scope}/pi/layer_{i}/bias:0"] = layer.bias
    if network.semantic is not None:
        names[f"{scope}/pi/embeddings_vqvae:0"] = network.semantic.codebook
    for head, short in ((network.policy, "pi"), (network.value, "vf")):
        names[f"{scope}/{short}/w:0"] = head.weight
        names[f"{scope}/{short}/b:0"] = head.bias
    return names


@torch.no_grad()
def load_reference_weights(network: ActorCritic, weights: Mapping[str, np.ndarray], scope: str = "sppo2_model") -> None:
    """Copy reference variables into ``network``; TensorFlow shapes are transposed to PyTorch's.

    Raises:
        InterpError: a variable is missing or has the wrong shape.
    """
    for name, parameter in reference_name_map(network, scope).items():
        if name not in weights:
            raise InterpError(f"the checkpoint has no variable {name}: not a released SPPO or PPO checkpoint?")
        value = torch.as_tensor(np.asarray(weights[name], dtype=np.float32))
        value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value
        if value.shape != parameter.shape:
            raise InterpError(f"variable {name} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)}.")
        parameter.copy_(value)
