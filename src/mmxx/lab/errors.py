"""The errors that a user can cause or meet, each with its exit code.

The command line prints ``mmxx: <message>`` and ends with the code; a traceback is only for
what nobody foresaw (exit code 70).
"""

from __future__ import annotations

DONE = 0
FELL_SHORT = 1
INTERNAL = 70


class MmxxError(Exception):
    """Base of the errors that the command line turns into one line and an exit code."""

    exit_code = INTERNAL


class BadInputError(MmxxError):
    """The user's argument, file or run folder cannot be used. Exit code 2."""

    exit_code = 2


class MissingExtraError(MmxxError):
    """A system needs an optional dependency that is not installed. Exit code 3."""

    exit_code = 3


class CrashedError(MmxxError):
    """A system or a worker process ended in a way that it did not foresee. Exit code 70."""

    exit_code = INTERNAL


class CannotWriteError(MmxxError):
    """The run folder cannot be written: disk full, or read-only. Exit code 74."""

    exit_code = 74


class Interrupted(MmxxError):  # noqa: N818 - not a fault: the run can be resumed
    """The run was stopped by a signal or its time limit and can be resumed. Exit code 75."""

    exit_code = 75
