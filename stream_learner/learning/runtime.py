"""TensorFlow set up once, before anything is computed: equal inputs give equal bits."""

from __future__ import annotations

import logging

import tensorflow as tf

from stream_learner.settings import Config

_log = logging.getLogger(__name__)


def configure_tensorflow(config: Config) -> None:
    """Deterministic kernels and a fixed number of threads. May be called again.

    Sums are split among `learning.threads`, so their number is part of the model's identity. One operation runs at a
    time: between operations nothing is left to timing. TensorFlow fixes its threads at the first computation; when
    other numbers are asked for afterwards they cannot be had, and that is logged.
    """
    tf.config.experimental.enable_op_determinism()
    threads = (config.learning.threads, 1)
    if _threads() == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads[0])
        tf.config.threading.set_inter_op_parallelism_threads(threads[1])
    except RuntimeError:
        _log.warning(
            "TensorFlow already runs with %s threads; learning.threads %d is not in force", _threads(), threads[0]
        )


def _threads() -> tuple[int, int]:
    threading = tf.config.threading
    return threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
