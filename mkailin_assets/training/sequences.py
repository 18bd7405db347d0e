"""From a corpus to sequences of tokens on disk: encoded some thousand rows at a time, then packed.

train/          Arrow files of the library datasets: input_ids, in fine-tuning labels, and where texts share
validation/     a sequence without seeing each other, seq_lengths; no folder for a split without rows
encoded.json    an `Encoded`
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.corpus.assembly import in_batches
from mkailin_assets.training.encoding import QuestionTooLong, encode_example, encode_texts
from mkailin_assets.training.recipes import Kind, Packing

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

LEAST_EXAMPLES = 8
TOO_LONG = "its question alone is longer than the length limit"
_SPLITS = ("train", "validation")
_READ: dict[Kind, list[str]] = {"pretrained": ["pretraining_text"], "finetuned": ["messages", "context"]}

# Columns of a sequence: input_ids, and labels in fine-tuning.
Sequence = dict[str, list[int]]


class TooFewExamples(ValueError):
    """There is not enough to train on."""


class Encoded(BaseModel):
    """What of a corpus is trained on."""

    examples: int = Field(description="Examples of the training split")
    validation_examples: int = Field(description="Examples of the validation split")
    left_out: dict[str, int] = Field(description="Examples that are not trained on, by reason")
    cut_to_fit: int = Field(description="Examples whose context or answer lost its end to the length limit")
    sequences: int = Field(description="Sequences of the training split")


def encode_corpus(  # noqa: PLR0917
    kind: Kind,
    corpus: pl.LazyFrame,
    tokenizer: "PreTrainedTokenizerFast",
    packing: Packing,
    length: int,
    folder: Path,
) -> Encoded:
    """Write the splits "train" and "validation" of a TrainingExample table, in sequences of `length` tokens.

    Rows are taken in the order of their ids, so that the order of the table changes nothing. Of a text to
    pre-train on nothing is left out: a longer one goes on in another sequence. What lies in `folder` from
    before is read instead; one that a kill left unfinished is written anew. Memory is that of ids and of a
    few thousand rows. Raises `TooFewExamples` under eight examples of the training split.
    """
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        encoded = _Writing(kind, tokenizer, packing, length, part).write(corpus)
        (part / "encoded.json").write_text(encoded.model_dump_json())
        os.replace(part, folder)
    return Encoded.model_validate_json((folder / "encoded.json").read_text())


def read_split(folder: Path, split: str) -> "Dataset | None":
    """The sequences of a split that `encode_corpus` wrote; None if it has none."""
    from datasets import Dataset

    return Dataset.load_from_disk(folder / split) if (folder / split).is_dir() else None


class _Writing:
    """The encoding of one corpus."""

    def __init__(
        self,
        kind: Kind,
        tokenizer: "PreTrainedTokenizerFast",
        packing: Packing,
        length: int,
        folder: Path,
    ) -> None:
        self._kind, self._tokenizer, self._packing, self._length = kind, tokenizer, packing, length
        self._folder = folder
        self._left_out: Counter[str] = Counter()
        self._examples: Counter[str] = Counter()
        self._cut = 0

    def write(self, corpus: pl.LazyFrame) -> Encoded:
        import datasets

        datasets.disable_progress_bars()
        splits = {split: _Rows(self._folder / f"{split}.arrow", self._columns) for split in _SPLITS}
        for rows in in_batches(corpus.select("example_id", "split", *_READ[self._kind])):
            for split, encoded in splits.items():
                for name, sequences in self._encoded(rows.filter(split=split), split):
                    encoded.add(name, sequences)
        self._check_enough()
        packed = {split: self._packed(rows, split) for split, rows in splits.items()}
        return Encoded(
            examples=self._examples["train"],
            validation_examples=self._examples["validation"],
            left_out=dict(self._left_out),
            cut_to_fit=self._cut,
            sequences=packed["train"],
        )

    @property
    def _columns(self) -> list[str]:
        return ["input_ids"] if self._kind == "pretrained" else ["input_ids", "labels"]

    def _encoded(self, rows: pl.DataFrame, split: str) -> Iterator[tuple[str, list[Sequence]]]:
        """By id the sequences of each row that has any."""
        if self._kind == "pretrained":
            texts = encode_texts(self._tokenizer, rows["pretraining_text"].to_list())
            for name, tokens in zip(rows["example_id"], texts, strict=True):
                self._examples[split] += 1
                yield name, [{"input_ids": piece} for piece in self._pieces(tokens)]
            return
        for row in rows.iter_rows(named=True):
            try:
                example = encode_example(self._tokenizer, row["messages"], row["context"], self._length)
            except QuestionTooLong:
                self._left_out[TOO_LONG] += 1
                continue
            self._examples[split] += 1
            self._cut += split == "train" and example.is_cut
            yield row["example_id"], [{"input_ids": example.input_ids, "labels": example.labels}]

    def _pieces(self, tokens: list[int]) -> list[list[int]]:
        """Tokens in sequences, unless packing cuts them itself without losing any."""
        if self._packing == "wrapped":
            return [tokens]
        return [tokens[start : start + self._length] for start in range(0, len(tokens), self._length)]

    def _check_enough(self) -> None:
        if (found := self._examples["train"]) < LEAST_EXAMPLES:
            raise TooFewExamples(
                f"training needs at least {LEAST_EXAMPLES} examples in the split 'train' of training_corpus; "
                f"it has {found}, and {self._left_out.total()} whose question alone is longer than "
                f"{self._length} tokens: materialize more branches first, or raise max_length"
            )

    def _packed(self, rows: "_Rows", split: str) -> int:
        """Write a split as it is trained on; how many sequences it has."""
        from trl import pack_dataset

        found = rows.in_order()
        if found is None:
            return 0
        if self._packing != "none":
            kept = {
                "cache_file_name": str(self._folder / f"{split}-packed.arrow"),
                "load_from_cache_file": False,
            }
            found = pack_dataset(found, self._length, self._packing, kept)
        found.save_to_disk(self._folder / split)
        for file in self._folder.glob(f"{split}*.arrow"):
            file.unlink()
        return len(found)


class _Rows:
    """Sequences in an Arrow file, in the order they come in; their ids in memory."""

    def __init__(self, file: Path, columns: list[str]) -> None:
        import pyarrow as pa

        self._file, self._ids = file, list[str]()
        self._schema = pa.schema([(name, pa.list_(pa.int32())) for name in columns])
        self._writer: Any = pa.ipc.new_stream(str(file), self._schema)
        self._waiting: list[Sequence] = []

    def add(self, name: str, sequences: list[Sequence]) -> None:
        self._ids += [name] * len(sequences)
        self._waiting += sequences
        if len(self._waiting) >= 1000:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_batch(pa.RecordBatch.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []

    def in_order(self) -> "Dataset | None":
        """All of them in the order of their ids, those of one id as they came; None if there are none."""
        from datasets import Dataset

        self._flush()
        self._writer.close()
        if not self._ids:
            self._file.unlink()
            return None
        order = pl.DataFrame({"id": self._ids}).with_row_index().sort("id", "index")["index"]
        return Dataset.from_file(str(self._file)).select(order.to_numpy())
