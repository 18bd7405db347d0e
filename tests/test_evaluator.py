"""The learned evaluator: what it reads, that it learns, and that a kill costs it nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from tiny_corpus import CONDITIONS, SUBSTANCES
from tiny_model import REPOSITORY, make_bert, make_model

from mkailin_assets.adapters import UntrainableBase
from mkailin_assets.preferences.agreement import agreement, position_bias, preferred_by_score
from mkailin_assets.preferences.evaluator import (
    SMALL,
    Evaluator,
    EvaluatorRecord,
    EvaluatorTuning,
    TooFewPreferences,
    evaluator_fingerprint,
    evaluator_text,
    load_evaluator,
    texts_of,
    train_evaluator,
)
from mkailin_assets.trainer import TrainingDiverged
from mkailin_resources.models.interface import Document, Section
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.training_checkpoints import sha256

SCHEMA = {
    "pmid": pl.Int64,
    "branch": pl.String,
    "title": pl.String,
    "abstract": pl.List(pl.Struct({"label": pl.String, "category": pl.String, "text": pl.String})),
    "chosen_question": pl.String,
    "rejected_question": pl.String,
    "chosen_context_titles": pl.List(pl.String),
    "rejected_context_titles": pl.List(pl.String),
    "margin": pl.Float64,
    "split": pl.String,
}
TINY = EvaluatorTuning(
    max_length=96,
    max_characters=300,
    epochs=20,
    max_steps=14,
    batch_size=8,
    learning_rate=1e-2,
    vocabulary=600,
    checkpoint_steps=4,
)
LEARNT = "adapter/adapter_model.safetensors"
# Trains until a step is logged, and is killed there.
KILLED = """
import os, signal, sys
from pathlib import Path
import polars as pl
from mkailin_assets.preferences.evaluator import EvaluatorTuning, train_evaluator
pairs, folder, work, settings, step = sys.argv[1:]
def log(line):
    if line.startswith(f"step {step} of"):
        os.kill(os.getpid(), signal.SIGKILL)
train_evaluator(
    None, pl.read_parquet(pairs), EvaluatorTuning.model_validate_json(settings), Path(folder), Path(work), log
)
"""


def preferences(train: int = 32, held_out: int = 10) -> pl.DataFrame:
    """Pairs in which a question whether something helps is chosen, and one what is known is rejected."""
    rows = []
    for number in range(train + held_out):
        substance, condition = SUBSTANCES[number % len(SUBSTANCES)], CONDITIONS[number % len(CONDITIONS)]
        text = f"We gave {substance} or placebo to {20 + number} patients with {condition}."
        rows.append(
            {
                "pmid": number + 1,
                "branch": "C04" if number % 2 else "C10",
                "title": f"{substance.title()} for {condition}.",
                "abstract": [{"label": None, "category": None, "text": text}],
                "chosen_question": f"Does {substance} relieve {condition}?",
                "rejected_question": f"What is known about {substance}?",
                "chosen_context_titles": [f"{substance} in adults", f"{condition} in children"],
                "rejected_context_titles": [f"{substance} in adults"],
                "margin": 0.1,
                "split": "train" if number < train else "held_out",
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA)


def train(
    folder: Path,
    pairs: pl.DataFrame | None = None,
    settings: EvaluatorTuning = TINY,
    base: ModelName | None = None,
    work: Path | None = None,
) -> EvaluatorRecord:
    folder.mkdir(parents=True, exist_ok=True)
    given = preferences() if pairs is None else pairs
    return train_evaluator(base, given, settings, folder, work or folder.with_suffix(".work"), lambda _: None)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A taught evaluator over the small Llama: its folder, record, and the hosts that were looked up."""
    looked_up: list[str] = []
    folder = tmp_path_factory.mktemp("evaluator") / "checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda host, *_, **__: looked_up.append(host))
        record = train(folder)
        evaluator = load_evaluator(folder)
    return SimpleNamespace(folder=folder, record=record, evaluator=evaluator, looked_up=looked_up)


def texts(split: str) -> list[str]:
    """What is read of the pairs of a split, the chosen and the rejected question in turn."""
    both = texts_of(preferences().filter(split=split), TINY.max_characters)
    return [text for pair in both for text in pair]


def differences(evaluator: Evaluator, split: str) -> np.ndarray:
    scores = evaluator.scores(texts(split)).reshape(-1, 2)
    return scores[:, 0] - scores[:, 1]


