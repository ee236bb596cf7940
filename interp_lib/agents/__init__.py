"""The four agents, one record each: PPO and SPPO in Procgen, SAC and ProtoSAC in continuous tasks."""
