"""A Ray Train backend without a process group; light, because Ray's controller imports it."""

from __future__ import annotations

from ray.train.backend import BackendConfig


class NoProcessGroup(BackendConfig):  # type: ignore[misc]
    """For a single worker."""

    backend = "none"
    """`TorchTrainer` fills in a missing name, and so must be given one."""