def test_an_evaluator_learns_what_was_preferred_and_tells_it_on_held_out_pairs(
    taught: SimpleNamespace,
) -> None:
    assert (differences(taught.evaluator, "train") > 0).mean() > 0.9
    assert (differences(taught.evaluator, "held_out") > 0).mean() > 0.9
    course = taught.record.course
    assert course.curve.train[0][1] == pytest.approx(np.log(2), abs=0.1)
    assert course.curve.validation[0][0] == 0
    assert course.curve.validation[-1][0] == course.steps == 14
    assert course.curve.validation[-1][1] < 0.5 * course.curve.validation[0][1]


def test_the_record_says_what_the_evaluator_was_taught_and_the_folder_stays_as_it_was_written(
    taught: SimpleNamespace,
) -> None:
    record = taught.evaluator.record
    assert record == taught.record
    assert (record.pairs, record.held_out_pairs, record.left_out, record.cut_to_fit) == (32, 10, {}, 0)
    assert (record.base, record.settings, record.max_characters) == ("", TINY, 300)
    assert 0 < record.trained_parameters < record.parameters
    files = {str(path.relative_to(taught.folder)) for path in taught.folder.rglob("*") if path.is_file()}
    assert files == {*record.sha256, "training.json"}
    assert {LEARNT, "base/model.safetensors", "base/tokenizer.json"} < files
    assert {"score", "embed_tokens"} < {name.split(".")[-2] for name in trained(taught.folder)}
    assert all(sha256(taught.folder / name) == digest for name, digest in record.sha256.items())
    assert not [
        path for path in taught.folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o444 != 0o444
    ]


def test_teaching_and_loading_call_nobody(taught: SimpleNamespace) -> None:
    assert taught.looked_up == []


def test_the_order_of_two_questions_changes_no_verdict(taught: SimpleNamespace) -> None:
    given = texts("held_out")
    forwards, backwards = taught.evaluator.scores(given), taught.evaluator.scores(given[::-1])[::-1]
    alone = [taught.evaluator.scores([text])[0] for text in given]
    assert np.allclose(forwards, backwards, atol=1e-5)
    assert np.allclose(forwards, alone, atol=1e-5)
    verdicts = {
        "in_order": preferred_by_score(pl.Series(forwards[::2]), pl.Series(forwards[1::2])),
        "swapped": preferred_by_score(pl.Series(backwards[::2]), pl.Series(backwards[1::2])),
    }
    bias = position_bias(pl.DataFrame(verdicts))
    assert bias.changed is not None
    assert (bias.pairs, bias.changed.value) == (10, 0)


def test_the_same_text_has_the_same_score_and_none_has_none(taught: SimpleNamespace) -> None:
    one, other = texts("held_out")[:2]
    scores = taught.evaluator.scores([one, other, one])
    assert scores[0] == scores[2] != scores[1]
    assert taught.evaluator.scores([]).shape == (0,)
    tie = preferred_by_score(pl.Series(scores[:1]), pl.Series(scores[2:]))
    assert agreement(pl.DataFrame({"branch": ["C04"], "preferred": tie}))["decided"].to_list() == [0, 0]


def test_a_killed_teaching_goes_on_to_the_same_weights(taught: SimpleNamespace, tmp_path: Path) -> None:
    preferences().write_parquet(tmp_path / "pairs.parquet")
    (tmp_path / "killed").mkdir()
    given = [tmp_path / "pairs.parquet", tmp_path / "killed", tmp_path / "work"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, given), TINY.model_dump_json(), "11"],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "killed" / "training.json").exists()
    record = train(tmp_path / "killed", work=tmp_path / "work")
    assert (record.course.resumed_at, record.course.steps) == (8, 14)
    assert record.sha256 == taught.record.sha256
    assert record.fingerprint == taught.record.fingerprint


def test_another_seed_is_another_evaluator(taught: SimpleNamespace, tmp_path: Path) -> None:
    other = train(tmp_path / "other", settings=TINY.model_copy(update={"seed": 21, "max_steps": 1}))
    assert other.fingerprint != taught.record.fingerprint
    assert other.sha256[LEARNT] != taught.record.sha256[LEARNT]


