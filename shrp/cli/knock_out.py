"""`knock-out`: what is lost without an expert or a head."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from shrp.cli.options import AsJson, Data, Loaded, report_cut
from shrp.cli.output import print_json, print_table, progress_on, records, stderr
from shrp.errors import DataError, PlanError

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.data.text_data import TextData

_SHOWN = 20  # rows of a table in a terminal; the JSON has all
_MARGIN = "margin of the true class (for regression, minus the error)"


def knock_out(
    checkpoint: Loaded,
    *,
    data: Data,
    expert: Annotated[
        list[str] | None, Option(help="Expert, such as 9.11; repeat for several together [default: each]")
    ] = None,
    heads: Annotated[bool, Option("--heads", help="Heads of dense layers instead.")] = False,
    by: Annotated[str | None, Option(help="Also for whom each matters: class, slice or length.")] = None,
    examples: Annotated[int | None, Option(min=1, help="At most so many [default: 512; heads: 64]")] = None,
    json: AsJson = False,
) -> None:
    """Remove experts or heads and compare predictions: the router picks the next expert; a head's output becomes 0.

    A change is the value without them minus the value with them: negative where they help. What is lost (`signed`,
    `score_lost`) is positive there.
    """
    from shrp.analysis.importance import check_has_heads, removed_by_layer
    from shrp.cli.subjects import opened, provenance
    from shrp.data.slices import CLASS, LENGTH, SLICE, lacking
    from shrp.model.convert import expert_layers

    cells = [_cell(text) for text in expert or ()]
    for name, given in (("--heads", heads), ("--by", by), ("--examples", examples)):
        if cells and given:
            raise DataError(f"{name} is for removing each in turn; leave --expert out.")
    if by not in (None, CLASS, SLICE, LENGTH):
        raise DataError(f"--by is {CLASS}, {SLICE} or {LENGTH}, not {by!r}.")
    loaded, source, length = opened(checkpoint, data)
    if heads:
        check_has_heads(loaded.model)
    elif not (routed := expert_layers(loaded.model)):
        raise PlanError("this model has no routed layer, so there is no expert to knock out; --heads is for dense ones.")
    if cells:
        removed_by_layer(cells, routed)  # refuse now, not after all data were run
    if by is not None:
        why = lacking(by, source)
        if why or source.labels is None:
            raise DataError(why or f"{source.name} has no labels to compare by.")
    report_cut(loaded.model.config, loaded.tokenizer, source, length)
    if cells:
        found = _together(loaded, source, list(dict.fromkeys(cells)), length)
    else:
        most = min(examples or (64 if heads else 512), len(source))
        found = _in_turn(loaded, source, by, most, length, heads=heads)
    if json:
        print_json(found | {"provenance": provenance(loaded, source, length)})
    elif cells:
        _print_together(found)
    else:
        _print_in_turn(found, "head" if heads else "expert")


def _cell(text: str) -> tuple[int, int]:
    if not (found := re.fullmatch(r"(\d{1,5})\.(\d{1,5})", text)):
        raise PlanError(f"write an expert as LAYER.EXPERT, such as 9.11, not {text[:12]!r}.")
    return int(found[1]), int(found[2])


def _together(
    loaded: Checkpoint, source: TextData, cells: list[tuple[int, int]], length: int
) -> dict[str, Any]:
    """What is lost without these experts."""
    from shrp.analysis.importance import knock_out_effect
    from shrp.data.text_data import pairs_of
    from shrp.evaluation.evaluate import evaluate

    of = (loaded.model, loaded.tokenizer, source)
    with progress_on("evaluating", len(source)) as show:
        before = evaluate(*of, max_length=length)
        found = knock_out_effect(*of, before, cells, max_length=length, progress=show)
    change, ends = found.score_change()
    return {
        "experts": [f"{layer}.{number}" for layer, number in found.experts],
        "data": source.name,
        "n": len(source),
        "affected": len(found.affected),
        "metric": before.metric,
        "score": before.score,
        "without": found.after.score,
        "change": change,
        "change_interval": ends,
        "flipped": None if source.task.is_regression else found.flipped,
        "slices": records(found.by_slice(pairs_of(source)), "lost"),
    }


def _print_together(found: dict[str, Any]) -> None:
    stderr.print(
        f"removed for {found['affected']:,} of {found['n']:,} examples of {found['data']}; the router picks the next"
    )
    title = f"without {', '.join(found['experts'])}"
    if found["score"] == found["score"]:
        print_table(title, [found], ("metric", "score", "without", "change", "flipped"))
    if len(found["slices"]) > 1:
        shown = ("slice", "n", "affected", "lost", "elsewhere", "difference", "q")
        print_table(f"by slice: {_MARGIN} lost", found["slices"], shown)


def _in_turn(
    loaded: Checkpoint, source: TextData, by: str | None, examples: int, length: int, *, heads: bool
) -> dict[str, Any]:
    """The effect of every expert or head, and for whom it matters."""
    from shrp.analysis import importance
    from shrp.cli.subjects import tokens_read
    from shrp.data.slices import groups_by

    shaped = importance.of_heads if heads else lambda frame: frame
    with progress_on("knocking out", examples) as show:
        how = {"heads": heads, "max_length": length, "progress": show}
        found = importance.in_turn(loaded.model, loaded.tokenizer, source, examples, **how)
    result: dict[str, Any] = {"data": source.name, "n": found.n, "of": len(source)}
    result["heads" if heads else "experts"] = records(shaped(found.table(source, None)))
    if by is not None:
        groups = groups_by(by, source, lengths=tokens_read(loaded, source, length))
        with progress_on("permutation test") as show:
            frame = importance.worth_by_group(found, source, groups, progress=show)
        result |= {"by": by, "groups": records(shaped(frame)), "tested": importance.count_tests(frame)}
        result["significant"] = records(shaped(importance.beyond_chance(frame)))
    return result


def _print_in_turn(found: dict[str, Any], what: str) -> None:
    use = ("usage", "uses") if what == "expert" else ()
    print_table(
        f"each {what} in turn on {found['n']:,} of {found['of']:,} examples of {found['data']}: mean size of its effect "
        "on the predicted class's logit, and its mean; the largest",
        sorted(found[f"{what}s"], key=lambda row: -row["effect"])[:_SHOWN],
        ("layer", what, *use, "effect", "signed", "score_lost"),
    )
    if "by" in found:
        print_table(
            f"{_MARGIN} lost without the {what}, by {found['by']}: significantly unlike elsewhere",
            found["significant"][:_SHOWN],
            ("layer", what, "group", "n", *use[1:], "lost", "elsewhere", "q"),
        )
        stderr.print(
            f"{len(found['significant'])} of {found['tested']} differences are significant (false discovery rate 5%)"
        )
