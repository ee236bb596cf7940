"""Environments: Procgen games for SPPO and PPO, seven continuous Gymnasium tasks for ProtoSAC and SAC."""

import contextlib

# Procgen brings in the old gym, and Stable-Baselines3 imports it where it is: a page of advice on stderr each time.
with contextlib.suppress(ImportError):
    from gym_notices import notices

    notices.notices.clear()
