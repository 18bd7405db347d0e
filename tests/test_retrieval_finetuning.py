"""Fine-tuning of the encoder: what it learns from, that a kill costs nothing, and that harm is seen."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from minilm import minilm_folder
from sentence_transformers import SentenceTransformer
from tiny_model import REPOSITORY, make_bert

from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.retrieval.finetuning import (
    RetrieverTuning,
    TooFewPairs,
    TuningRecord,
    Verdict,
    fine_tune,
    held_out_ranks,
    judge,
)
from mkailin_assets.retrieval.pairs import training_pairs
from mkailin_assets.retrieval.tables import RetrieverPair
from mkailin_assets.trainer import TrainingDiverged
from mkailin_resources.embeddings.sentence import SentenceEncoder
from mkailin_resources.training_checkpoints import MANIFEST, last_whole, manifest_writer

TINY = RetrieverTuning(
    consistency_rank=40,
    negatives=2,
    nearest_rank=0,
    furthest_rank=40,
    margin=0,
    batch_size=8,
    mini_batch_size=4,
    max_steps=12,
    checkpoint_steps=4,
    learning_rate=1e-3,
)
KILLED = """
import os, signal, sys
from pathlib import Path
import polars as pl
from sentence_transformers import SentenceTransformer
from mkailin_assets.retrieval.finetuning import RetrieverTuning, fine_tune

model, pairs, work, settings, step = sys.argv[1:]

def log(line):
    if line.startswith(f"step {step} of "):
        os.kill(os.getpid(), signal.SIGKILL)

