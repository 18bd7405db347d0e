"""Who asks: the generator that the settings name, or one tuned on exemplars, whichever asks better."""

from collections.abc import Callable
from typing import Any

import polars as pl

from mkailin_assets.adapters import read_record
from mkailin_assets.checkpoints import Published, name_of, publish_once, trained_generator
from mkailin_assets.intervals import columns_of
from mkailin_assets.preferences.trial import Trial, is_better, lead, score_of
from mkailin_assets.questions.finetuning import (
    GeneratorRecord,
    GeneratorTuning,
    generator_fingerprint,
    tune_generator,
)
from mkailin_assets.questions.tables import GeneratorCheckpoint
from mkailin_assets.retrieval.update import one_row
from mkailin_resources.generation import Ask
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainee, Trainees

NOT_TRAINED = "MKAILIN_TRAIN_AGENTS is no"
NO_HELD_OUT = "there is no held-out citation to try it on: materialize branch_citations of more branches"
START, TUNED = "start", "tuned"


def tuned(  # noqa: PLR0917
    role: Trainee,
    exemplars: pl.DataFrame,
    settings: GeneratorTuning,
    trainees: Trainees,
    storage: Storage,
    log: Callable[[str], None],
) -> tuple[Published, GeneratorRecord]:
    """The generator of a role, tuned on a QuestionExemplar table; trained at most once.

    Raises `TooFewExemplars`, and what `tune_generator` raises.
    """
    base = trainees.bases[role]
    published = publish_once(
        storage,
        "generators",
        generator_fingerprint(role, base, exemplars, settings),
        lambda folder, work: tune_generator(role, base, exemplars, settings, folder, work, log),
    )
    return published, read_record(storage.local_folder(published.uri), GeneratorRecord)


def checkpoint_row(
    role: Trainee, start: TextGenerator, reason: str, made: tuple[Published, GeneratorRecord] | None = None
) -> pl.DataFrame:
    """The `GeneratorCheckpoint` row of a role in which the start asks, with the reason."""
    row: dict[str, Any] = {"role": role, "asks": start.name, "start": start.name, "reason": reason}
    row |= {"exemplars": 0, "steps": 0, "documents": 0}
    if made:
        published, record = made
        curve = record.course.curve
        row |= {
            "generator": name_of(record),
            "fingerprint": record.fingerprint,
            "uri": published.uri,
            "base": record.base or None,
            "revision": record.revision or None,
            "exemplars": record.exemplars,
            "steps": record.course.steps,
            "first_loss": curve.train[0][1],
            "last_loss": curve.train[-1][1],
            "held_out_loss": curve.validation[-1][1] if curve.validation else None,
        }
    return one_row(GeneratorCheckpoint, **row)


def tried(
    row: pl.DataFrame, start: TextGenerator, asker: TextGenerator, trial: Trial, ask: Ask
) -> pl.DataFrame:
    """The `GeneratorCheckpoint` row after both were tried: the tuned one asks if it is better (`is_better`).

    Raises what `ask` raises.
    """
    if trial.citations.is_empty():
        return row.with_columns(reason=pl.lit(NO_HELD_OUT))
    scores = trial.scores({START: start, TUNED: asker}, ask)
    before, after, gain = score_of(scores, START), score_of(scores, TUNED), lead(scores, TUNED, START)
    asks = is_better(gain, trial.citations.height)
    reason = f"on held-out citations its questions score no higher than those of {start.name}, beyond chance"
    return row.with_columns(
        asks=pl.lit(asker.name if asks else start.name),
        documents=pl.lit(trial.citations.height, pl.Int64),
        start_score=pl.lit(before.value),
        tuned_score=pl.lit(after.value),
        **{name: pl.lit(value) for name, value in columns_of("lead", gain).items()},
        reason=pl.lit(None if asks else reason, pl.String),
    )


def asking(
    checkpoint: pl.DataFrame, start: TextGenerator, trainees: Trainees, storage: Storage
) -> TextGenerator:
    """Who asks by a `GeneratorCheckpoint` row: `start` as the settings name it now, or the tuned one."""
    row = checkpoint.row(0, named=True)
    return trained_generator(row["uri"], trainees, storage) if row["asks"] == row["generator"] else start
