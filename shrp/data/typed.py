"""Inputs as people type them."""

from unicodedata import category

from shrp.data.tasks import Task

MAX_SENTENCES = 32
PAIR_SEPARATOR = "|||"


def _visible(line: str) -> bool:
    """Whether a line has a visible character."""
    return any(not character.isspace() and category(character) != "Cf" for character in line)


def split_sentences(typed: str, task: Task) -> tuple[list[tuple[str, ...]], list[str]]:
    """Inputs from a text area: one a line, the two texts of a pair with `|||` between them.

    Returns:
        At most `MAX_SENTENCES` inputs, and sentences on what was left out.
    """
    size, inputs, notes, incomplete = len(task.text_columns), [], [], []
    lines = [(number, line.strip()) for number, line in enumerate(typed.splitlines(), 1) if _visible(line)]
    for number, line in lines:
        parts = tuple(part.strip() for part in line.split(PAIR_SEPARATOR)) if size == 2 else (line,)
        if len(parts) == size and all(map(_visible, parts)):
            inputs.append(parts)
        else:
            incomplete.append(str(number))
    if incomplete:
        which = f"line {incomplete[0]}" if len(incomplete) == 1 else f"lines {', '.join(incomplete[:8])}"
        first, second = task.text_columns
        notes.append(
            f"Left out {which}{' and more' if len(incomplete) > 8 else ''}: an input of this task is "
            f"a {first} and a {second} on one line, with {PAIR_SEPARATOR} between them."
        )
    if len(inputs) > MAX_SENTENCES:
        notes.append(f"Only the first {MAX_SENTENCES} of {len(inputs)} inputs are shown.")
    return inputs[:MAX_SENTENCES], notes
