"""Direct preference optimization: what is compared with what, and that a kill costs nothing."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from tiny_model import REPOSITORY, make_model, tiny_documents, tiny_exemplars

from mkailin_assets.adapters import AdapterRecord, load_base, load_tokenizer, model_of, read_record
from mkailin_assets.preferences.optimization import (
    SAME,
    OptimizationRecord,
    PreferenceOptimization,
    TooFewPairs,
    encoded_pairs,
    optimization_fingerprint,
    optimize,
)
from mkailin_assets.questions.candidates import document_of
from mkailin_assets.questions.finetuning import NO_REPLY, GeneratorTuning, QuestionEncoder, tune_generator
from mkailin_assets.trainer import TrainingDiverged
from mkailin_assets.training.tokenizer import train_tokenizer
from mkailin_resources.models import transformers_model
from mkailin_resources.models.interface import GenerationRequest
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.prompting import PromptFile
from mkailin_resources.models.transformers_model import TransformersModel
from mkailin_resources.training_checkpoints import last_whole, sha256

START = GeneratorTuning(
    vocabulary=500,
    max_length=320,
    max_characters=400,
    epochs=20,
    max_steps=20,
    batch_size=8,
    accumulation=1,
    learning_rate=1e-2,
)
TINY = PreferenceOptimization(
    max_length=320, max_steps=6, batch_size=4, accumulation=2, learning_rate=2e-3, checkpoint_steps=2
)
WEIGHTS = "adapter/adapter_model.safetensors"
KILLED = """
import os, signal, sys
from pathlib import Path
import polars as pl
from mkailin_assets.preferences.optimization import PreferenceOptimization, optimize

start, pairs, folder, work, settings, step = sys.argv[1:]

def log(line):
    if line.startswith(f"step {step} of "):
        os.kill(os.getpid(), signal.SIGKILL)

