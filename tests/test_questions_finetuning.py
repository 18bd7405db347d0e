"""Question generators tuned on exemplars: what they learn, how they ask, and that a kill costs nothing."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from asking import asking
from tiny_model import REPOSITORY, make_adapter, make_model, tiny_documents, tiny_exemplars

from mkailin_assets.adapters import (
    AdapterRecord,
    UntrainableBase,
    load_base,
    load_tokenizer,
    model_of,
    read_record,
)
from mkailin_assets.questions.candidates import document_of, fault_of_question
from mkailin_assets.questions.finetuning import (
    NO_REPLY,
    SPECIAL_TOKEN,
    GeneratorRecord,
    GeneratorTuning,
    QuestionEncoder,
    TooFewExemplars,
    generator_fingerprint,
    share_of,
    tune_generator,
)
from mkailin_assets.trainer import TrainingDiverged
from mkailin_resources.models import transformers_model
from mkailin_resources.models.interface import GenerationRequest
from mkailin_resources.models.model_files import check_files
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.prompting import PromptFile
from mkailin_resources.models.transformers_model import TransformersModel
from mkailin_resources.training_checkpoints import last_whole, sha256

TINY = GeneratorTuning(
    vocabulary=500,
    max_length=320,
    max_characters=400,
    max_steps=6,
    batch_size=4,
    accumulation=2,
    learning_rate=1e-2,
    checkpoint_steps=2,
)
WEIGHTS = "adapter/adapter_model.safetensors"
KILLED = """
import os, signal, sys
from pathlib import Path
import polars as pl
from mkailin_assets.questions.finetuning import GeneratorTuning, tune_generator

exemplars, folder, work, settings, step = sys.argv[1:]

def log(line):
    if line.startswith(f"step {step} of "):
        os.kill(os.getpid(), signal.SIGKILL)

