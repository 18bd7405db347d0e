"""How long the texts of a corpus are in a model's tokens, and how many sequences they fill when packed."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from mkailin_assets.corpus.tables import SPLITS, TEXT_FORMS, CorpusLength
from mkailin_assets.training.recipes import RECIPES
from mkailin_assets.training.tokenizer import corpus_tokenizer
from mkailin_resources.models.model_name import ModelName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def tokenizer_of(corpus: pl.LazyFrame, name: str) -> tuple["PreTrainedTokenizerFast", str]:
    """The tokenizer of that name or folder, or one learnt from the corpus; and what rows call it.

    Raises `ModelUnavailable` or `UntrainableBase` for one that cannot be read.
    """
    from mkailin_assets.adapters import load_tokenizer

    if not name:
        learnt = corpus_tokenizer(corpus, RECIPES["embedded"].vocabulary)
        return learnt, f"learnt from the corpus ({len(learnt):,} tokens)"
    model = ModelName.parse(name)
    return load_tokenizer(model), Path(name).name if model.is_folder else name


def corpus_lengths(
    batches: Iterable[pl.DataFrame], tokenizer: "PreTrainedTokenizerFast", name: str, sequence_length: int
) -> pl.DataFrame:
    """A `CorpusLength` for each form of the texts and each split.

    `batches` of `TrainingExample` are read once, one in memory. `name` is what rows call the tokenizer. Each
    text ends with an end token. Texts to pre-train on are packed by joining and cutting them; instruction
    pairs whole, each into the fullest sequence that has room (best fit decreasing, as TRL packs by default),
    longer ones cut off.
    """
    lengths: dict[tuple[str, str], Counter[int]] = {
        (form, split): Counter() for form in TEXT_FORMS for split in SPLITS
    }
    for rows in batches:
        for form, counted in (
            ("pretraining", _pretraining_lengths(rows, tokenizer)),
            ("instruction", _instruction_lengths(rows, tokenizer)),
        ):
            for split, tokens in zip(rows["split"], counted, strict=True):
                lengths[form, split][tokens] += 1
    rows_of_table = [
        {
            "form": form,
            "split": split,
            "tokenizer": name,
            "examples": counts.total(),
            "tokens": sum(tokens * count for tokens, count in counts.items()),
            "longest": max(counts, default=0),
            "sequence_length": sequence_length,
            "longer": sum(count for tokens, count in counts.items() if tokens > sequence_length),
            "sequences": (joined if form == "pretraining" else best_fit)(counts, sequence_length),
        }
        for (form, split), counts in lengths.items()
    ]
    return pl.DataFrame(rows_of_table, schema=CorpusLength.create_empty().schema)


def joined(lengths: Mapping[int, int], room: int) -> int:
    """Sequences of `room` tokens that texts of these lengths (to their number) fill end to end."""
    return -(-sum(tokens * count for tokens, count in lengths.items()) // room)


def best_fit(lengths: Mapping[int, int], room: int) -> int:
    """Sequences of `room` tokens that hold texts of these lengths (to their number), none of them divided.

    The longest first, each into the sequence with the least room that is enough (Johnson 1973). Longer texts
    than a sequence take one.
    """
    fitting = {tokens: count for tokens, count in lengths.items() if tokens < room}
    sequences = sum(lengths.values()) - sum(fitting.values())
    # How many sequences have so much room left; of many that have the same, one entry.
    open_sequences: Counter[int] = Counter()
    rooms: list[int] = []
    for tokens in sorted(fitting, reverse=True):
        for _ in range(fitting[tokens]):
            place = bisect_left(rooms, tokens)
            least = rooms[place] if place < len(rooms) else room
            if least == room:
                sequences += 1
            else:
                open_sequences[least] -= 1
                if not open_sequences[least]:
                    del rooms[place]
            left = least - tokens
            if not open_sequences[left]:
                insort(rooms, left)
            open_sequences[left] += 1
    return sequences


def _pretraining_lengths(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerFast") -> Iterator[int]:
    texts = rows["pretraining_text"].to_list()
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return (len(encoding) + 1 for encoding in encoded)


def _instruction_lengths(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerFast") -> Iterator[int]:
    from mkailin_resources.models.model_files import Conversations, Message

    conversations = Conversations(tokenizer)
    for messages in rows["messages"].to_list():
        *asked, (_, answer) = (Message(message["role"], message["content"]) for message in messages)
        answered = tokenizer.backend_tokenizer.encode(answer, add_special_tokens=False)
        yield len(conversations.tokens(asked)) + len(answered) + 1