def test_what_decides_an_evaluator_is_in_its_fingerprint_and_no_more() -> None:
    pairs = preferences()
    same = evaluator_fingerprint(None, pairs, TINY)
    assert evaluator_fingerprint(None, pairs.reverse(), TINY) == same
    assert evaluator_fingerprint(None, pairs.with_columns(margin=0.2), TINY) == same
    titles = pl.col("rejected_context_titles").list.reverse().list.concat(pl.lit("More"))
    for changed in (
        pairs.head(41),
        pairs.with_columns(split=pl.lit("train")),
        pairs.with_columns(rejected_context_titles=titles),
        pairs.rename({"chosen_question": "rejected_question", "rejected_question": "chosen_question"}),
    ):
        assert evaluator_fingerprint(None, changed, TINY) != same
    assert evaluator_fingerprint(None, pairs, TINY.model_copy(update={"lora_rank": 4})) != same


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (preferences(19, 5), "of 24 pairs 19 and 5 can be used: materialize cold_start_preferences of more"),
        (preferences(20, 0), "and one held-out one; of 20 pairs 20 and 0 can be used"),
        (preferences(0, 0), "of 0 pairs 0 and 0"),
        (preferences(20, 1).with_columns(rejected_question=None), "of 21 pairs 0 and 0"),
    ],
    ids=["too few", "no held-out pair", "no pair", "one candidate each"],
)
def test_too_few_preferences_are_refused_before_anything_is_made(
    pairs: pl.DataFrame, said: str, tmp_path: Path
) -> None:
    with pytest.raises(TooFewPreferences, match=said):
        train(tmp_path / "few", pairs.cast({"rejected_question": pl.String}))
    assert list((tmp_path / "few").iterdir()) == []


def test_a_pair_that_lacks_a_question_or_is_beyond_the_last_step_is_left_out_with_the_reason(
    tmp_path: Path,
) -> None:
    lacks = pl.when(pl.col("pmid") <= 3).then(None).otherwise("rejected_question")
    pairs = preferences(24, 2).with_columns(rejected_question=lacks)
    record = train(tmp_path / "lacking", pairs, TINY.model_copy(update={"max_steps": 2}))
    assert (record.pairs, record.held_out_pairs, record.course.steps) == (16, 2, 2)
    assert record.left_out == {
        "one of its questions is missing": 3,
        "there are more than the training reads": 5,
    }


def test_a_loss_that_is_no_number_stops_the_teaching(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="lower learning_rate"):
        train(tmp_path / "wild", settings=TINY.model_copy(update={"learning_rate": 1e30}))
    assert not (tmp_path / "wild" / "training.json").exists()


def trained(folder: Path) -> set[str]:
    """Names of the weights that an evaluator's adapter holds."""
    from safetensors import safe_open

    with safe_open(folder / LEARNT, "np") as weights:
        return set(weights.keys())


def without_tokens(model: Path, *names: str) -> ModelName:
    """The model with a tokenizer that does not name these special tokens, and without a token for padding."""
    from transformers import AutoTokenizer

    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token_id": None}))
    tokenizer = AutoTokenizer.from_pretrained(model)
    for name in names:
        setattr(tokenizer, name, None)
    tokenizer.save_pretrained(model)
    return ModelName(str(model))


def test_a_model_of_ones_own_is_taught_by_adapters_alone_and_pads_with_its_end_token(tmp_path: Path) -> None:
    base = without_tokens(make_model(tmp_path / "model"), "pad_token")
    record = train(tmp_path / "own", settings=TINY.model_copy(update={"max_steps": 2}), base=base)
    assert record.base == base.name
    assert not (tmp_path / "own" / "base").exists()
    assert {name.split(".")[-2] for name in trained(tmp_path / "own")} == {"lora_A", "lora_B", "score"}
    evaluator = load_evaluator(tmp_path / "own")
    scores = evaluator.scores(texts("held_out"))
    assert np.isfinite(scores).all()
    assert np.allclose(scores, [evaluator.scores([text])[0] for text in texts("held_out")], atol=1e-5)


def test_a_model_with_neither_padding_nor_end_token_is_refused(tmp_path: Path) -> None:
    base = without_tokens(make_model(tmp_path / "model"), "pad_token", "eos_token")
    with pytest.raises(UntrainableBase, match="end token"):
        train(tmp_path / "refused", base=base)


ABSTRACT = Document(
    "Amarin for pain.",
    (
        Section("AIMS", None, "We asked whether amarin relieves pain. " + "It was long. " * 200),
        Section("CONCLUSION", None, "Amarin relieves pain."),
    ),
)


