"""What long computations call to say how far they are."""

from collections.abc import Callable

Progress = Callable[[float, int], None]
"""Called with the steps done and all of them."""


def silent(done: float, of: int) -> None:
    """Shows nothing: the default."""
