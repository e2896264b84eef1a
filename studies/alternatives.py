"""What would I use instead? `python -m studies.alternatives --base BASE --minilm FOLDER --task sst2 --out FOLDER --json`.

On the same data and machine: a dense classifier, SHRP routed and pruned at two depths, layer dropping at the same depths,
MiniLM-L6 fine-tuned on the same data, and TF-IDF with logistic regression. Each is scored as it is served: in PyTorch
(float32) and, but for live routing, in ONNX Runtime (float32 and int8).

SHRP and layer dropping are trained like `retain` in the GLUE table, with the training data's texts as unlabelled text.
Trainings and what is served stay in `--out`, so a killed run continues; speed is measured at the end, in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import typer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from shrp.checkpoints import checkpoint
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.cli.options import AsJson, TrainingData, grouped
from shrp.cli.output import print_json, print_table, stderr
from shrp.cli.subjects import Subject
from shrp.data.text_data import TextData
from shrp.errors import DataError, ExportError
from shrp.evaluation.evaluate import Texts, evaluate
from shrp.evaluation.evaluation import Evaluation, summarise
from shrp.evaluation.paired import paired_difference
from shrp.evaluation.timing import serving_times
from shrp.export.exported import load_export
from shrp.export.onnx import export_folder
from shrp.files import write_text
from shrp.model.config import ShrpConfig
from shrp.model.convert import expert_layers
from shrp.phrases import counted
from shrp.training.runs import weights_digest
from studies.glue import Depth, Models, depths_of
from studies.rows import as_json, run
from studies.throughput import machine, versions
from studies.trainings import MAX_LENGTH, Base, Trainings, slug

RECIPE = "retain"
MINILM, MINILM_EPOCHS = "MiniLM-L6", 5
STRENGTHS = (1, 10, 100)
"""Inverse regularisation of the logistic regression, chosen by cross-validation on the training data."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model as it is served."""

    model: str
    runtime: str
    precision: str
    folder: Path
    """All that serving needs: weights or graph, and tokenizer."""
    found: Evaluation
    answer: Callable[[Texts], object]
    """From texts to outputs, tokenisation included."""

    @property
    def name(self) -> str:
        """Model and form in one line."""
        return f"{self.model}, {self.runtime} {self.precision}"

    @property
    def megabytes(self) -> float:
        """Size of the folder on disk, in 10^6 bytes."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 1e6


def trainings_of(
    base: str, work: Path, train: TextData, validation: TextData, effort: float = 1.0
) -> Trainings:
    """The trainings of a base on these data."""
    encoders = Base(base, work, effort=effort)
    encoders.texts = list(train.texts)
    made = Trainings(encoders, slug(train.task.name))
    made.train_data, made.validation = train, validation
    return made


def transformers(
    made: Trainings, minilm: Trainings, encoder: Path | None = None
) -> Iterator[tuple[str, Checkpoint]]:
    """Train all models but TF-IDF's, or read them back; yields a name and a checkpoint for each.

    Args:
        encoder: a pruned checkpoint that was trained on text (`studies.questions extensions` keeps some).
    """
    yield "dense", made.teacher
    models, layers = Models(made), made.base.layers
    for depth in depths_of(layers, made.base.experts).values():
        words = f"{depth.name.replace('of', ' of ')} layers"
        routed = models.routed(RECIPE, depth)
        yield f"SHRP, {words}, routed", routed
        kept = f"{counted(depth.tuned, 'expert')} a layer"
        yield f"SHRP, {words}, {kept}", models.fine_tuned(RECIPE, depth, routed)
        dropped = models.control(RECIPE, depth, "dropped")
        left = counted(layers - len(depth.layers), "layer")
        dense = replace(dropped.info, config=ShrpConfig(()), plan=None)
        yield f"layer dropping, {left} left", replace(dropped, info=dense)
    if encoder is not None:
        source = checkpoint.load(encoder)
        on, m = source.info.config.layers, source.info.plan.budget // len(source.info.config.layers)
        depth = Depth(f"{len(on)}of{layers}", (on,), (m,), m, True)
        start = replace(made.teacher.info, config=source.info.config, plan=source.info.plan, usage={})
        tuned = models.on_the_task(RECIPE, depth, "encoder", made.with_layers_of(source.model, start, True), part=4)
        yield f"SHRP, {len(on)} of {layers} layers, {counted(m, 'expert')} a layer, trained on more text", tuned
    minilm.epochs = MINILM_EPOCHS
    yield MINILM, minilm.teacher


def served(name: str, made: Checkpoint, data: TextData, out: Path) -> Iterator[Served]:
    """A checkpoint in each form that it can be served in, scored; what `out` holds already is not exported again."""
    model, tokenizer, folder = made.model.cpu().eval(), made.tokenizer, out / slug(name)
    path = checkpoint.save(model, tokenizer, made.info, folder / "pytorch")
    found = evaluate(model, tokenizer, data, max_length=MAX_LENGTH)
    yield Served(name, "PyTorch", "float32", path, found, Subject(made, None, MAX_LENGTH).run)
    if expert_layers(model):
        return
    digest = weights_digest(model)
    for precision in ("float32", "int8"):
        path = folder / precision
        if not _is_made(path, digest):
            int8 = precision == "int8"
            export_folder(model, tokenizer, made.info, path, made_from=digest, int8=int8, check=False)
        graph = load_export(path)
        yield Served(name, "ONNX Runtime", precision, path, graph.evaluate(data), graph.logits)


def _is_made(path: Path, digest: str) -> bool:
    """Whether a folder holds an export of these weights that this version reads."""
    try:
        return load_export(path).made_from == digest
    except ExportError:
        return False


def tfidf(train: TextData, data: TextData, out: Path) -> Served:
    """Logistic regression on TF-IDF of words and pairs of words."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    pipeline = make_pipeline(words, LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipeline, {"logisticregression__C": STRENGTHS}, cv=5)
    best = search.fit(_joined(train.texts), train.labels).best_estimator_
    folder = out / "tf-idf"
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(best, folder / "model.joblib")
    logits = np.full((len(data), data.task.num_labels), -1e9, dtype=np.float32)
    logits[:, best.classes_] = best.predict_log_proba(_joined(data.texts))
    found = summarise(data, np.arange(len(data)), logits, True)
    return Served(
        "TF-IDF, logistic regression",
        "scikit-learn",
        "float64",
        folder,
        found,
        lambda texts: best.predict_proba(_joined(texts)),
    )


