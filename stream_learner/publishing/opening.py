"""The storage that a config names: a folder, or a URL and what its client needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stream_learner.durable import Fence, unfenced
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.objects import Objects
from stream_learner.publishing.remote import RemoteStorage
from stream_learner.publishing.storage import LocalStorage, Storage
from stream_learner.settings import Config, Duration
from stream_learner.settings.base import is_url


def checkpoints_root(config: Config) -> str:
    """Where the models' folders are: an absolute path, or a URL."""
    root = config.checkpoints.root or str(Path(config.state) / "checkpoints")
    return root if is_url(root) else str(Path(root).resolve())


def open_checkpoints(config: Config, *, token: int = 0, fence: Fence = unfenced) -> Checkpoints:
    """A worker's versions, to be written with the lease's token and fence."""
    storage = open_storage(
        checkpoints_root(config),
        config.name,
        config.checkpoints.options,
        Path(config.state),
        config.storage.retry_timeout,
        token=token,
        fence=fence,
    )
    return Checkpoints(storage, config.name, config.checkpoints.keep)


def open_storage(
    root: str,
    model: str,
    options: dict[str, Any],
    state: Path,
    patience: Duration,
    *,
    token: int = 0,
    fence: Fence = unfenced,
) -> Storage:
    """`root` as of `checkpoints_root`. ConfigError when it is a URL and fsspec, or what the URL needs, is missing."""
    if not is_url(root):
        return LocalStorage(Path(root) / model, token=token, fence=fence)
    objects = Objects(root, model, options)
    return RemoteStorage(objects, state / "uploads", patience, token=token, fence=fence)
