"""What the model is reminded of: a bounded buffer of examples, and the policies that fill it and draw from it."""

from stream_learner.learning.replay.buffer import Drawn, Replay, replay_buffer
from stream_learner.learning.replay.policy import Arrived

__all__ = ["Arrived", "Drawn", "Replay", "replay_buffer"]
