import errno
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from components.backbones.model_file import ModelFile
from components.errors import LesionflowError, ResourceError, TrainingError, WeightsError
from components.training.failures import explained, readable
from components.training.job import Job

MakeJob = Callable[..., Job]
OURS = WeightsError("no weights", where="here", fix="put them there")


def _refused() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        ModelFile.model_validate({"classes": ("mel",), "malignant": (), "members": ()})
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (MemoryError(), TrainingError, "does not fit into memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), TrainingError, "lower batch_size (now 16)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), TrainingError, "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError, "no space left"),
        (PermissionError(13, "AccessDenied"), TrainingError, "this machine and every node"),
        (_refused(), TrainingError, "ModelFile of mobilenet_v3_large-0 is refused: classes: Tuple"),
        (OURS, WeightsError, "put them there"),
    ],
)
def test_what_befalls_a_worker_is_said_with_what_to_do(
    make_job: MakeJob, error: BaseException, kind: type[LesionflowError], words: str
) -> None:
    found = explained(make_job(), error)
    assert isinstance(found, kind) and words in str(found)


@pytest.mark.parametrize("bug", [RuntimeError("shapes differ"), KeyError("x"), ValueError("y")])
def test_bug_stays_a_bug(make_job: MakeJob, bug: Exception) -> None:
    assert explained(make_job(), bug) is None
    assert readable(make_job(), bug) is bug


def test_our_error_is_found_in_whatever_ray_wraps_it(make_job: MakeJob) -> None:
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    inside = UserExceptionWithTraceback(OURS, "Traceback ...")
    assert readable(make_job(), WorkerGroupError("failed", {1: inside})) is OURS
    chained = RuntimeError("around it")
    chained.__cause__ = OURS
    assert readable(make_job(), ControllerError(chained)) is OURS


def test_no_room_is_not_taken_for_a_bug(make_job: MakeJob) -> None:
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    error = readable(make_job(), ControllerError(WorkerGroupStartupTimeoutError(2)))
    assert isinstance(error, ResourceError) and "wait for other jobs" in str(error)
