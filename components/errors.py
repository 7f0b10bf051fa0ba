"""The errors that a user can meet, each with an exit code and a message in three parts.

Every error says what is wrong (with the value), where (file, row, parameter) and what to do.
Exit codes are a contract: 1 a check found something, 2 the user's mistake; an exception that is
no `LesionflowError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar

_WHERE, _FIX = "where: ", "to do: "


class LesionflowError(Exception):
    """Base of all errors with a message meant for the user.

    Parameters
    ----------
    what
        What is wrong, with the offending value.
    where
        The file, row, parameter or stage that it was found in.
    fix
        What the user can do about it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  {_WHERE}{self.where}\n  {_FIX}{self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        # Ray pickles what a worker raises; keyword-only arguments need this to survive.
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(cls: type[LesionflowError], what: str, where: str, fix: str) -> LesionflowError:
    return cls(what, where=where, fix=fix)


def in_one_line(message: str) -> str:
    """Return what is wrong, where and what to do, for a place that has one line for it.

    Parameters
    ----------
    message
        An error's, with whatever a caller put around it; of one that is no `LesionflowError`'s,
        the first line is returned.
    """
    first, *others = message.split("\n")
    lines = [line.strip() for line in others]
    parts = [next((line for line in lines if line.startswith(mark)), "") for mark in (_WHERE, _FIX)]
    return "; ".join(filter(None, [first, *parts]))


class ParamsError(LesionflowError):
    """`params.yaml` has an unknown key, a wrong type or an impossible value."""


class SourceError(LesionflowError):
    """A data source is missing, incomplete or contradicts itself."""


class TableError(LesionflowError):
    """A table lacks a column, has a wrong dtype or a row that cannot be used."""


class SplitError(LesionflowError):
    """The groups at hand cannot be divided as asked for."""


class WeightsError(LesionflowError):
    """Pretrained weights are not to be had or do not fit the backbone."""


class TrainingError(LesionflowError):
    """A training cannot go on (a loss that is not a number, memory, a lost worker)."""


class ResourceError(LesionflowError):
    """The machine or the cluster has less than what was asked for (CPUs, GPUs, disk)."""


class RegistryError(LesionflowError):
    """A model version is missing, damaged, or cannot be reached."""


class CheckFailedError(LesionflowError):
    """A check found something: a failed expectation, a leak, a gate."""

    exit_code: ClassVar[int] = 1
