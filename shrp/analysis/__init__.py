"""Analyses of a model: each takes a model, a tokenizer and data or a text, and returns a frozen result.

A `progress` callback is called with steps done and in all.
"""

from collections.abc import Callable

Progress = Callable[[float, int], None]