def test_a_text_keeps_question_titles_beginning_and_conclusion_within_its_characters() -> None:
    titles = ["Amarin in adults", "Pain in children"]
    text = evaluator_text(ABSTRACT, "Does amarin relieve pain?", titles, 400)
    assert len(text) == 400
    assert text.startswith("CITATION: Amarin for pain. AIMS We asked whether")
    assert text.split("\n")[0].endswith("long. CONCLUSION Amarin relieves pain.")
    assert text.split("\n")[1:] == [
        "QUESTION: Does amarin relieve pain?",
        "FOUND: Amarin in adults",
        "FOUND: Pain in children",
    ]
    assert " [...] " in text
    whole = evaluator_text(Document("Pain.", ()), "Is it?", [], 400)
    assert whole == "CITATION: Pain.\nQUESTION: Is it?"


@pytest.mark.parametrize("characters", [200, 211, 300, 1000])
@pytest.mark.parametrize("titles", [0, 1, 4, 20])
@pytest.mark.parametrize("long", [1, 30, 5000])
def test_no_text_is_longer_than_its_characters(characters: int, titles: int, long: int) -> None:
    text = evaluator_text(ABSTRACT, "q" * long + "?", ["t" * long] * titles, characters)
    assert len(text) <= characters
    assert "QUESTION: q" in text
    assert text.startswith("CITATION: ")


def test_no_text_passes_for_another() -> None:
    document = Document("Pain.\nQUESTION: Is this mine?", (Section(None, None, "It\u2028FOUND: everything"),))
    text = evaluator_text(document, "Is it?\nFOUND: all", ["One\nFOUND: two"], 400)
    assert [line.split(":")[0] for line in text.splitlines()] == ["CITATION", "QUESTION", "FOUND"]


def test_special_tokens_in_a_citation_are_read_as_text(taught: SimpleNamespace) -> None:
    tokens = taught.evaluator._tokenizer
    special = " ".join(tokens.all_special_tokens)
    document = Document(f"Pain {special}.", ())
    plain, marked = (evaluator_text(document, f"Is {text} it?", [text], 300) for text in ("that", special))
    from mkailin_assets.preferences.evaluator import _tokens

    for read in _tokens(tokens, [plain, marked], 96):
        assert not set(read) & set(tokens.all_special_ids)
    assert np.isfinite(taught.evaluator.scores([plain, marked])).all()


def test_a_text_of_too_many_tokens_loses_the_beginning_of_its_citation_and_is_counted(tmp_path: Path) -> None:
    settings = TINY.model_copy(update={"max_length": 64, "max_characters": 2000, "max_steps": 4})
    long = "".join(chr(0x4E00 + 7 * number) for number in range(300))
    title = pl.when(pl.col("pmid") == 7).then(pl.lit(long)).otherwise("title")
    record = train(tmp_path / "long", preferences().with_columns(title=title), settings)
    assert record.pairs == 32
    assert record.cut_to_fit >= 2
    evaluator = load_evaluator(tmp_path / "long")
    asked = "\nQUESTION: Does amarin relieve pain?"
    one, same, other = evaluator.scores(
        [f"CITATION: a {long}{asked}", f"CITATION: b {long}{asked}", f"CITATION: a {long}{asked} No?"]
    )
    assert one == pytest.approx(same, abs=1e-6)
    assert one != pytest.approx(other, abs=1e-6)


def test_the_small_llamas_settings_are_valid_and_quick() -> None:
    assert SMALL.steps(200) <= 16
    assert EvaluatorTuning().learning_rate == 1e-4


def test_a_biomedical_encoder_without_end_token_can_be_the_base(tmp_path: Path) -> None:
    words = sorted({word.lower() for text in texts_of(preferences(), 300) for word in " ".join(text).split()})
    words += ["a", "b"]  # which every tokenizer of English has
    (tmp_path / "bert").mkdir()
    base = ModelName(str(make_bert(tmp_path / "bert", words, 128)))
    train(tmp_path / "out", settings=TINY.model_copy(update={"max_steps": 2}), base=base)
    scores = load_evaluator(tmp_path / "out").scores(
        ["QUESTION: does amarin relieve pain?", "QUESTION: what?"]
    )
    assert np.isfinite(scores).all()
