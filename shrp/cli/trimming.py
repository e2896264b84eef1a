"""`trim-vocabulary`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.data_options import (
    DataSource,
    LabelColumn,
    LabelMeanings,
    OwnFile,
    SkipIncomplete,
    TextColumns,
    evaluation_data,
)
from shrp.cli.options import (
    AsJson,
    EvaluatedLength,
    FullPrecision,
)
from shrp.cli.output import example, interval_text, print_json, stderr, stdout, told
from shrp.data.tasks import TASKS, Task
from shrp.errors import DataError, IncompleteError

if TYPE_CHECKING:  # torch is slow to load, and --help needs none
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from shrp.checkpoints.checkpoint import Checkpoint
    from shrp.checkpoints.info import CheckpointInfo
    from shrp.data.text_data import TextData
    from shrp.evaluation.evaluation import Evaluation


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        "trim-vocabulary",
        short_help="Take out tokens that your texts don't need",
        epilog=example(
            "trim-vocabulary pruned --common 12000 --out trimmed",
            "Writes a checkpoint, weights in float16, and prints its size and its score beside those of the "
            "whole vocabulary.",
        ),
    )(trim_vocabulary)


def trim_vocabulary(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint, routed, static or dense.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the resulting checkpoint.")],
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Texts like those to be read: a table, or a .txt file with one a line; by default the training "
            "data of the checkpoint's GLUE task.",
            show_default=False,
        ),
    ] = None,
    texts_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the text in --texts; by default as in the checkpoint's task; twice for pairs."
        ),
    ] = None,
    min_count: Annotated[
        int, typer.Option(min=1, help="How often a token must be in these texts to stay.")
    ] = 1,
    common: Annotated[
        int,
        typer.Option(
            min=0,
            help="Keep so many of the vocabulary's first words and pieces too, in BERT's the most common ones.",
        ),
    ] = 0,
    data: DataSource = "probe",
    text_column: TextColumns = None,
    label_column: LabelColumn = "label",
    label_means: LabelMeanings = None,
    skip_incomplete: SkipIncomplete = False,
    max_length: EvaluatedLength = None,
    full_precision: FullPrecision = False,
    json: AsJson = False,
) -> None:
    """Take the tokens out of a vocabulary that texts don't need: much of a pruned model is its embeddings.

    WordPiece alone: bert, distilbert, electra, ernie, mpnet. Texts all of whose tokens stay are read and answered as
    before (but for float16); other words fall into smaller pieces.
    """
    import torch

    import shrp.checkpoints.checkpoint as store
    from shrp.checkpoints.info import history_text
    from shrp.checkpoints.saving import refuse_existing, round_as_stored
    from shrp.cli.subjects import OfCheckpoint
    from shrp.data.sources import load_glue, probe_for
    from shrp.evaluation.costs import cost, dense_cost
    from shrp.pruning.vocabulary import vocabulary_facts, vocabulary_of, with_vocabulary

    is_table = texts is not None and texts.suffix.lower() != ".txt"
    if texts_column and not is_table:
        raise DataError("--texts-column is for a table of --texts.")
    refuse_existing(out)
    source = store.load(checkpoint)
    if "vocabulary" in source.info.training:
        raise DataError(
            f"{checkpoint} has a trimmed vocabulary already; trim the checkpoint that it came from."
        )
    task, length = source.info.task, max_length or source.info.max_length
    if is_table:
        like = _of_table(texts, task, texts_column, skip_incomplete)
    elif texts is not None:
        like = _lines(texts)
    elif task.name in TASKS:
        like = load_glue(task.name, "train")
    else:
        raise DataError(
            f"the checkpoint's task, '{task.name}', is one of your own: give its texts with --texts."
        )
    scored = None
    scored_file = data not in ("probe", "glue")
    skipped = skip_incomplete and (scored_file or not is_table)  # where no table is read it is refused below
    own = OwnFile(text_column, label_column, label_means=label_means, skip_incomplete=skipped)
    if data != "probe" or probe_for(task):
        scored = evaluation_data(data, task, own)
    else:
        own.refuse("is for a file of your own; give one with --data.")
        takes = "glue or a file" if task.name in TASKS else "a file"
        stderr.print(f"there is no probe set for {task.name}, so nothing is scored: --data takes {takes}")
    chosen = vocabulary_of(source.tokenizer, like.texts, min_count=min_count, common=common)
    model, tokenizer = with_vocabulary(source.model, source.tokenizer, chosen)
    dtype = None if full_precision else torch.float16
    round_as_stored(model, dtype)
    facts = vocabulary_facts(chosen, like, min_count=min_count, common=common)
    result: dict[str, Any] = {"out": str(out)} | facts
    shares = [cost(one).relative_to(dense_cost(one))["model_params"] for one in (source.model, model)]
    result |= {"model_params_before": shares[0], "model_params": shares[1]}
    rows = _of_teacher(source, length, scored)
    if scored is not None:
        before, after = _scored(source, model, tokenizer, scored, length)
        result |= _change(before, after, scored) | {"missing": chosen.missing(source.tokenizer, scored.texts)}
        teacher = OfCheckpoint(source, length).teacher(scored)
        rows += _row(source.info, after, scored, teacher, length)
    training = dict(source.info.training) | {"vocabulary": facts, "trimmed_from": source.fingerprint}
    info = replace(source.info, training=training, scores=tuple(rows))
    history = store.read_history(checkpoint)
    extra = {store.HISTORY: history_text(history)} if history else {}
    told = {"extra_files": extra, "teacher": source.teacher}
    store.save(model, tokenizer, info, out, dtype=dtype, new=True, **told)
    if json:
        print_json(result)
        return
    stdout.print(
        f"kept {facts['kept']:,} of {facts['size']:,} tokens: the whole model has {shares[1]:.1%} of the dense one's "
        f"parameters instead of {shares[0]:.1%}"
    )
    if scored is not None:
        stdout.print(_said(result, scored))
    if scored is not None and after.score <= after.constant < before.score:
        stdout.print(
            f"that is not above a constant answer, which has {after.constant:.4f}: give more texts, or --common"
        )
    stderr.print(f"wrote {out}")


def _of_table(file: Path, task: Task, columns: list[str] | None, skip_incomplete: bool) -> TextData:
    """The texts of a table, whose labels are no matter; rows that are left out are counted on stderr."""
    from shrp.data.sources import from_table
    from shrp.data.tabular import read_table

    frame = read_table(file)
    try:
        found = from_table(frame, file.name, task, columns, None, skip_incomplete=skip_incomplete)
    except IncompleteError as error:
        raise DataError(f"{error} --skip-incomplete leaves out all rows that lack a text.") from error
    if left := len(frame) - len(found):
        stderr.print(f"left out {left:,} of {len(frame):,} rows of {file.name}, without a text")
    return found


def _lines(file: Path) -> TextData:
    """The lines of a text file that are not blank, as data without a task."""
    from shrp.data.tasks import TEXTS
    from shrp.data.text_data import TextData

    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not in UTF-8; save it in that encoding.") from error
    return TextData(TEXTS, file.name, tuple((line,) for line in lines if line.strip()))


def _of_teacher(source: Checkpoint, length: int, scored: TextData | None) -> list[dict[str, Any]]:
    """The teacher's rows of scores, which stay. Of those that hold for inputs as they are cut now, as far as the data
    are at hand, that is said: by the smaller vocabulary a text may be longer than the cut, not as the teacher reads it.
    """
    from shrp.checkpoints.score_rows import rows_as_now
    from shrp.data.batching import token_counts
    from shrp.data.sources import probe_for

    rows = [dict(row) for row in source.info.scores if row.get("kind") == "teacher"]
    for data in filter(None, (scored, *probe_for(source.info.task))):
        counts = token_counts(source.tokenizer, data.texts)
        alike = rows_as_now(source.info, data, lambda counts=counts: max(counts, default=0), length)
        for row in rows:
            row |= {"max_length": length} if row in [dict(one) for one in alike] else {}
    return rows


def _scored(
    source: Checkpoint,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    length: int,
) -> list[Evaluation]:
    """The evaluations with the whole vocabulary and with the smaller one."""
    from shrp.evaluation.evaluate import evaluate

    found = []
    with told(f"scoring on {data.name}", 2) as progress:
        for each, words in ((source.model, source.tokenizer), (model, tokenizer)):
            found.append(evaluate(each, words, data, max_length=length))
            progress(len(found), 2)
    return found


def _change(before: Evaluation, after: Evaluation, data: TextData) -> dict[str, Any]:
    """Both scores, and what changed."""
    from shrp.evaluation.paired import far_apart, flip_table, paired_difference

    change, ends = paired_difference(after, before)
    return {
        "data": data.name,
        "n": len(data),
        "metric": after.metric,
        "score_before": before.score,
        "score": after.score,
        "interval": after.ends(),
        "change": change,
        "change_interval": ends,
        "answered_otherwise": len(flip_table(before, after, data)),
        **({"otherwise_by_more_than": far_apart(before)} if data.task.is_regression else {}),
    }


def _row(
    info: CheckpointInfo, found: Evaluation, data: TextData, teacher: float | None, length: int
) -> list[dict[str, Any]]:
    """The row of scores that the checkpoint carries; none of a dense model, of a control, or without a score."""
    from shrp.checkpoints.score_rows import score_row

    drawn = info.plan is not None and info.plan.selection.startswith("random")
    studied = info.config.layers and not drawn
    if not studied or not math.isfinite(found.score):
        return []
    kind, size = ("routed", {}) if info.plan is None else ("static", {"budget": info.plan.budget})
    label = f"{kind}{f', {info.plan.budget} in all' if info.plan else ''}, vocabulary trimmed"
    row = score_row(label, kind, [found], teacher)
    return [row | {"data_fingerprint": data.source_fingerprint, "max_length": length} | size]


def _said(result: dict[str, Any], data: TextData) -> str:
    """The scores and what changed, in a sentence."""
    few = f"{result['missing']:.1%} of its tokens are not kept, {result['answered_otherwise']:,} inputs are answered "
    few += "otherwise"
    if data.task.is_regression:
        few += f" (by more than {result['otherwise_by_more_than']:g})"
    if data.labels is None:
        return f"{data.name} (n = {result['n']:,}, no labels): {few}"
    ends = interval_text({"interval": result["change_interval"]})
    return (
        f"{data.name} (n = {result['n']:,}): {result['metric']} {result['score']:.4f} instead of "
        f"{result['score_before']:.4f} ({result['change']:+.4f}"
        + (f"; 95%: {ends}, paired" if ends else "")
        + f"); {few}"
    )
