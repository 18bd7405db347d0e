"""A checkpoint as one model in a folder of its own, for whatever loads a folder of safetensors.

    python -m mkailin_assets.training.export FOLDER [--checkpoint CHECKPOINT]

An adapter is merged into its base, in memory and in the base's own precision. The folder gets tokenizer and
chat template, generation settings, model card and training.json; all of it is there, or nothing.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mkailin_assets import adapters
from mkailin_assets.adapters import MODEL, RECORD
from mkailin_assets.training.card import CARD, model_card, served_name
from mkailin_assets.training.checkpoints import CheckpointError, TrainingRecord, checked, tokenizer_folder
from mkailin_assets.training.recipes import Kind
from mkailin_resources.models import model_files
from mkailin_resources.models.interface import ModelUnavailable
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.profiles import InvalidSetting, Settings
from mkailin_resources.storage import Storage, StorageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHECKPOINT_HELP = (
    "finetuned (default) or pretrained: what was trained last; the name that a model is served by, such as "
    "mkailin-finetuned-0123abcd; or the folder of a checkpoint"
)
_GENERATION = "generation_config.json"
_KINDS = (*get_args(Kind), "ablated")
_SHARD = "5GB"  # of weights in a file: as most models on the Hub have them
_MARK = "said"


def find_checkpoint(storage: Storage, given: str) -> Path:
    """The folder of a checkpoint, by what `CHECKPOINT_HELP` says; raises `CheckpointError`."""
    if (Path(given) / RECORD).is_file():
        return Path(given).absolute()
    if given in get_args(Kind):
        table = storage.read_table(f"{given}_checkpoint")
        if table is None:
            raise CheckpointError(
                f"{storage.root}: there is no {given} checkpoint yet: run `make distill` (or `make demo`), "
                "or set MKAILIN_STORAGE to where one was trained"
            )
        return storage.local_folder(str(table["uri"][0]))
    start = given.rpartition("-")[2]
    kinds = [storage.path("checkpoints", kind) for kind in _KINDS]
    there = [folder for kind in kinds if kind.exists() for folder in kind.iterdir()]
    found = [folder for folder in there if start and folder.name.startswith(start)]
    if len(found) != 1:
        names = ", ".join(
            sorted(f"mkailin-{folder.parent.name}-{folder.name[:8]}" for folder in found or there)
        )
        raise CheckpointError(
            f"{given}: {'several checkpoints have' if found else 'no checkpoint has'} this name; there are "
            f"{names or 'none'} in {storage.root}"
        )
    return storage.local_folder(str(found[0]))


def export(checkpoint: Path, to: Path) -> TrainingRecord:
    """Write a checkpoint as one model into a folder that is empty or not there; its record.

    Raises `CheckpointError`, or `ModelUnavailable` where its base cannot be loaded.
    """
    target = to.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{to}: is there and no empty folder; name another, or remove it")
    record = checked(checkpoint)
    beside = Storage(root=str(target.parent))
    try:
        with writing(to), beside.scratch_folder(target.name) as scratch:
            whole = scratch / MODEL
            write_whole(checkpoint, record, whole)
            (whole / CARD).write_text(model_card(record, is_export=True), encoding="utf-8")
            named = ModelName(record.base).shown if record.base else ""
            exported = record.model_copy(update={"sha256": adapters.files_of(whole), "base": named})
            adapters.write_record(exported, whole)
            whole.rename(target)
    finally:
        with suppress(OSError):  # another export is at work beside it
            beside.scratch().rmdir()
    return exported


@contextmanager
def writing(to: Path) -> Iterator[None]:
    """Whatever a disk refuses, safetensors' own error among it, as `CheckpointError`."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, StorageError) as error:
        raise CheckpointError(
            f"{to}: nothing was written: {model_files.first_line(error)}; see to that (is the disk "
            "full?) and run it again"
        ) from error


