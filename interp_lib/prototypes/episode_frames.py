"""Pictures of any step of recorded episodes, made when they are asked for: what lets a slider answer at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.errors import InterpError
from ..envs.names import task_info
from ..envs.pictures import image_observation, rendering_problem, rendering_task
from .traces import EpisodeTrace, with_frames

_MOST_BYTES = 128 * 2**20  # of cached frames: 497 of Pendulum, 776 of MuJoCo


class EpisodeFrames:
    """Frames of single steps, without rendering an episode whole.

    One simulator stays open and plays on from where it stands, so that the next step costs one step and one frame, and
    MuJoCo's renderer (half a second) is made once. Going back plays the episode from its start, unless the frame is
    cached. Images are shown as the agent sees them, like prototypes on such tasks: CarRacing's simulator takes 44 ms a
    step, half a minute to the middle of an episode. Where nothing can be rendered, states are drawn as bars.

    Args:
        traces: of one task.

    Attributes:
        note: empty, or what the frames are when they are not renderings, and why.
    """

    def __init__(self, traces: Sequence[EpisodeTrace]):
        self.traces = traces
        self.task = traces[0].task
        self.note = rendering_problem(self.task)
        self._image = task_info(self.task).image
        if self._image:
            self.note = "Frames are the newest of the four grey images that the agent sees."
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._env: Any = None
        self._episode, self._at = -1, 0  # what the simulator is in the middle of

    def frame(self, episode: int, step: int) -> np.ndarray:
        """The state before action ``step`` of ``traces[episode]`` → uint8 (H, W, 3).

        Raises:
            InterpError: no such step, or the episode came out differently when it was played again.
        """
        trace = self.traces[episode]
        if not 0 <= step < len(trace):
            raise InterpError(f"step {step} is not in this episode: it has {len(trace)} steps, the first is 0.")
        if (episode, step) not in self._cache:
            frame = self._make(episode, step)
            while len(self._cache) >= max(_MOST_BYTES // frame.nbytes, 1):
                self._cache.popitem(last=False)
            self._cache[episode, step] = frame
        self._cache.move_to_end((episode, step))
        return self._cache[episode, step]

    def close(self) -> None:
        """Free the simulator; the next frame starts a new one."""
        if self._env is not None:
            self._env.close()
        self._env, self._episode = None, -1

    def _make(self, episode: int, step: int) -> np.ndarray:
        trace = self.traces[episode]
        if self._image:
            return image_observation(trace.observations[step], min(task_info(self.task).frame_size))
        if self.note:
            frames = with_frames(trace, [step]).frames
            assert frames is not None
            return frames[0]
        if self._env is None:
            self._env = rendering_task(self.task)
        if self._episode != episode or self._at > step:
            self._observation, _ = self._env.reset(seed=trace.seed)
            self._episode, self._at = episode, 0
        while self._at < step:
            self._observation, *_ = self._env.step(trace.actions[self._at])
            self._at += 1
        if not np.array_equal(self._observation, trace.observations[step]):
            self.close()
            raise InterpError(f"episode {trace.seed} of {self.task} came out differently when it was played again.")
        if viewer := getattr(getattr(self._env.unwrapped, "mujoco_renderer", None), "viewer", None):
            # Another simulator that was closed since took OpenGL's current context with it: frames would be black.
            viewer.make_context_current()
        return np.array(self._env.render())
