"""Where tensors live and how they are multiplied: device and precision by name, matrix products on CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from functools import cache

import torch

from .errors import InterpError
from .provenance import cpu_model


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is a GPU, else the CPU.

    Raises:
        InterpError: the device is unknown or not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InterpError(f"unknown device '{name}'. Valid: auto, cpu, cuda, cuda:N.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InterpError(f"device '{name}' asked for, but PyTorch sees no CUDA GPU. Use --device auto or cpu.")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware; elsewhere it is emulated and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def keep_large_allocations() -> None:
    """Let glibc keep freed activation buffers instead of returning them to the kernel after every convolution.

    Faulting their pages in again costs about a fifth of a CPU update. A no-op on other C libraries.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 1 << 30)


NARROW = 64  # oneDNN repacks its operands, which thinner matrices don't repay …
LONG = 1 << 20  # … unless an operand or the product has this many entries


def multiply(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``x @ y`` of two matrices without gradients; float32 on a CPU by oneDNN where that is faster."""
    usual = x.device.type == "cpu" and x.dtype == y.dtype == torch.float32 and not torch.compiler.is_compiling()
    wide = min(*x.shape, *y.shape) >= NARROW
    if usual and (wide or max(x.numel(), y.numel(), len(x) * y.shape[1]) >= LONG) and prefers_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, y.t(), None, "none", [], "")
    return x @ y


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies matrices faster here than PyTorch's default, MKL, which is slow on others' CPUs.

    On one thread of an AMD EPYC with AVX-512, (2048, 256) by (256, 2048) took 9 ms instead of 20; on a Xeon products
    of hidden layers, (256, 256) by (256, 256), took 0.32 ms instead of 0.26.
    """
    return has_onednn() and not cpu_model().startswith(("Intel", "Genuine Intel"))


def has_cpp_compiler() -> bool:
    """Whether there is what torch.compile needs on a CPU."""
    return shutil.which(os.environ.get("CXX") or "g++") is not None


@cache
def has_onednn() -> bool:
    """Whether this PyTorch lets oneDNN multiply (an operator of torch.compile's, so its absence must do no harm)."""
    if not torch.backends.mkldnn.is_available():
        return False
    x = torch.eye(2)
    try:
        return torch.equal(torch.ops.mkldnn._linear_pointwise(x, x, None, "none", [], ""), x)
    except (AttributeError, RuntimeError, TypeError):
        return False
