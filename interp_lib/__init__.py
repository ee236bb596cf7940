"""What does a deep RL agent see? Semantic clustering (SPPO) and prototypes (ProtoSAC), from training to figures.

>>> import interp_lib
>>> agent = interp_lib.load_agent("checkpoints/sppo-coinrun-s2021")
>>> agent.embed(observations).code
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common.errors import InterpError

if TYPE_CHECKING:
    from .agents.protosac.protosac import SAC, ProtoSAC
    from .agents.sppo.agents import PPO, SPPO
    from .runs.folder import load_agent

__all__ = ["PPO", "SAC", "SPPO", "InterpError", "ProtoSAC", "load_agent"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported on first use: `import interp_lib` and `interp --help` stay fast.
    if name == "load_agent":
        from .runs.folder import load_agent

        return load_agent
    if name in __all__:
        from .agents.registry import ALGORITHMS

        return ALGORITHMS[name.lower()].agent_class
    raise AttributeError(f"module 'interp_lib' has no attribute '{name}'")
