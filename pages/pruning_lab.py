"""Pruning lab: set how many experts are kept, see at once what that costs and loses, and take the result away."""

from ui import state  # first: two new sessions must not import transformers piecemeal at once

# isort: split

from ui.lab import view

selection = state.current("Pruning lab")
if selection.is_routed:
    # Not a fragment: Streamlit stops a whole run as soon as the slider moves, so nothing queues.
    view.Lab(selection).draw()
else:
    view.not_routed(selection)
