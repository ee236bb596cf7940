"""Data-parallel training: what N processes started by ``torchrun`` tell each other.

The counterpart of the original's MPI workers. ``num_envs`` stays the global number: each worker steps an equal share
of the environments and computes its share of every minibatch, so that N workers take the same optimiser steps as one
process would on the same minibatches. What couples a minibatch is exchanged: the statistics of the advantages, the
features of the FDR loss, and the gradient. Rewards and episode ends are exchanged at every step, so that all workers
hold the same statistics.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ...common.errors import InterpError


class Workers:
    """The workers of one training run, this process one of them: NCCL between GPUs, gloo between CPUs.

    Args:
        device: the device of this worker's network. None, and where ``torchrun`` announces no others in the
            environment: a single worker, for which every exchange changes nothing.

    Attributes:
        rank: number of this worker, from 0; only rank 0 writes files and shows progress.
        size: number of workers.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.rank, self.size = 0, 1
        if device is None or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return
        if not dist.is_initialized():
            # Gloo also beside NCCL: rewards and checkpoints are exchanged in host memory.
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, total: int) -> slice:
        """Which of ``total`` consecutive things, such as environments, are this worker's.

        Raises:
            InterpError: they can't be shared equally.
        """
        if total % self.size:
            raise InterpError(f"{total} environments can't be shared by {self.size} workers. Change --num-envs.")
        each = total // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all workers, (n, ...) → (size · n, ...), by rank; differentiable."""
        return x if self.size == 1 else _Gather.apply(x, self)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of ``x`` over the workers, without gradient."""
        if self.size == 1:
            return x
        x = x.detach().clone()
        dist.all_reduce(x)
        return x / self.size

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each parameter's gradient by its mean over the workers."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        # One message for all: there are dozens of small tensors, and each message costs a round trip.
        mean = self.mean(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def same_start(self, parameters: Iterable[Tensor]) -> None:
        """Give every worker the parameters of rank 0. No worker goes on before all are here."""
        for p in parameters if self.size > 1 else ():
            whole = p.detach().contiguous()  # convolutions are channels-last
            dist.broadcast(whole, src=0)
            p.detach().copy_(whole)

    def gather_array(self, x: np.ndarray) -> np.ndarray:
        """:meth:`gather` for arrays."""
        return x if self.size == 1 else self.all_rows(torch.from_numpy(np.ascontiguousarray(x))).numpy()

    def gather_list(self, items: list[Any]) -> list[Any]:
        """The items of all workers, by rank; for checkpoints, not for the hot loop."""
        parts: list[Any] = [items] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def decide(self, *choices: bool) -> tuple[bool, ...]:
        """Rank 0's ``choices``, which all workers follow: their clocks don't agree."""
        message = torch.tensor(choices, dtype=torch.uint8)
        if self.size > 1:
            dist.broadcast(message, src=0)
        return tuple(bool(choice) for choice in message)

    def all_rows(self, x: Tensor) -> Tensor:
        """:meth:`gather` without gradient, of several workers."""
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x)
        return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """All rows forward; backward, the sum over the workers of their gradients with respect to this worker's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, workers: Workers) -> Tensor:
        ctx.rank, ctx.rows = workers.rank, len(x)
        return workers.all_rows(x.contiguous())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.split(ctx.rows)[ctx.rank], None


def own_device(device: torch.device) -> torch.device:
    """The GPU of this worker where ``device`` names none by number: each worker needs its own.

    Raises:
        InterpError: there are more workers on this machine than GPUs.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda" or workers == 1:
        return device
    gpus = torch.cuda.device_count()
    if workers > gpus or device.index is not None:
        raise InterpError(
            f"{workers} workers need a GPU each, and there are {gpus}. "
            f"Start at most {gpus} with --device cuda, or use --device cpu."
        )
    torch.cuda.set_device(local)  # type: ignore[unreachable]  # torch's stubs: an index is always there
    return torch.device("cuda", local)
