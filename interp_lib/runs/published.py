"""The learning curves that the authors of semantic clustering published, as far as this repository keeps them."""

from __future__ import annotations

import functools
from importlib.resources import files

import pandas as pd


@functools.cache
def published_returns() -> pd.DataFrame:
    """Mean return of the last 100 episodes: index total_timesteps (1525 updates), columns ``<algo>-<game>-s<seed>``."""
    with files("interp_lib").joinpath("runs/published_returns.csv.gz").open("rb") as file:
        return pd.read_csv(file, compression="gzip", index_col="total_timesteps")


def published_seeds(algorithm: str, game: str) -> pd.DataFrame:
    """The published seeds of one algorithm and game, one column each; no columns where nothing was published."""
    return published_returns().filter(regex=f"^{algorithm}-{game}-s")