settings = PreferenceOptimization.model_validate_json(settings)
optimize(Path(start), pl.read_parquet(pairs), settings, Path(folder), Path(work), log)
"""


def quiet(line: str) -> None:
    pass


def tiny_pairs(train: int = 20, held_out: int = 4) -> pl.DataFrame:
    """The question of each document is preferred to another; the last ones are held out."""
    rows = [
        {name: document[name] for name in ("pmid", "title", "abstract")}
        | {
            "chosen": document["question"],
            "rejected": str(document["question"]).replace("Does", "Can").replace("relieve", "cause"),
            "split": "train" if place < train else "held_out",
        }
        for place, document in enumerate(tiny_documents(train + held_out))
    ]
    return pl.DataFrame(rows)


def tuned(base: ModelName | None, folder: Path, **changes: Any) -> Path:
    """The checkpoint of a generator to start from."""
    (folder / "out").mkdir(parents=True)
    settings = START.model_copy(update=changes)
    tune_generator("general", base, tiny_exemplars(), settings, folder / "out", folder / "work", quiet)
    return folder / "out"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned(None, tmp_path_factory.mktemp("start"))


def run(
    start: Path, folder: Path, settings: PreferenceOptimization = TINY, **given: Any
) -> OptimizationRecord:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    pairs = given.get("pairs", tiny_pairs())
    return optimize(start, pairs, settings, folder / "out", given.get("work", folder / "work"), quiet)


@pytest.fixture(scope="module")
def optimized(start: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A finished optimization: its folder, record, work, hosts that were looked up, and the start before."""
    before = {path: sha256(path) for path in start.rglob("*") if path.is_file()}
    folder, looked_up = tmp_path_factory.mktemp("optimized"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        patch.setattr(socket, "getaddrinfo", lambda host, *_, **__: looked_up.append(host))
        record = run(start, folder)
        from huggingface_hub.utils import _telemetry

        _telemetry._TELEMETRY_QUEUE.join()  # the Hub's reports leave from a thread of their own
    return SimpleNamespace(
        folder=folder / "out", work=folder / "work", record=record, looked_up=looked_up, before=before
    )


def likelihoods(folder: Path, pairs: pl.DataFrame) -> list[tuple[float, float]]:
    """Log-likelihood of the chosen and of the rejected question of each pair, after the JSON before it."""
    import torch
    from peft import PeftModel

    name = model_of(folder)
    base = ModelName(name.name)
    tokenizer = load_tokenizer(base)
    model = PeftModel.from_pretrained(load_base(base, "CAUSAL_LM", seed=0), name.adapter).eval()
    encoder = QuestionEncoder(tokenizer, START.max_characters, START.max_length)

    def likelihood(row: dict[str, Any], question: str) -> float:
        encoded = encoder.encode(row, question)
        tokens = torch.tensor([encoded.prompt + encoded.reply])
        with torch.inference_mode():
            chances = model(input_ids=tokens).logits[0].log_softmax(-1)
        places = range(len(encoded.prompt) + encoded.first, len(encoded.prompt) + encoded.last)
        return sum(chances[place - 1, tokens[0, place]].item() for place in places)

    return [
        (likelihood(row, row["chosen"]), likelihood(row, row["rejected"]))
        for row in pairs.sort("pmid").iter_rows(named=True)
    ]


def test_rewards_are_how_much_likelier_questions_became_than_at_the_start(
    start: Path, optimized: SimpleNamespace
) -> None:
    held_out = tiny_pairs().filter(split="held_out")
    margins = [
        TINY.beta * ((chosen - was_chosen) - (rejected - was_rejected))
        for (chosen, rejected), (was_chosen, was_rejected) in zip(
            likelihoods(optimized.folder, held_out), likelihoods(start, held_out), strict=True
        )
    ]
    record = optimized.record
    assert record.held_out_margin == pytest.approx(sum(margins) / 4, rel=1e-3)
    assert record.held_out_accuracy == sum(margin > 0 for margin in margins) / 4
    losses = [math.log1p(math.exp(-margin)) for margin in margins]
    assert record.course.curve.validation[-1] == (6, pytest.approx(sum(losses) / 4, rel=1e-3))


def test_an_optimization_begins_where_nothing_is_preferred_and_learns_what_is(
    optimized: SimpleNamespace,
) -> None:
    record = optimized.record
    assert record.course.curve.validation[0] == (0, pytest.approx(math.log(2)))
    assert record.course.curve.train[0] == (1, pytest.approx(math.log(2)))
    assert record.reward_margin.held_out[0] == (0, 0)
    assert record.reward_margin.train[-1][1] > 0.05
    assert record.course.curve.train[-1][1] < 0.68
    assert [step for step, _ in record.reward_accuracy.train] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in record.reward_accuracy.held_out] == [0, 2, 4, 6]


def test_pairs_are_compared_after_the_tokens_an_engine_reads(start: Path) -> None:
    record = read_record(start, AdapterRecord)
    name = model_of(start)
    engine = transformers_model._engine(name)
    encoder = QuestionEncoder(engine.tokenizer, record.max_characters, START.max_length)
    encoded, left_out = encoded_pairs(tiny_pairs(), encoder)
    assert (len(encoded["train"]), len(encoded["held_out"]), left_out) == (20, 4, {})
    generator = PromptedGenerator(
        TransformersModel(name), PromptFile.load("question_tuned"), 0.0, record.max_characters
    )
    for row, pair in zip(tiny_pairs().iter_rows(named=True), encoded["train"], strict=False):
        asked = generator.rendered(GenerationRequest("1", "question", document_of(row)))
        read = engine.conversations.tokens(asked.messages)
        assert pair["prompt_ids"][: len(read)] == read
        assert engine.text(pair["prompt_ids"][len(read) :]) == '{"question":"'
        assert engine.text(pair["chosen_ids"]).removesuffix('"}') == row["chosen"]
        assert engine.text(pair["rejected_ids"]).removesuffix('"}') == row["rejected"]