def _joined(texts: Texts) -> list[str]:
    return [" ".join(parts) for parts in texts]


def rows_of(models: Sequence[Served], data: TextData) -> list[dict[str, Any]]:
    """Time all models and make a row of each.

    Returns:
        Rows data, n, machine, model, runtime, precision, metric, score, interval (95%), lead and lead_interval (over
        MiniLM-L6 in int8, paired), mb (10^6 bytes), p50_ms, p95_ms (single texts), and texts_per_s (batches of 32).
    """
    speeds = serving_times({one.name: one.answer for one in models}, data.texts)
    other = next(one.found for one in models if (one.model, one.precision) == (MINILM, "int8"))
    facts, rows = machine(), []
    about = {"data": data.task.name, "n": len(data)}
    about["machine"] = f"{facts['cpu']}, {counted(facts['threads'], 'thread')}"
    for one in models:
        lead, ends = paired_difference(one.found, other)
        row = {"model": one.model, "runtime": one.runtime, "precision": one.precision}
        row |= {"metric": one.found.metric, "score": one.found.score, "interval": one.found.ends()}
        row |= {"lead": lead, "lead_interval": list(ends), "mb": one.megabytes}
        rows.append(about | row | speeds[one.name])
    return rows


@grouped
def main(
    data: TrainingData,
    base: Annotated[str, typer.Option(help="A dense classifier of the task, or an encoder: hub id or folder.")],
    minilm: Annotated[str, typer.Option(help="MiniLM-L6: a hub id or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder for trainings and served models.")],
    task_name: Annotated[str | None, typer.Option(help="What to call the data of your own files.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="A pruned checkpoint that was trained on text, as well.")] = None,
    effort: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the steps of `retain` to train for.")
    ] = 1.0,
    rows: Annotated[
        Path | None, typer.Option(help="File of rows, which is replaced; by default rows.json in --out.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Compare models that answer the same task: score, size on disk, and speed."""
    train, validation = data.load(task_name)
    if train.task.is_regression:
        raise DataError(f"{train.name} has numbers for labels; give data with classes.")
    made = trainings_of(base, out / "base", train, validation, effort)
    others = trainings_of(minilm, out / "minilm", train, validation)
    models = []
    for name, found in transformers(made, others, encoder):
        for one in served(name, found, validation, out / "served"):
            stderr.print(f"{one.name}: {one.found.metric} {one.found.score:.4f}, {one.megabytes:.1f} MB")
            models.append(one)
    models.append(tfidf(train, validation, out / "served"))
    measured = [row | {"effort": effort} for row in rows_of(models, validation)]
    write_text(rows or out / "rows.json", as_json(measured))
    if json:
        print_json({"machine": machine(), "versions": versions(), "rows": measured})
    else:
        columns = ("model", "runtime", "precision", "score", "mb", "p50_ms", "p95_ms", "texts_per_s")
        print_table(f"{train.task.name}, n = {len(validation):,}", measured, columns)


if __name__ == "__main__":
    run(main)