def write_whole(checkpoint: Path, record: TrainingRecord, folder: Path, link: bool = False) -> None:
    """Write the model of a checkpoint, as a whole, and its tokenizer into a new folder.

    `link`: files of a model that is whole already are linked to, not copied.
    """
    folder.mkdir(parents=True)
    if record.method != "full":
        _merge(checkpoint, folder)
    _copy(tokenizer_folder(checkpoint), folder, link and record.method == "full")
    _say_what_ends_a_reply(folder)


def write_settings(checkpoint: Path, folder: Path) -> None:
    """Write what an adapter needs beside weights into a new folder: tokenizer and generation settings."""
    from transformers import GenerationConfig

    folder.mkdir(parents=True)
    base = adapters.base_of(checkpoint)
    with suppress(OSError):  # a base need not have any
        settings = GenerationConfig.from_pretrained(base.name, revision=model_files.commit(base) or "main")
        (folder / _GENERATION).write_text(json.dumps(settings.to_diff_dict()))
    _copy(tokenizer_folder(checkpoint), folder)
    _say_what_ends_a_reply(folder)


def _copy(source: Path, folder: Path, link: bool = False) -> None:
    """Copy the files beside an adapter, or those of a whole model."""
    for path in source.iterdir():
        if path.name.startswith("adapter_"):
            continue
        if link:
            (folder / path.name).symlink_to(path)
        else:
            shutil.copyfile(path, folder / path.name)


def _say_what_ends_a_reply(folder: Path) -> None:
    """Have the generation settings of a folder name all that ends a reply in the form that was trained.

    A base that was not tuned to chat ends texts with one token, and replies by its template with another.
    """
    tokenizer = adapters.load_tokenizer(ModelName(str(folder)))
    path = folder / _GENERATION
    settings: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    known = settings.get("eos_token_id")
    ends = {*(known if isinstance(known, list) else [] if known is None else [known]), *_ends(tokenizer)}
    path.unlink(missing_ok=True)  # it may be a link
    path.write_text(json.dumps(settings | {"eos_token_id": sorted(ends)}, indent=2))


def _ends(tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """The end token, and the special token with which the chat template ends what an assistant says."""
    said = [{"role": "user", "content": _MARK}, {"role": "assistant", "content": _MARK}]
    text = str(tokenizer.apply_chat_template(said, tokenize=False))
    after = tokenizer(text.rpartition(_MARK)[2], add_special_tokens=False)["input_ids"]
    special = [token for token in after if token in tokenizer.added_tokens_decoder]
    return [tokenizer.eos_token_id, *special[:1]]


def _merge(checkpoint: Path, folder: Path) -> None:
    from peft import PeftModel

    own: Any = "auto"  # the precision that the base was saved in
    base = adapters.load_base(adapters.base_of(checkpoint), "CAUSAL_LM", 0, in_4_bits=False, dtype=own)
    network = PeftModel.from_pretrained(base, adapters.model_of(checkpoint).adapter)
    merged: Any = network.merge_and_unload(safe_merge=True)
    merged.save_pretrained(folder, max_shard_size=_SHARD)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: it was exported; 1: nothing was written."""
    parser = argparse.ArgumentParser(
        prog="python -m mkailin_assets.training.export",
        description="Write a trained checkpoint as one model, adapter and base merged, into a folder.",
    )
    parser.add_argument("folder", type=Path, help="a new folder, or an empty one")
    parser.add_argument("--checkpoint", default="finetuned", help=CHECKPOINT_HELP)
    given = parser.parse_args(arguments)
    try:
        checkpoint = find_checkpoint(Storage(root=Settings.from_environment().storage), given.checkpoint)
        print(f"from {checkpoint}", flush=True)
        record = export(checkpoint, given.folder)
    except (CheckpointError, InvalidSetting, ModelUnavailable, StorageError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.folder}: {served_name(record)}, see {given.folder / CARD}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