settings = GeneratorTuning.model_validate_json(settings)
tune_generator("general", None, pl.read_parquet(exemplars), settings, Path(folder), Path(work), log)
"""


def quiet(line: str) -> None:
    pass


def tune(
    folder: Path,
    settings: GeneratorTuning = TINY,
    base: ModelName | None = None,
    table: pl.DataFrame | None = None,
    **given: Any,
) -> GeneratorRecord:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    work, log = given.get("work", folder / "work"), given.get("log", quiet)
    table = tiny_exemplars() if table is None else table
    return tune_generator(given.get("role", "domain"), base, table, settings, folder / "out", work, log)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small Llama, tuned until it asks: the checkpoint, its record, and the hosts that were looked up."""
    settings = TINY.model_copy(update={"max_steps": 50, "epochs": 50, "batch_size": 8, "accumulation": 1})
    folder, looked_up = tmp_path_factory.mktemp("tuned"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        patch.setattr(socket, "getaddrinfo", lambda host, *_, **__: looked_up.append(host))
        record = tune(folder, settings)
        from huggingface_hub.utils import _telemetry

        _telemetry._TELEMETRY_QUEUE.join()  # the Hub's reports leave from a thread of their own
    return SimpleNamespace(folder=folder / "out", work=folder / "work", record=record, looked_up=looked_up)


@pytest.fixture(scope="module")
def hub_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as from the hub: other tokenizer, other chat template."""
    return make_model(tmp_path_factory.mktemp("base"), hidden=32, positions=2048)


def generator_of(folder: Path) -> PromptedGenerator:
    record = read_record(folder, AdapterRecord)
    engine = TransformersModel(model_of(folder))
    return PromptedGenerator(engine, PromptFile.load("question_tuned"), 0.0, record.max_characters)


def test_a_tuned_generator_asks_about_documents_it_has_not_seen(
    tuned: SimpleNamespace, tmp_path: Path
) -> None:
    documents = {str(row["pmid"]): row for row in tiny_documents(10, first_pmid=101)}
    requests = [GenerationRequest(key, "question", document_of(row)) for key, row in documents.items()]
    generator = generator_of(tuned.folder)
    generator.check()
    replies = asking(tmp_path)(generator, requests, fault_of_question)
    asked = {key: reply.text for key, reply in replies.items() if reply.text}
    assert len(asked) >= 8
    about = [documents[key]["title"].split()[0].lower() in text for key, text in asked.items()]
    assert all(text.startswith("Does ") and text.endswith("?") for text in asked.values())
    assert sum(about) >= 4


def test_what_is_trained_on_is_what_an_engine_reads_and_writes(tuned: SimpleNamespace) -> None:
    generator = generator_of(tuned.folder)
    engine = transformers_model._engine(generator.model.model)
    encoder = QuestionEncoder(engine.tokenizer, tuned.record.max_characters, TINY.max_length)
    for row in tiny_exemplars().iter_rows(named=True):
        encoded = encoder.encode(row, row["question"])
        request = GenerationRequest("1", "question", document_of(row))
        assert encoded.prompt == engine.conversations.tokens(generator.rendered(request).messages)
        assert engine.tokenizer.decode(encoded.reply) == f'{{"question":"{row["question"]}"}}<|end|>'
        assert generator.read(request, engine.text(encoded.reply)) == row["question"]
        asked = encoded.reply[encoded.first : encoded.last]
        assert engine.tokenizer.decode(asked).removesuffix('"}') == row["question"]


def nats(base: ModelName, table: pl.DataFrame, whole_reply: bool) -> float:
    """Mean negative log-likelihood of a token of the questions, or of the whole replies, under a base."""
    import torch

    model = load_base(base, "CAUSAL_LM", seed=0)
    encoder = QuestionEncoder(load_tokenizer(base), TINY.max_characters, 2048)
    each: list[float] = []
    for row in table.iter_rows(named=True):
        encoded = encoder.encode(row, row["question"])
        first, last = (0, len(encoded.reply)) if whole_reply else (encoded.first, encoded.last)
        tokens = encoded.prompt + encoded.reply
        with torch.inference_mode():
            chances = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        places = range(len(encoded.prompt) + first, len(encoded.prompt) + last)
        each += [-chances[place - 1, tokens[place]].item() for place in places]
    return sum(each) / len(each)


def test_the_held_out_loss_is_that_of_the_question_alone_and_goes_down(tuned: SimpleNamespace) -> None:
    base = ModelName(str(tuned.folder / "base"))
    before = nats(base, tiny_exemplars().filter(split="held_out"), whole_reply=False)
    curve = tuned.record.course.curve
    assert curve.validation[0] == (0, pytest.approx(before, rel=1e-4))
    assert curve.validation[-1][0] == tuned.record.course.steps == 50
    assert curve.validation[-1][1] < 0.5 * curve.validation[0][1]
    assert curve.train[-1][1] < 0.2 * curve.train[0][1]


def test_a_checkpoint_says_what_made_it_and_holds_no_more(tuned: SimpleNamespace) -> None:
    record = read_record(tuned.folder, GeneratorRecord)
    assert record == tuned.record
    assert record.fingerprint == generator_fingerprint("domain", None, tiny_exemplars(), record.settings)
    files = {str(path.relative_to(tuned.folder)) for path in tuned.folder.rglob("*") if path.is_file()}
    assert files == {*record.sha256, "training.json"}
    assert record.sha256[WEIGHTS] == sha256(tuned.folder / WEIGHTS)
    assert (record.name, record.base, record.exemplars, record.held_out) == ("domain", "", 16, 4)
    assert not any(str(tuned.folder) in (tuned.folder / name).read_text("utf-8", "ignore") for name in files)
    assert {path.stat().st_mode & 0o777 for path in tuned.folder.rglob("*.safetensors")} == {0o644}


def test_a_tuning_calls_nobody_and_writes_no_model_card(tuned: SimpleNamespace) -> None:
    assert tuned.looked_up == []
    folders = (tuned.folder, tuned.work)
    assert not [path for folder in folders for path in folder.rglob("*") if path.suffix == ".md"]


def test_a_killed_tuning_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = tune(tmp_path / "whole", role="general")
    tiny_exemplars().write_parquet(tmp_path / "exemplars.parquet")
    (tmp_path / "torn").mkdir()
    given = (tmp_path / "exemplars.parquet", tmp_path / "torn", tmp_path / "work", TINY.model_dump_json(), 5)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, given)],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = tune(tmp_path / "again", role="general", work=tmp_path / "work")
    assert (whole.course.resumed_at, resumed.course.resumed_at, resumed.course.steps) == (None, 4, 6)
    assert resumed.sha256 == whole.sha256
    assert resumed.course.curve.validation == whole.course.curve.validation


def test_the_seed_and_not_the_order_of_rows_decides_the_weights(hub_like: Path, tmp_path: Path) -> None:
    base, settings = ModelName(str(hub_like)), TINY.model_copy(update={"max_steps": 1})
    shuffled = tiny_exemplars().sample(fraction=1, shuffle=True, seed=1)
    first = tune(tmp_path / "first", settings, base)
    again = tune(tmp_path / "again", settings, base, shuffled)
    other = tune(tmp_path / "other", settings.model_copy(update={"seed": 21}), base)
    assert again.sha256 == first.sha256
    assert other.sha256[WEIGHTS] != first.sha256[WEIGHTS]
    assert len({record.fingerprint for record in (first, again, other)}) == 2


def test_a_rows_question_and_a_bases_weights_are_part_of_the_name(hub_like: Path, tmp_path: Path) -> None:
    base, table = ModelName(str(hub_like)), tiny_exemplars()
    name = generator_fingerprint("domain", base, table, TINY)
    unused = table.vstack(table.head(1).with_columns(exemplar_id=pl.lit("z"), reason=pl.lit("not used")))
    assert generator_fingerprint("domain", base, unused, TINY) == name
    reworded = table.with_columns(question=pl.col("question").str.replace("Does", "Can"))
    other = ModelName(str(make_model(tmp_path, seed=1, hidden=32)))
    others = {
        generator_fingerprint("domain", base, reworded, TINY),
        generator_fingerprint("domain", other, table, TINY),
        generator_fingerprint("domain", None, table, TINY),
        generator_fingerprint("general", base, table, TINY),
        generator_fingerprint("domain", base, table, TINY.model_copy(update={"lora_rank": 4})),
    }
    assert len(others | {name}) == 6


@pytest.mark.parametrize("missing", ["chat template", "padding"])
def test_a_base_without_chat_template_or_padding_is_tuned_on_what_it_is_asked(
    missing: str, hub_like: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    base.mkdir()
    for path in hub_like.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(base)
    if missing == "chat template":
        tokenizer.chat_template = None
        (base / "chat_template.jinja").unlink(missing_ok=True)
    else:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(base)
    settings = TINY.model_copy(update={"max_steps": 1, "max_length": 1024})
    record = tune(tmp_path, settings, ModelName(str(base)))
    assert (record.exemplars, record.base) == (16, str(base))
    generator = generator_of(tmp_path / "out")
    row = tiny_exemplars().row(0, named=True)
    read = generator.rendered(GenerationRequest("1", "question", document_of(row)))
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoded = QuestionEncoder(tokenizer, TINY.max_characters, 1024).encode(row, row["question"])
    engine = transformers_model._engine(generator.model.model)
    assert encoded.prompt == engine.conversations.tokens(read.messages)


def test_a_base_that_cannot_be_tuned_is_refused_with_what_to_do(hub_like: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    base.mkdir()
    for path in hub_like.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(base)
    with pytest.raises(UntrainableBase, match=r"names no end token .* take another base"):
        tune(tmp_path, base=ModelName(str(base)))
    adapter = make_adapter(hub_like, tmp_path / "adapter")
    with pytest.raises(UntrainableBase, match="a base is a model without adapter"):
        tune(tmp_path, base=ModelName(str(hub_like), adapter=str(adapter)))


def test_too_few_exemplars_are_refused_before_anything_starts(tmp_path: Path) -> None:
    table = tiny_exemplars().with_columns(
        reason=pl.when(pl.col("exemplar_id") > "exemplar-006").then(pl.lit("its question is asked twice"))
    )
    with pytest.raises(TooFewExemplars, match=r"there are 7, beside 0 held out and 13 not used: materialize"):
        tune(tmp_path, table=table)
    assert not list((tmp_path / "out").iterdir())
    assert not (tmp_path / "work").exists()


def test_what_does_not_fit_is_left_out_and_counted(hub_like: Path, tmp_path: Path) -> None:
    base, long = ModelName(str(hub_like)), f"Does it {'help ' * 75}?"
    odd = ['Does "amarin" help?', "Does it help? Or not?", "Does <|eot_id|> help?", long]
    table = tiny_exemplars().with_columns(
        question=pl.coalesce(pl.Series([*odd, *[None] * 16], dtype=pl.String), "question")
    )
    encoder = QuestionEncoder(load_tokenizer(base), TINY.max_characters, 2048)
    encoded = encoder.encode(table.row(3, named=True), long)
    limit = len(encoded.prompt) + len(encoded.reply) - 1
    settings = TINY.model_copy(update={"max_steps": 1, "max_length": limit})
    record = tune(tmp_path / "odd", settings, base, table)
    too_long = f"its prompt and question have more than {limit} tokens"
    assert record.left_out == {NO_REPLY: 2, SPECIAL_TOKEN: 1, too_long: 1}
    assert (record.exemplars, record.held_out) == (12, 4)

    settings = settings.model_copy(update={"max_length": 100})
    with pytest.raises(TooFewExemplars, match=r"its base takes 0, .* lower max_characters"):
        tune(tmp_path / "none", settings, base, table)


def test_a_long_document_is_cut_to_fit(tmp_path: Path, hub_like: Path) -> None:
    from transformers import AutoTokenizer

    row = tiny_exemplars().row(0, named=True)
    text = "With amarin, migraine was milder. " * 200
    row["abstract"] = [{"label": None, "category": None, "text": text}]
    tokenizer = AutoTokenizer.from_pretrained(hub_like)
    encoded = QuestionEncoder(tokenizer, 400, 1024).encode(row, row["question"])
    shown = tokenizer.decode(encoded.prompt)
    assert "[...]" in shown
    assert shown.count("milder") < 15


def test_a_loss_that_is_no_number_stops_the_tuning_and_leaves_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    from safetensors.torch import load_file

    settings = TINY.model_copy(update={"checkpoint_steps": 1, "learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(TrainingDiverged, match=r"stopped at step \d: .* lower learning_rate"):
        tune(tmp_path, settings)
    assert not (tmp_path / "out" / "training.json").exists()
    good = last_whole(next((tmp_path / "work").glob("*/checkpoints")), quiet)
    assert good is not None
    weights = load_file(good / "adapter_model.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())

    settings = settings.model_copy(update={"learning_rate": 1e39})
    with pytest.raises(TrainingDiverged, match=r"stopped at step 1: weights are not finite"):
        tune(tmp_path / "at once", settings)
    assert last_whole(next((tmp_path / "at once" / "work").glob("*/checkpoints")), quiet) is None


@pytest.mark.parametrize(("experts", "titles", "shares"), [(45, 50, (45, 46)), (39, 60, (95, 95))])
def test_two_small_llamas_differ_by_source_where_both_have_enough_and_else_by_seed(
    experts: int, titles: int, shares: Sequence[int]
) -> None:
    table = tiny_exemplars(experts, titles)
    used = [share_of(role, None, table).filter(split="train") for role in ("domain", "general")]
    assert [share.height for share in used] == list(shares)
    hub = share_of("domain", ModelName("some/model"), table)
    assert hub.height == table.height
    if experts == 45:
        assert [share["source"].unique().to_list() for share in used] == [["bioasq"], ["title"]]


def test_two_small_llamas_of_the_same_exemplars_have_other_weights(
    tuned: SimpleNamespace, tmp_path: Path
) -> None:
    settings = TINY.model_copy(update={"max_steps": 1})
    other = tune(tmp_path, settings, role="general")
    name = "base/model.safetensors"
    assert other.sha256["base/tokenizer.json"] == tuned.record.sha256["base/tokenizer.json"]
    assert other.sha256[name] != tuned.record.sha256[name]


def test_the_loss_is_that_of_the_whole_reply_and_accumulated_batches_weigh_as_one(
    hub_like: Path, tmp_path: Path
) -> None:
    one = TINY.model_copy(update={"max_steps": 1, "batch_size": 16, "accumulation": 1, "max_length": 1024})
    four = one.model_copy(update={"batch_size": 4, "accumulation": 4})
    base = ModelName(str(hub_like))
    losses = [
        tune(tmp_path / str(settings.batch_size), settings, base).course.curve.train[0][1]
        for settings in (one, four)
    ]
    expected = nats(base, tiny_exemplars().filter(split="train"), whole_reply=True)
    assert losses == [pytest.approx(expected, rel=1e-4)] * 2


def test_an_adapter_over_a_base_of_the_hub_is_one_that_every_engine_takes(
    hub_like: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    tune(tmp_path, TINY.model_copy(update={"max_steps": 1}), ModelName(str(hub_like)))
    assert not (tmp_path / "out" / "base").exists()
    model = model_of(tmp_path / "out")
    assert replace(model, adapter="") == ModelName(str(hub_like))
    check_files(model)
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert config["modules_to_save"] is None
    assert config["target_modules"] == sorted(config["target_modules"])
    weights = load_file(tmp_path / "out" / WEIGHTS)
    assert all(".lora_A." in name or ".lora_B." in name for name in weights)
    assert math.isclose(config["lora_alpha"] / config["r"], 2)
