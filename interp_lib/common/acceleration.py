"""Faster ways to compute the same: CUDA graphs and torch.compile, each used only once it was seen to give the same.

A guess about a device can cost speed here, never correctness: what does not run, or gives other numbers than the plain
function on the first arguments, is left out, which one line says.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

# Takes a function of nothing that computes on tensors → how to compute that again, and the tensors it then fills.
Capture = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]

Compile = bool | Literal["auto"]  # whether to go the faster ways

EXACT, ROUNDED = 1e-2, 1e-1  # relative errors of float32, whose products a GPU may round to TF32, and of bfloat16
_WARM_UPS = 3  # before a capture: libraries choose their kernels and take their memory


class Checked:
    """``plain``, by a faster way where that gives the same on the first arguments.

    Args:
        plain: a function of tensors, also within tuples and the like, that returns such; the same twice for the same.
        make: called with the arguments of the first call → what may take the place of ``plain``.
        what: for the line that says why ``plain`` stays.
        tolerance: relative error, see :func:`difference`.
        reference: ``plain`` without its own rounding, where it rounds to bfloat16.
        examples: makes of the arguments of the first call those that are tried; all have to give the same.
    """

    def __init__(
        self,
        plain: Callable[..., Any],
        make: Callable[..., Callable[..., Any]],
        what: str,
        tolerance: float = EXACT,
        reference: Callable[..., Any] | None = None,
        examples: Callable[..., list[tuple[Any, ...]]] = lambda *args: [args],
    ) -> None:
        self._plain, self._make, self._what = plain, make, what
        self._tolerance, self._reference, self._examples = tolerance, reference or plain, examples
        self._chosen: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self._chosen is None:
            problem = self._try(args)
            if problem:
                print(f"{self._what} runs as it is, slower: {problem}", file=sys.stderr)
        assert self._chosen is not None
        return self._chosen(*args)

    @property
    def fast(self) -> bool:
        """Whether the faster way is taken; not before the first call."""
        return self._chosen not in (None, self._plain)

    def _try(self, args: tuple[Any, ...]) -> str:
        """Choose → what is wrong with the faster way."""
        self._chosen = self._plain
        try:
            with warnings.catch_warnings():  # PyTorch's compiler warns of its own deprecated parts
                warnings.filterwarnings("ignore", module="torch")
                with _same_dice(args):
                    fast = self._make(*args)
                for example in self._examples(*args):
                    with _same_dice(args):
                        expected = _kept(self._plain(*example))
                    with _same_dice(args):
                        exact = _kept(self._reference(*example))
                    with _same_dice(args):
                        problem = difference(fast(*example), expected, exact, self._tolerance)
                    if problem:
                        return problem
        except Exception as error:  # whatever a compiler, a driver or a missing one makes of it
            return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        self._chosen = fast
        return ""


class Captured:
    """``function`` as recorded by ``capture``, such as a CUDA graph: one launch instead of one an operation.

    Tensors that are passed are copied into buffers of its own. Parameters are used where they lie, and may change; all
    else that is passed is part of what was recorded. What comes back is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Any], capture: Capture, args: tuple[Any, ...]) -> None:
        self._function = function
        leaves, spec = tree_flatten(args)
        self._key = _form(leaves), spec
        own = [x.clone() if _is_input(x) else x for x in leaves]
        self._inputs = [x for x in own if _is_input(x)]
        with torch.cuda.device_of(self._inputs[0]):
            self._replay, self._outputs = capture(lambda: function(*tree_unflatten(own, spec)))
        # A replay that computed nothing, or from other memory, would give what was computed here: a check would pass.
        for x in (*self._inputs, *(x for x in tree_leaves(self._outputs) if isinstance(x, Tensor))):
            x.detach().fill_(-1 if x.dtype == torch.int64 else 0)

    def __call__(self, *args: Any) -> Any:
        leaves, spec = tree_flatten(args)
        if (_form(leaves), spec) != self._key:  # another batch size or setting
            return self._function(*args)
        for own, x in zip(self._inputs, filter(_is_input, leaves), strict=True):
            own.copy_(x, non_blocking=True)
        self._replay()
        return self._outputs


def captured(function: Callable[..., Any], capture: Capture) -> Callable[..., Captured]:
    """How a :class:`Checked` makes a :class:`Captured` of ``function``."""
    return lambda *args: Captured(function, capture, args)


def cuda_graph(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """A :data:`Capture` by ``torch.cuda.graph``."""
    stream, dice = torch.cuda.Stream(), torch.cuda.default_generators[torch.cuda.current_device()]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph, spare = torch.cuda.CUDAGraph(), dice.clone_state()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on with what they do
            outputs = function()
    except Exception:
        dice.graphsafe_set_state(spare)  # after a capture that failed the dice would wait for its end for ever
        raise
    return graph.replay, outputs


def difference(got: Any, expected: Any, exact: Any, tolerance: float) -> str:
    """In which output two results are further apart than rounding explains, and how far; "" where in none.

    Floats (n, …) may differ in norm by ``tolerance`` of their own norm and a hundredth of that of all of them together,
    since what nearly cancels is all rounding. Single floats may by ``tolerance`` of themselves, or of 1; of whole
    numbers that share may be others. To that comes twice what ``expected`` differs from ``exact``: two that round
    differently differ as much from each other as from what is right. (Of 64 observations a gradient in bfloat16 was
    up to 15% from that in float32, and inductor's up to 13% from PyTorch's.)
    """
    ours, spec = tree_flatten(got)
    theirs, other = tree_flatten(expected)
    right = tree_leaves(exact)
    if spec != other:
        return "it has other outputs"
    norms = [float(x.norm()) for x in theirs if isinstance(x, Tensor) and x.ndim and x.is_floating_point()]
    least = 0.01 * sum(norm**2 for norm in norms) ** 0.5
    for i, (a, b, c) in enumerate(zip(ours, theirs, right, strict=True)):
        if not isinstance(b, Tensor):
            if a is not b and a != b:
                return f"output {i} is {a}, not {b}"
            continue
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {i} is {a.dtype} {tuple(a.shape)}, not {b.dtype} {tuple(b.shape)}"
        if not b.is_floating_point():
            error, rounded, most = float((a != b).float().mean()), float((b != c).float().mean()), tolerance
        else:
            error, rounded = float((a - b).norm()), float((b - c).norm())
            most = tolerance * (float(b.norm()) + least if b.ndim else max(1.0, abs(float(b))))
        most += 2 * rounded
        if not error <= most:  # nor NaN
            return f"output {i} differs by {error:.2g}, and rounding explains {most:.2g}"
    return ""


def _kept(result: Any) -> Any:
    """A copy: the next call may overwrite what the last one returned."""
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, result)


def _is_input(x: Any) -> bool:
    return isinstance(x, Tensor) and not isinstance(x, nn.Parameter)


def _form(leaves: list[Any]) -> list[Any]:
    """What a recording depends on: the kinds of tensors that are passed, which parameters, and all else."""
    return [
        (x.shape, x.dtype, x.device) if _is_input(x) else (type(x), id(x) if isinstance(x, Tensor) else x)
        for x in leaves
    ]


@contextlib.contextmanager
def _same_dice(args: Any) -> Iterator[None]:
    """Whatever is drawn within is drawn again afterwards."""
    gpus = {x.get_device() for x in tree_flatten(args)[0] if isinstance(x, Tensor) and x.is_cuda}
    with torch.random.fork_rng(devices=gpus):
        yield
