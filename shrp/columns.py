"""Names of columns, where a person's own stand in one table with ours."""

from collections.abc import Iterable


def distinct(names: Iterable[str], reserved: Iterable[str]) -> list[str]:
    """Names that a person gave to columns, for a table that has reserved ones too: `input` becomes `input (text)`.

    Without this the one would take the other's place. Equal names among the person's own are told apart as well.
    """
    taken, found = set(reserved), []
    for name in names:
        free, number = name, 1
        while free in taken:
            free, number = f"{name} (text)" if number == 1 else f"{name} (text {number})", number + 1
        taken.add(free)
        found.append(free)
    return found
