"""Errors that a person reads: one sentence that says what is wrong and what would be right.

The command line prints them without a traceback and the app shows them in place; every other
exception is a defect of ours. What is probably not meant, but can be done, warns instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def panics_caught() -> Iterator[None]:
    """Raise a RuntimeError where a library in Rust panics: its exception is no `Exception`, so nobody else catches it."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise RuntimeError(first_line(error)) from error
        raise


def first_line(error: BaseException) -> str:
    """What an error says first; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


MOST = 800
"""Characters of an error's text at most."""


def bounded(text: str) -> str:
    """A text on one line, without control characters, of at most `MOST` characters; its middle is left out."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())
    if len(line) <= MOST:
        return line
    end = MOST // 4
    return f"{line[: MOST - end - 3]} … {line[-end:]}"


class ShrpError(Exception):
    """Base of every error that this library raises on purpose: one line of bounded length."""

    def __init__(self, text: str = "") -> None:
        super().__init__(bounded(str(text)))


class UnsupportedModelError(ShrpError):
    """The model is of a family that has no adapter."""


class CheckpointError(ShrpError):
    """A checkpoint folder is missing, truncated, of another version, or not SHRP's."""


class DataError(ShrpError):
    """A data source cannot be read, or lacks the columns that the task needs."""


class ColumnError(DataError):
    """A table has no column of a name, which `column` tells."""

    def __init__(self, column: str, text: str) -> None:
        super().__init__(text)
        self.column = column


class RowError(DataError):
    """A row of a table is not as it should be.

    Args:
        source: What the table is called.
        row: Its number, from 1, without a header.
        wrong: What is wrong, as it goes on after these two.
    """

    def __init__(self, source: str, row: int, wrong: str) -> None:
        super().__init__(f"'{source}', row {row}{wrong}")
        self.source, self.row, self.wrong = source, row, wrong

    def at(self, row: int) -> "RowError":
        """The same of a row that has another number, as where the table is a part of a larger one."""
        return type(self)(self.source, row, self.wrong)


class OptionError(ShrpError):
    """A command's options don't go together."""


class PlanError(ShrpError):
    """A pruning plan does not fit the model, or asks for an impossible budget."""


class TrainingError(ShrpError):
    """A training run cannot start or go on as asked."""


class UnusedGatesWarning(UserWarning):
    """Gates were given for a layer that has no router."""


class ExportError(ShrpError):
    """A model cannot be written in another runtime's format, or would not be the same there."""


class JobError(ShrpError):
    """A job cannot start: no room for it, or its name is taken."""
