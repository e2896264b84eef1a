"""Pruning lab: set how many experts are kept, see at once what that costs and loses, and take the result away."""

from ui import state

state.through_app()  # before what imports torch and transformers: one thread does that for all sessions

# isort: split

from ui.lab import view

selection = state.current("Pruning lab")
if selection.is_routed:
    # Not a fragment: Streamlit stops a whole run as soon as the slider moves, so nothing queues.
    view.Lab(selection).draw()
else:
    view.not_routed(selection)