settings = RetrieverTuning.model_validate_json(settings)
fine_tune(SentenceTransformer(model, device="cpu"), pl.read_parquet(pairs), settings, Path(work), log)
"""


def quiet(line: str) -> None:
    pass


def tiny_pairs(citations: int = 60, held_out: int = 15) -> pl.DataFrame:
    """Two pairs a citation, which share two words each with their text and none with most others."""
    rows = [
        {
            "pmid": pmid,
            "pubmed_file": "pubmed26n0001",
            "source": source,
            "question": f"does w{pmid % 61} help w{(7 * pmid + 3) % 61}" + (" there" if also else ""),
            "text": f"w{pmid % 61} w{(7 * pmid + 3) % 61} w{(11 * pmid) % 61} {source}",
            "split": "held_out" if pmid <= held_out else "train",
            "reason": None,
        }
        for pmid in range(1, citations + 1)
        for also, source in enumerate(("conclusion", "statement"))
    ]
    return pl.DataFrame(rows, schema=RetrieverPair.create_empty().schema)


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised BERT that knows the words of `tiny_pairs`; its dropout draws random numbers."""
    words = ["does", "help", "there", "conclusion", "statement", *(f"w{number}" for number in range(61))]
    return make_bert(tmp_path_factory.mktemp("bert"), words, window=32)


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def tuned(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A finished tuning: its fingerprint, record, pairs, folder, log, batches of texts, and look-ups."""
    work, lines, batches, looked_up = tmp_path_factory.mktemp("work"), [], [], []
    model = load(tiny_bert)
    model.prompts = {"query": "there ", "document": ""}
    preprocess = model.preprocess

    def recorded(texts: list[str], **options: Any) -> Any:
        if lines:  # the training has begun
            batches.append((texts, options["prompt"]))
        return preprocess(texts, **options)

    model.preprocess = recorded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda host, *_, **__: looked_up.append(host))
        record, pairs = fine_tune(model, tiny_pairs(), TINY, work, lines.append)
    model.preprocess = preprocess
    return SimpleNamespace(
        model=model, record=record, pairs=pairs, work=work, lines=lines, batches=batches, looked_up=looked_up
    )


def tune(
    folder: Path, work: Path, settings: RetrieverTuning = TINY, **given: Any
) -> tuple[bytes, TuningRecord]:
    """The tuned weights, and the record."""
    model = load(folder)
    record, _ = fine_tune(model, given.get("pairs", tiny_pairs()), settings, work, given.get("log", quiet))
    return weights_of(model), record


def weights_of(model: SentenceTransformer) -> bytes:
    return b"".join(weights.numpy().tobytes() for _, weights in sorted(model.state_dict().items()))


def kill_at(step: int, model: Path, work: Path) -> Path:
    """Tune in a process that is killed at a step; the folder of the checkpoints it leaves."""
    tiny_pairs().write_parquet(work / "pairs.parquet")
    settings = TINY.model_dump_json()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED,
            str(model),
            str(work / "pairs.parquet"),
            str(work),
            settings,
            str(step),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (checkpoints,) = work.glob("*/checkpoints")
    return checkpoints


def test_a_killed_tuning_goes_on_to_the_same_weights_even_if_its_last_checkpoint_is_torn(
    tiny_bert: Path, tmp_path: Path
) -> None:
    whole, _ = tune(tiny_bert, tmp_path / "whole")
    checkpoints = kill_at(11, tiny_bert, tmp_path)
    assert {path.name for path in checkpoints.iterdir()} == {"checkpoint-4", "checkpoint-8"}
    shutil.copytree(tmp_path, tmp_path.with_name("torn"))
    resumed, record = tune(tiny_bert, tmp_path)
    assert (resumed, record.course.resumed_at, record.course.steps) == (whole, 8, 12)

    (optimizer,) = tmp_path.with_name("torn").glob("*/checkpoints/checkpoint-8/optimizer.pt")
    os.truncate(optimizer, optimizer.stat().st_size // 2)
    lines: list[str] = []
    resumed, record = tune(tiny_bert, tmp_path.with_name("torn"), log=lines.append)
    assert (resumed, record.course.resumed_at) == (whole, 4)
    assert lines[:2] == [
        "checkpoint-8 is removed, a kill cut it off: optimizer.pt is not as it was written",
        "goes on from checkpoint-4",
    ]
    assert [step for step, _ in record.course.curve.train] == list(range(1, 13))


def test_a_finished_tuning_is_not_trained_a_step_further(tiny_bert: Path, tmp_path: Path) -> None:
    first, once = tune(tiny_bert, tmp_path)
    again, twice = tune(tiny_bert, tmp_path)
    assert first == again
    assert (twice.course.resumed_at, twice.course.steps) == (12, 12)
    assert twice.course.curve == once.course.curve


def test_another_base_other_pairs_and_other_settings_never_go_on_from_a_checkpoint(
    tiny_bert: Path, tmp_path: Path
) -> None:
    settings = TINY.model_copy(update={"max_steps": 1})
    tune(tiny_bert, tmp_path, settings)
    assert tune(tiny_bert, tmp_path, settings)[1].course.resumed_at == 1
    other = load(tiny_bert)
    next(other.parameters()).data += 0.01
    other.save(str(tmp_path / "other"), create_model_card=False)
    assert tune(tmp_path / "other", tmp_path, settings)[1].course.resumed_at is None
    assert tune(tiny_bert, tmp_path, settings, pairs=tiny_pairs(59))[1].course.resumed_at is None
    settings = settings.model_copy(update={"temperature": 0.05})
    assert tune(tiny_bert, tmp_path, settings)[1].course.resumed_at is None


def test_no_citation_is_right_and_wrong_in_one_batch(tuned: SimpleNamespace) -> None:
    pairs = tiny_pairs()
    owner = dict(pairs.select("text", "pmid").iter_rows())
    asked = dict(pairs.select("question", "pmid").iter_rows())
    right = dict(pairs.select("question", "text").iter_rows())
    columns = 2 + TINY.negatives
    assert len(tuned.batches) >= columns * TINY.max_steps  # a batch more is prepared than is trained on
    for start in range(0, len(tuned.batches), columns):
        (questions, prompt), *texts = tuned.batches[start : start + columns]
        assert prompt == "there "
        assert [right[question] for question in questions] == texts[0][0]
        read: list[set[int]] = []
        for place, question in enumerate(questions):
            wrong = {owner[column[place]] for column, _ in texts[1:]}
            assert asked[question] not in wrong
            read.append({asked[question], *wrong})
        assert len(set.union(*read)) == sum(map(len, read))


def test_pairs_the_base_cannot_find_are_left_out_of_the_training_alone(tuned: SimpleNamespace) -> None:
    pairs = RetrieverPair.validate(tuned.pairs)
    assert pairs.drop("reason").equals(tiny_pairs().drop("reason").sort("pmid", "source"))
    reasons = dict(pairs.drop_nulls("reason")["reason"].value_counts().iter_rows())
    assert tuned.record.left_out == reasons
    assert {reason.split(":")[0] for reason in reasons} == {
        "inconsistent",
        "fewer than 2 texts are wrong enough to be negatives",
    }
    assert pairs.filter(split="held_out")["reason"].null_count() == 30
    assert tuned.record.pairs == pairs.filter(split="train")["reason"].null_count()
    trained_on = {question for questions, _ in tuned.batches[:: 2 + TINY.negatives] for question in questions}
    assert trained_on <= set(pairs.filter(pl.col("reason").is_null(), split="train")["question"])


def test_a_tuning_learns_and_says_what_it_cost(tuned: SimpleNamespace, tiny_bert: Path) -> None:
    course = tuned.record.course
    losses = [loss for _, loss in course.curve.train]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert course.steps == 12
    assert course.seconds > 0
    assert TuningRecord.model_validate_json(tuned.record.model_dump_json()) == tuned.record
    assert not tuned.model.training
    assert tuned.model.max_seq_length == load(tiny_bert).max_seq_length


def test_a_tuning_asks_nobody_and_writes_no_card_that_quotes_the_corpus(tuned: SimpleNamespace) -> None:
    assert tuned.looked_up == []
    files = [path for path in tuned.work.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".md"]
    quoting = [path.name for path in files if b"does w" in path.read_bytes()]
    assert set(quoting) <= {"examples.parquet"}


@pytest.mark.parametrize(
    ("pairs", "settings", "message"),
    [
        (
            tiny_pairs(60, held_out=9),
            TINY,
            "at least 20 pairs to train on and 20 held-out ones; of 120 pairs 102 and 18",
        ),
        (
            tiny_pairs(20, held_out=11),
            TINY,
            "of 40 pairs 18 and 22 can be used: materialize more PubMed files",
        ),
        (
            tiny_pairs(),
            TINY.model_copy(update={"margin": 0.99}),
            "0 of these have 2 negatives, 20 are needed: lower negatives",
        ),
    ],
)
def test_too_few_pairs_are_refused_with_what_to_do(
    pairs: pl.DataFrame, settings: RetrieverTuning, message: str, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(TooFewPairs, match=message):
        fine_tune(load(tiny_bert), pairs, settings, tmp_path, quiet)


def test_ranks_without_room_for_the_negatives_are_refused_before_anything_is_encoded() -> None:
    with pytest.raises(ValueError, match="there is no room for 15 negatives"):
        RetrieverTuning(nearest_rank=190)


def test_a_loss_that_is_no_number_stops_the_tuning(tiny_bert: Path, tmp_path: Path) -> None:
    settings = TINY.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingDiverged, match=r"stopped at step [23]: loss is nan; lower learning_rate"):
        tune(tiny_bert, tmp_path, settings)


class Numbers:
    """An encoder whose vectors are given."""

    fingerprint, dimension = "numbers", 2

    def __init__(self, vectors: dict[str, Sequence[float]]) -> None:
        self._vectors = vectors

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._vectors[text] for text in texts], np.float32)

    encode_queries = encode_documents


@pytest.mark.parametrize(
    ("similar", "rank"),
    [
        ({}, 1),
        ({"text of 90 train": 0.9, "text of 2 held_out": 0.8}, 3),
        ({"text of 90 train": 0.7}, 2),
        ({"other text of 1": 0.9}, 1),
        ({"text of 1 held_out": float("nan")}, 41),
    ],
    ids=["nothing is nearer", "two are nearer", "as near", "nearer of the same citation", "no number"],
)
def test_a_rank_counts_what_other_citations_have_that_is_at_least_as_near(
    similar: dict[str, float], rank: int
) -> None:
    rows = [(pmid, "statement", f"text of {pmid} held_out", "held_out") for pmid in range(1, 21)]
    rows += [(pmid, "statement", f"text of {pmid} train", "train") for pmid in range(90, 111)]
    rows += [(1, "conclusion", "other text of 1", "held_out")]
    pairs = pl.DataFrame(rows, schema=["pmid", "source", "text", "split"], orient="row").with_columns(
        pubmed_file=pl.lit("f"), question=pl.lit("asked"), reason=pl.lit(None, pl.String)
    )
    near = dict.fromkeys(pairs["text"], 0.1) | {"text of 1 held_out": 0.7} | similar
    encoder = Numbers({"asked": (1, 0), **{text: (cosine, 0) for text, cosine in near.items()}})
    found = held_out_ranks(encoder, pairs, TINY)
    assert found.filter(pmid=1, source="statement").select("rank", "texts").row(0) == (rank, 42)
    assert held_out_ranks(encoder, pairs, TINY.model_copy(update={"distractors": 5}))["texts"][0] == 26


def ranks(*each: int, pairs_a_citation: int = 1) -> pl.DataFrame:
    rows = [(place // pairs_a_citation, str(place), rank, 500) for place, rank in enumerate(each)]
    return pl.DataFrame(rows, schema=["pmid", "source", "rank", "texts"], orient="row")


def test_the_verdict_gives_both_encoders_and_how_sure_the_difference_is() -> None:
    verdict = judge(ranks(1, 2, 5, 11, 10, 3), ranks(1, 1, 4, 10, 11, 2))
    assert verdict.base.mrr_at_10 == pytest.approx((1 + 1 / 2 + 1 / 5 + 0 + 1 / 10 + 1 / 3) / 6)
    assert verdict.tuned.mrr_at_10 == pytest.approx((1 + 1 + 1 / 4 + 1 / 10 + 0 + 1 / 2) / 6)
    shares = verdict.base.recall_at_1, verdict.base.recall_at_4, verdict.base.recall_at_10
    assert shares == pytest.approx((1 / 6, 3 / 6, 5 / 6))
    assert (verdict.pairs, verdict.citations, verdict.texts) == (6, 6, 500)
    gain = verdict.gain
    assert gain.value == pytest.approx(verdict.tuned.mrr_at_10 - verdict.base.mrr_at_10)
    assert gain.low < 0 < gain.value < gain.high
    assert "difference +0.119 (95% interval -0." in str(verdict)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_the_base_stays_current_only_if_the_tuned_encoder_is_worse() -> None:
    base, better, worse = ranks(2, 3, 4), ranks(2, 2, 4), ranks(2, 3, 5)
    assert judge(base, better).tuned_is_current
    assert judge(base, base).tuned_is_current
    assert not judge(base, worse).tuned_is_current
    assert str(judge(base, worse)).endswith("the base encoder is current")


def test_pairs_of_one_citation_make_the_difference_no_surer() -> None:
    base, tuned = [2] * 12, [1, 4, 2] * 4
    once = judge(ranks(*base), ranks(*tuned)).gain
    base, tuned = ([rank for rank in each for _ in range(5)] for each in (base, tuned))
    five_times = judge(ranks(*base, pairs_a_citation=5), ranks(*tuned, pairs_a_citation=5)).gain
    assert (five_times.low, five_times.high) == pytest.approx((once.low, once.high))


def test_ranks_of_other_pairs_are_not_compared() -> None:
    with pytest.raises(ValueError, match="ranks of 3 and of 2 pairs"):
        judge(ranks(1, 2, 3), ranks(1, 2))


def checkpoint(folder: Path, step: int) -> Path:
    """A checkpoint as the trainer leaves it to its callbacks, with the list of its files."""
    path = folder / f"checkpoint-{step}"
    (path / "1_Pooling").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "1_Pooling/config.json"):
        (path / name).write_text(f"{name} at step {step}")
    written: Any = SimpleNamespace(output_dir=str(folder), global_step=step)
    manifest_writer().on_save(written, written, written)
    return path


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: (path / MANIFEST).unlink(), "it has no manifest.json"),
        (lambda path: (path / MANIFEST).write_text('{"model'), "it has no manifest.json"),
        (lambda path: (path / "optimizer.pt").unlink(), "optimizer.pt is not as it was written"),
        (lambda path: os.truncate(path / "optimizer.pt", 3), "optimizer.pt is not as it was written"),
        (
            lambda path: (path / "model.safetensors").write_text("model.safetensors at step 9x"),
            "model.safetensors",
        ),
        (lambda path: shutil.rmtree(path / "1_Pooling"), "1_Pooling/config.json is not as it was written"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_removed_with_the_reason(
    damage: Callable[[Path], object], fault: str, tmp_path: Path
) -> None:
    older, newer = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    assert last_whole(tmp_path, pytest.fail) == newer
    damage(newer)
    lines: list[str] = []
    assert last_whole(tmp_path, lines.append) == older
    assert not newer.exists()
    assert len(lines) == 1
    assert lines[0].startswith("checkpoint-10 is removed, a kill cut it off: ")
    assert fault in lines[0]
    damage(older)
    assert last_whole(tmp_path, lines.append) is None


def test_where_nothing_was_trained_there_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    assert last_whole(tmp_path, pytest.fail) is None
    assert last_whole(tmp_path / "nothing", pytest.fail) is None


# A real encoder on real citations, of which it reads the beginning: all of them would take minutes.

REAL = RetrieverTuning(
    negatives=1, batch_size=4, max_steps=12, max_length=32, checkpoint_steps=12, distractors=30
)


@pytest.fixture(scope="module")
def real_pairs(real_data: Path) -> pl.DataFrame:
    with next(real_data.glob("nlm/pubmed/*/pubmed26n0003*.gz")).open("rb") as file:
        records = pl.concat(read_pubmed_file(file, "pubmed26n0003")).filter(record="citation").unique("pmid")
    items = json.loads((real_data / "pubmedqa" / "pqal_dev500.json").read_text()).items()
    benchmark = benchmark_questions((pmid, item["QUESTION"]) for pmid, item in items)
    pairs = training_pairs(records, benchmark)
    beginning = pl.col("text").str.split(" ").list.head(40).list.join(" ")
    train = pairs.filter(pl.col("reason").is_null(), split="train").sample(60, seed=1)
    held_out = pairs.filter(pl.col("reason").is_null(), split="held_out").sample(30, seed=1)
    return pl.concat([train, held_out]).with_columns(beginning)


@pytest.fixture(scope="module")
def base_ranks(real_pairs: pl.DataFrame) -> pl.DataFrame:
    return held_out_ranks(SentenceEncoder(load(minilm_folder())), real_pairs, REAL)


def test_a_real_encoder_is_tuned_on_the_corpus_and_judged_on_citations_it_never_saw(
    real_pairs: pl.DataFrame, base_ranks: pl.DataFrame, tmp_path: Path
) -> None:
    model = load(minilm_folder())
    record, pairs = fine_tune(model, real_pairs, REAL, tmp_path, quiet)
    assert weights_of(model) != weights_of(load(minilm_folder()))
    sides = pairs.group_by("pmid").agg(pl.col("split").n_unique())
    assert sides["split"].max() == 1
    assert record.course.steps == REAL.max_steps
    verdict = judge(base_ranks, held_out_ranks(SentenceEncoder(model), real_pairs, REAL))
    assert (verdict.pairs, verdict.texts) == (30, 30 + real_pairs.filter(split="held_out")["text"].n_unique())
    # A good encoder before and after: some steps neither make nor break it.
    assert verdict.base.mrr_at_10 > 0.8
    assert abs(verdict.gain.value) < 0.1
    assert verdict.tuned_is_current == (verdict.gain.value >= 0)


def test_a_tuning_that_harms_leaves_the_base_current(
    real_pairs: pl.DataFrame, base_ranks: pl.DataFrame, tmp_path: Path
) -> None:
    absurd = REAL.model_copy(update={"learning_rate": 0.05, "max_steps": 3})
    model = load(minilm_folder())
    few = pl.concat([real_pairs.filter(split="train").head(30), real_pairs.filter(split="held_out")])
    fine_tune(model, few, absurd, tmp_path, quiet)
    verdict = judge(base_ranks, held_out_ranks(SentenceEncoder(model), real_pairs, REAL))
    assert not verdict.tuned_is_current
    assert verdict.gain.high < -0.2
    assert str(verdict).endswith("the base encoder is current")
