"""Pruning lab: set how many experts are kept, see at once what that costs and loses, and export it."""

from ui import state

# Before what imports torch and transformers: one thread does that for all sessions.
selection = state.current(state.described("Pruning lab"))

# isort: split

from ui.lab import view

if selection.is_routed:
    # Not a fragment: Streamlit stops a whole run as soon as the slider moves, so nothing queues.
    view.Lab(selection).draw()
else:
    view.not_routed(selection)
