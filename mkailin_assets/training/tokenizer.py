"""Tokenizers: one learnt from the corpus itself, and what a base's needs to chat and to be known again."""

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Examples a tokenizer is learnt from: more change nothing of which pairs of symbols are frequent.
MOST_EXAMPLES = 50_000

PAD, BEGIN, END, USER, ASSISTANT = "<|pad|>", "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# For a base without chat template: words alone, no token that it would have to learn.
PLAIN_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ 'Answer: ' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAnswer:' }}{% endif %}"
)


def tokenizer_sha256(tokenizer: "PreTrainedTokenizerFast") -> str:
    """SHA-256 of what turns messages into tokens: tokenizer and chat template, hexadecimal."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    # How a call last padded and cut, which is no part of it.
    whole |= {"padding": None, "truncation": None, "chat_template": tokenizer.chat_template}
    whole["special_tokens"] = tokenizer.special_tokens_map  # templates call them by what they are for
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def corpus_tokenizer(examples: pl.LazyFrame, vocabulary: int) -> "PreTrainedTokenizerFast":
    """The tokenizer of the small Llama: learnt from the training split of a `TrainingExample` table."""
    train = examples.filter(pl.col("split") == "train")
    chosen = train.select("example_id").sort("example_id").head(MOST_EXAMPLES)
    said = train.join(chosen, on="example_id", how="semi").select("example_id", "messages").collect()
    texts = said.sort("example_id")["messages"].explode(empty_as_null=False).struct.field("content")
    return train_tokenizer(texts, vocabulary)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> "PreTrainedTokenizerFast":
    """Byte-level BPE over `texts`: any text can be written in it, no token is unknown.

    `vocabulary` is the most tokens it may have; a small corpus, which has fewer pairs of symbols that
    occur twice, gets fewer. At least 261: the bytes and five special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=[PAD, BEGIN, END, USER, ASSISTANT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
