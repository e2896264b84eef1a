"""`trim-vocabulary`: remove unused tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from shrp.cli.options import AsJson, Data, Loaded, Out
from shrp.cli.output import print_json, print_table, stderr, stdout
from shrp.data.tasks import TASKS, TEXTS, Task
from shrp.data.text_data import TextData
from shrp.errors import DataError

if TYPE_CHECKING:  # torch is slow to import, and --help needs none
    from shrp.checkpoints.info import CheckpointInfo
    from shrp.evaluation.evaluation import Evaluation


def trim_vocabulary(
    checkpoint: Loaded,
    out: Out,
    *,
    data: Data,
    texts: Annotated[
        Path | None, Option(help="Texts like those to be read, a table or .txt [default: GLUE's]")
    ] = None,
    common: Annotated[int, Option(min=0, help="Also keep the vocabulary's first words, so many.")] = 0,
    json: AsJson = False,
) -> None:
    """Remove unused tokens from a WordPiece vocabulary: much of a pruned model is its embeddings.

    Texts whose tokens all stay are read as before; other words split into smaller pieces.
    """
    import torch

    import shrp.checkpoints.checkpoint as store
    from shrp.checkpoints.saving import refuse_existing, round_as_stored
    from shrp.cli.subjects import teacher_score
    from shrp.data.sources import probe_for
    from shrp.evaluation.costs import cost, dense_cost
    from shrp.evaluation.evaluate import evaluate
    from shrp.evaluation.paired import flip_table, paired_difference
    from shrp.pruning.vocabulary import vocabulary_of, with_vocabulary

    refuse_existing(out)
    source = store.load(checkpoint, device=data.device)
    if "vocabulary" in source.info.training:
        raise DataError(f"the vocabulary of {checkpoint} is trimmed already; trim the checkpoint it came from.")
    task, length = source.info.task, data.max_length or source.info.max_length
    like, scored = _texts(texts, task, data.text_column), None
    if data.data != "probe" or probe_for(task):
        scored = data.load(task)
    else:
        stderr.print(f"no probe sentences are shipped for {task.name}, so nothing is scored: give --data")
    chosen = vocabulary_of(source.tokenizer, like.texts, common)
    model, tokenizer = with_vocabulary(source.model, source.tokenizer, chosen)
    round_as_stored(model, torch.float16)
    facts = {"kept": len(chosen.kept), "size": chosen.size, "common": common}
    facts |= {"counted_on": like.name, "counted_n": len(like)}
    shares = [cost(one).relative_to(dense_cost(one))["model_params"] for one in (source.model, model)]
    result: dict[str, Any] = {"out": str(out), "model_params_before": shares[0], "model_params": shares[1]}
    result |= facts
    rows = [dict(row) for row in source.info.scores if row["kind"] == "teacher"]
    if scored is not None:
        before = evaluate(source.model, source.tokenizer, scored, max_length=length)
        after = evaluate(model, tokenizer, scored, max_length=length)
        change, ends = paired_difference(after, before)
        result |= {"data": scored.name, "n": len(scored), "metric": after.metric}
        result |= {"score_before": before.score, "score": after.score, "interval": after.ends()}
        result |= {"change": change, "change_interval": ends}
        result["changed_predictions"] = len(flip_table(before, after, scored))
        result["missing"] = chosen.missing(source.tokenizer, scored.texts)
        rows += _score_row(source.info, after, scored, teacher_score(source, scored, length), length)
    training = dict(source.info.training) | {"vocabulary": facts, "trimmed_from": source.fingerprint}
    info = replace(source.info, training=training, scores=tuple(rows))
    history = store.read_history(checkpoint)
    how = {"dtype": torch.float16, "new": True, "history": history, "teacher": source.teacher}
    store.save(model, tokenizer, info, out, **how)
    if json:
        print_json(result)
        return
    stdout.print(
        f"kept {facts['kept']:,} of {facts['size']:,} tokens: {shares[1]:.1%} of the dense model's parameters instead of "
        f"{shares[0]:.1%}"
    )
    if scored is not None:
        shown = ("data", "n", "metric", "score_before", "score", "change", "changed_predictions")
        print_table(f"{result['missing']:.1%} of the tokens of {scored.name} are removed", [result], shown)
        if after.score <= after.majority_score < before.score:
            stdout.print(
                f"not above the majority-class baseline ({after.majority_score:.4f}): give more texts, or --common"
            )
    stderr.print(f"wrote {out}")


def _texts(file: Path | None, task: Task, columns: list[str] | None) -> TextData:
    """The texts whose tokens are kept."""
    from shrp.data.sources import from_table, load_glue
    from shrp.data.tabular import read_table

    if file is None:
        if task.name not in TASKS:
            raise DataError(f"no texts for the task '{task.name}' are shipped: give --texts FILE.")
        return load_glue(task.name, "train")
    if file.suffix.lower() != ".txt":
        return from_table(read_table(file), file.name, task, columns, None, skip_incomplete=True)
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return TextData(TEXTS, file.name, tuple((line,) for line in lines if line.strip()))


def _score_row(
    info: CheckpointInfo, found: Evaluation, data: TextData, teacher: float | None, length: int
) -> list[dict[str, Any]]:
    """The score that the checkpoint carries; none for a dense model, a random selection, or an undefined score."""
    from shrp.checkpoints.score_rows import pruned_row, score_row

    drawn = info.plan is not None and info.plan.selection.startswith("random")
    if not info.config.layers or drawn or not math.isfinite(found.score):
        return []
    if info.plan is None:
        row = score_row("routed", "routed", [found], teacher, data, length)
    else:
        made = {"matched": "shares_matched" in info.training, "recovered": "recovery" in info.training}
        row = pruned_row(info.plan, found, teacher, data, length, **made)
    return [row | {"model": f"{row['model']}, vocabulary trimmed"}]
