"""Environments: Procgen games for SPPO and PPO, seven continuous Gymnasium tasks for ProtoSAC and SAC."""