def test_a_question_that_shares_a_token_with_the_json_before_it_loses_none_of_it() -> None:
    reply = '{"question":"(Amarin) helps?"}'
    tokenizer = train_tokenizer([reply] * 3, 400)
    assert '":"(' in [token for token, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(reply)]
    pairs = tiny_pairs(2, 0).with_columns(rejected=pl.lit("(Amarin) helps?"))
    swapped = pairs.rename({"chosen": "rejected", "rejected": "chosen"})
    encoder = QuestionEncoder(tokenizer, 400, 2048)
    for table in (pairs, swapped):
        for row, pair in zip(table.to_dicts(), encoded_pairs(table, encoder)[0]["train"], strict=True):
            begun = tokenizer.decode(pair["prompt_ids"]).rpartition("{")[2]
            for name in ("chosen", "rejected"):
                said = "{" + begun + tokenizer.decode(pair[f"{name}_ids"])
                assert said.removesuffix('"}') == f'{{"question":"{row[name]}'


def test_the_successor_is_one_adapter_as_fine_tuning_writes_it_and_the_start_is_as_it_was(
    start: Path, optimized: SimpleNamespace
) -> None:
    from safetensors.torch import load_file

    assert {path: sha256(path) for path in start.rglob("*") if path.is_file()} == optimized.before
    files = {
        str(path.relative_to(optimized.folder)) for path in optimized.folder.rglob("*") if path.is_file()
    }
    assert files == {str(path.relative_to(start)) for path in optimized.before}
    assert {*optimized.record.sha256, "training.json"} == files
    before, after = load_file(start / WEIGHTS), load_file(optimized.folder / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(before[name].shape == after[name].shape for name in before)
    configs = [
        json.loads((folder / "adapter" / "adapter_config.json").read_text())
        for folder in (start, optimized.folder)
    ]
    assert configs[0] == configs[1]
    was, now = read_record(start, AdapterRecord), read_record(optimized.folder, OptimizationRecord)
    assert now == optimized.record
    assert (now.name, now.start, now.max_characters) == ("preferred", was.fingerprint, was.max_characters)
    assert (now.parameters, now.trained_parameters) == (was.parameters, was.trained_parameters)
    assert now.fingerprint == optimization_fingerprint(start, tiny_pairs(), TINY) != was.fingerprint


def test_start_and_successor_are_asked_by_one_engine_each_as_itself(
    start: Path, optimized: SimpleNamespace
) -> None:
    import torch

    def logits(folder: Path) -> torch.Tensor:
        name = model_of(folder)
        engine = transformers_model._engine(name)
        with torch.inference_mode(), engine._using(name) as network:
            return network(input_ids=torch.tensor([[5, 6, 7, 8]])).logits

    transformers_model.release()
    together = [logits(folder) for folder in (start, optimized.folder, start)]
    transformers_model.release()
    alone = logits(optimized.folder)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1], alone)
    assert not torch.equal(together[0], together[1])


def test_an_optimization_calls_nobody_and_writes_no_model_card(optimized: SimpleNamespace) -> None:
    assert optimized.looked_up == []
    folders = (optimized.folder, optimized.work)
    assert not [path for folder in folders for path in folder.rglob("*") if path.suffix == ".md"]


def test_a_killed_optimization_goes_on_to_the_same_weights(
    start: Path, optimized: SimpleNamespace, tmp_path: Path
) -> None:
    tiny_pairs().write_parquet(tmp_path / "pairs.parquet")
    (tmp_path / "torn").mkdir()
    given = (start, tmp_path / "pairs.parquet", tmp_path / "torn", tmp_path / "work")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, given), TINY.model_dump_json(), "5"],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = run(start, tmp_path / "again", work=tmp_path / "work")
    assert (resumed.course.resumed_at, resumed.course.steps) == (4, 6)
    assert resumed.sha256 == optimized.record.sha256
    assert resumed.reward_margin == optimized.record.reward_margin
    assert resumed.course.curve == optimized.record.course.curve


