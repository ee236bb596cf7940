"""What the prototypes of a ProtoSAC agent do while it plays: traces, usage, single decisions, states, the whole."""

from .decisions import (
    Decision,
    action_density,
    action_interval,
    clearest_step,
    explain_decision,
    most_divided_step,
    squash,
)
from .states import (
    NearestState,
    PrototypePictures,
    StateMap,
    leading_distances,
    nearest_states,
    picture_states,
    prototype_pictures,
    prototype_spacing,
    restored_frames,
    state_map,
)
from .study import PrototypeStudy, compare_returns, prototype_table, state_values
from .traces import EpisodeTrace, check_agent, even_steps, playback_fps, record_episode, record_episodes, with_frames
from .usage import Usage, effective_number, prototype_usage, sharing_interval, usage_interval

__all__ = [
    "Decision",
    "EpisodeTrace",
    "NearestState",
    "PrototypePictures",
    "PrototypeStudy",
    "StateMap",
    "Usage",
    "action_density",
    "action_interval",
    "check_agent",
    "clearest_step",
    "compare_returns",
    "effective_number",
    "even_steps",
    "explain_decision",
    "leading_distances",
    "most_divided_step",
    "nearest_states",
    "picture_states",
    "playback_fps",
    "prototype_pictures",
    "prototype_spacing",
    "prototype_table",
    "prototype_usage",
    "record_episode",
    "record_episodes",
    "restored_frames",
    "sharing_interval",
    "squash",
    "state_map",
    "state_values",
    "usage_interval",
    "with_frames",
]
