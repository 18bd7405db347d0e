"""An export is the model that was trained, whole, in one folder, or it is not there."""

import json
import os
import re
import resource
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_checkpoint import Sort, load_trained, tiny_checkpoint
from tiny_model import make_model

from mkailin_assets import adapters
from mkailin_assets.adapters import altered_files, load_tokenizer
from mkailin_assets.training.card import CARD, model_card, served_name
from mkailin_assets.training.checkpoints import checkpoint_row, load, read_record
from mkailin_assets.training.export import (
    CheckpointError,
    _say_what_ends_a_reply,
    export,
    find_checkpoint,
    main,
    write_whole,
)
from mkailin_assets.training.tokenizer import tokenizer_sha256
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.storage import Storage

SORTS: tuple[Sort, ...] = ("whole", "small", "over")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("checkpoints")
    return SimpleNamespace(**{sort: tiny_checkpoint(root / sort, sort) for sort in SORTS})


def logits(network: Any, tokenizer: Any) -> Any:
    import torch

    said = [
        {"role": "user", "content": "Does amarin relieve migraine? Answer yes, no or maybe, then explain."}
    ]
    asked = tokenizer.apply_chat_template(
        said, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        return network(**asked).logits


@pytest.mark.parametrize("sort", SORTS)
def test_an_export_says_what_base_and_adapter_say(sort: Sort, made: SimpleNamespace, tmp_path: Path) -> None:
    checkpoint, to = getattr(made, sort), tmp_path / "export"
    export(checkpoint, to)
    exported = load(ModelName(str(to)), to)
    expected, found = logits(*load_trained(checkpoint)), logits(*exported)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-5
    base = load(ModelName(str(made.over.with_name("base"))), to) if sort == "over" else None
    assert base is None or float((logits(*base) - expected).abs().max()) > 1e-2  # something was trained


@pytest.mark.parametrize("sort", SORTS)
def test_an_export_is_a_folder_of_its_own(sort: Sort, made: SimpleNamespace, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    to = tmp_path / "new" / "export"
    record = export(getattr(made, sort), to)
    names = {path.name for path in to.iterdir()}
    assert names == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "README.md",
        "training.json",
    }
    assert altered_files(to) == []
    assert read_record(to) == record
    assert tokenizer_sha256(AutoTokenizer.from_pretrained(to)) == record.tokenizer_sha256
    card = (to / CARD).read_text(encoding="utf-8")
    assert card == model_card(read_record(getattr(made, sort)), is_export=True)
    assert str(tmp_path) not in card
    assert str(made.over.parent) not in (to / "training.json").read_text()
    assert str(made.over.parent) not in (to / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(to, dtype="auto").dtype.is_floating_point
    assert [path.name for path in to.parent.iterdir()] == ["export"]


@pytest.mark.parametrize(
    ("sort", "is_export"), [*((sort, False) for sort in SORTS), ("over", True)], ids=[*SORTS, "export"]
)
def test_the_code_on_a_card_works(
    sort: Sort,
    is_export: bool,
    made: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder: Path = getattr(made, sort)
    if is_export:
        export(folder, tmp_path / "export")
        folder = tmp_path / "export"
    card = model_card(read_record(folder), is_export)
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    base = made.over.with_name("base")
    ran: dict[str, Any] = {}
    exec(code.replace("FOLDER", str(folder)).replace('"BASE"', repr(str(base))), ran)
    assert len(ran["reply"])
    assert capsys.readouterr().out == f"{ran['tokenizer'].decode(ran['reply'], skip_special_tokens=True)}\n"


def test_an_export_has_the_precision_of_the_base(made: SimpleNamespace, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(made.small, checkpoint)
    base = AutoModelForCausalLM.from_pretrained(checkpoint / "base", dtype=torch.bfloat16)
    base.save_pretrained(checkpoint / "base")
    write_whole(checkpoint, read_record(checkpoint), tmp_path / "export")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype="auto").dtype is torch.bfloat16


def test_a_reply_ends_where_the_chat_template_ends_it(tmp_path: Path) -> None:
    """As in a base whose texts end with a token of their own, such as those of Qwen."""
    folder = make_model(tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|end_of_text|>"}))
    (folder / "generation_config.json").write_text('{"eos_token_id": 5, "temperature": 0.5}')
    tokenizer = load_tokenizer(ModelName(str(folder)))
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|end_of_text|>", "<|eot_id|>")]
    _say_what_ends_a_reply(folder)
    said = json.loads((folder / "generation_config.json").read_text())
    assert said == {"eos_token_id": sorted([*ends, 5]), "temperature": 0.5}


@pytest.mark.parametrize("there", ["a file", "a full folder"])
def test_what_is_there_is_not_written_over(there: str, made: SimpleNamespace, tmp_path: Path) -> None:
    to = tmp_path / "export"
    mine = to if there == "a file" else to / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(to))}: is there and no empty folder"):
        export(made.whole, to)
    assert mine.read_text() == "mine"


def test_an_empty_folder_is_filled(made: SimpleNamespace, tmp_path: Path) -> None:
    export(made.whole, tmp_path)
    assert (tmp_path / "training.json").is_file()


@pytest.mark.parametrize("is_missing", [True, False])
def test_a_checkpoint_that_was_altered_is_not_exported(
    is_missing: bool, made: SimpleNamespace, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(made.small, checkpoint)
    weights = checkpoint / "adapter" / "adapter_model.safetensors"
    if is_missing:
        weights.unlink()
    else:
        body = bytearray(weights.read_bytes())
        body[-1] ^= 1
        weights.write_bytes(body)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(weights))}: is missing, or not as"):
        export(checkpoint, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_an_adapter_is_not_merged_into_another_model(made: SimpleNamespace, tmp_path: Path) -> None:
    base = made.over.with_name("base")
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(made.over, checkpoint)
    other = make_model(tmp_path / "other", seed=7)
    record = read_record(checkpoint).model_copy(update={"base": str(other)})
    (checkpoint / "training.json").write_text(record.model_dump_json())
    with pytest.raises(CheckpointError, match="was changed since the adapter"):
        export(checkpoint, tmp_path / "export")
    assert base.is_dir()


def test_a_killed_export_leaves_no_half(made: SimpleNamespace, tmp_path: Path) -> None:
    to = tmp_path / "export"
    child = os.fork()
    if not child:
        # When all is written but the record.
        adapters.write_record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        try:
            export(made.whole, to)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not to.exists()
    export(made.whole, to)
    assert altered_files(to) == []


@pytest.mark.parametrize("sort", SORTS)
def test_a_full_disk_leaves_no_half_and_is_named(sort: Sort, made: SimpleNamespace, tmp_path: Path) -> None:
    to = tmp_path / "export"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError) as raised:
            export(getattr(made, sort), to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = str(raised.value)
    assert told.startswith(f"{to}: nothing was written: ")
    assert "File too large" in told
    assert told.endswith("see to that (is the disk full?) and run it again")
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_found_by_name(made: SimpleNamespace, tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    kinds = {"finetuned": made.whole, "pretrained": made.small, "ablated": made.over}
    uris = {}
    for kind, checkpoint in kinds.items():
        record = read_record(checkpoint)
        uris[kind] = storage.publish_folder(checkpoint, "checkpoints", kind, record.fingerprint)
    storage.write_table(checkpoint_row(uris["finetuned"], read_record(made.whole)), "finetuned_checkpoint")
    last = Path(uris["finetuned"])
    assert find_checkpoint(storage, "finetuned") == last
    assert find_checkpoint(storage, served_name(read_record(made.whole))) == last
    assert find_checkpoint(storage, read_record(made.over).fingerprint) == Path(uris["ablated"])
    assert find_checkpoint(storage, str(made.small)) == made.small
    for given, told in (("mkailin-finetuned-00000000", "no checkpoint has"), ("", "no checkpoint has")):
        with pytest.raises(
            CheckpointError, match=f"{told} this name; there are mkailin-ablated-.*, mkailin-finetuned-"
        ):
            find_checkpoint(storage, given)


@pytest.mark.parametrize("given", ["finetuned", "pretrained"])
def test_without_a_checkpoint_it_says_what_to_run(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MKAILIN_STORAGE", str(tmp_path / "storage"))
    assert main([str(tmp_path / "export"), "--checkpoint", given]) == 1
    told = capsys.readouterr().err
    assert f"there is no {given} checkpoint yet: run `make distill`" in told
    assert not (tmp_path / "export").exists()


def test_the_command_exports_what_was_trained_last(
    made: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage = Storage(root=str(tmp_path / "storage"))
    record = read_record(made.whole)
    uri = storage.publish_folder(made.whole, "checkpoints", "finetuned", record.fingerprint)
    storage.write_table(checkpoint_row(uri, record), "finetuned_checkpoint")
    monkeypatch.setenv("MKAILIN_STORAGE", storage.root)
    to = tmp_path / "export"
    assert main([str(to)]) == 0
    assert capsys.readouterr().out == f"from {uri}\n{to}: {served_name(record)}, see {to / CARD}\n"
    assert read_record(to).fingerprint == record.fingerprint
    assert main([str(to)]) == 1


def test_a_folder_that_is_no_checkpoint_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is no checkpoint of a training on the corpus"):
        export(tmp_path, tmp_path / "export")