def test_the_seed_and_not_the_order_of_rows_decides_the_weights(
    start: Path, optimized: SimpleNamespace, tmp_path: Path
) -> None:
    shuffled = tiny_pairs().sample(fraction=1, shuffle=True, seed=1)
    again = run(start, tmp_path / "again", pairs=shuffled)
    other = run(start, tmp_path / "other", TINY.model_copy(update={"seed": 21}))
    assert (again.fingerprint, again.sha256) == (optimized.record.fingerprint, optimized.record.sha256)
    assert other.fingerprint != again.fingerprint
    assert other.sha256[WEIGHTS] != again.sha256[WEIGHTS]


def test_a_round_goes_on_from_the_round_before(
    start: Path, optimized: SimpleNamespace, tmp_path: Path
) -> None:
    settings = TINY.model_copy(update={"max_steps": 2})
    second = run(optimized.folder, tmp_path, settings, pairs=tiny_pairs(20, 0))
    assert second.start == optimized.record.fingerprint
    assert (second.held_out_pairs, second.held_out_margin, second.held_out_accuracy) == (0, None, None)
    assert second.course.curve.train[0][1] == pytest.approx(math.log(2))
    assert second.fingerprint != optimization_fingerprint(start, tiny_pairs(20, 0), settings)


def test_a_base_of_the_hub_is_named_and_not_copied(tmp_path: Path) -> None:
    base = ModelName(str(make_model(tmp_path / "base", hidden=32, positions=2048)))
    begun = tuned(base, tmp_path / "start", max_steps=1, max_length=1024)
    record = run(begun, tmp_path, TINY.model_copy(update={"max_steps": 1, "max_length": 1024}))
    assert (record.base, record.pairs) == (base.name, 20)
    assert not (tmp_path / "out" / "base").exists()
    assert model_of(tmp_path / "out").name == base.name
    shutil.rmtree(tmp_path / "base")


def test_too_few_pairs_are_refused_before_anything_starts(start: Path, tmp_path: Path) -> None:
    with pytest.raises(TooFewPairs, match=r"at least 20 pairs .* of 23 19 are, the others are held out"):
        run(start, tmp_path, pairs=tiny_pairs(19, 4))
    assert not list((tmp_path / "out").iterdir())
    assert not (tmp_path / "work").exists()


def test_pairs_that_nothing_can_be_learnt_from_are_left_out_and_counted(start: Path, tmp_path: Path) -> None:
    odd = pl.Series(["Does amarin relieve gout", 'Is "it"?', *[None] * 24], dtype=pl.String)
    pairs = tiny_pairs(22, 4).with_columns(chosen=pl.coalesce(odd, "chosen"))
    same = pairs.with_columns(rejected=pl.when(pl.col("pmid") == 3).then("chosen").otherwise("rejected"))
    encoder = QuestionEncoder(load_tokenizer(ModelName(str(start / "base"))), 400, 320)
    encoded, left_out = encoded_pairs(same, encoder)
    assert left_out == {NO_REPLY: 2, SAME: 1}
    assert len(encoded["train"]) == 19
    with pytest.raises(TooFewPairs, match=rf"the generator takes 19, .* 2: {NO_REPLY}; 1: {SAME}"):
        run(start, tmp_path, pairs=same)
    assert run(start, tmp_path, TINY.model_copy(update={"max_steps": 1}), pairs=pairs).pairs == 20


def test_a_loss_that_is_no_number_stops_the_optimization_and_leaves_the_last_good_checkpoint(
    start: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    settings = TINY.model_copy(update={"checkpoint_steps": 1, "learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(TrainingDiverged, match=r"stopped at step \d: .* lower learning_rate"):
        run(start, tmp_path, settings)
    assert not (tmp_path / "out" / "training.json").exists()
    good = last_whole(next((tmp_path / "work").glob("*/checkpoints")), quiet)
    assert good is not None
    assert {path.name for path in good.rglob("adapter_model.safetensors")} == {"adapter_model.safetensors"}
    assert not (good / "ref").exists()
    weights = load_file(good / "adapter_model.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
