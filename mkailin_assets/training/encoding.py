"""From texts and chat messages to tokens.

The context gives way to the length limit, then an answer that is long, the question never. A text to
pre-train on loses nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNSUPERVISED = -100  # the label that torch's cross-entropy leaves out of the loss


Message = dict[str, str]  # role and content


class QuestionTooLong(ValueError):
    """A prompt exceeds the length limit even without its context."""


@dataclass(frozen=True)
class EncodedExample:
    """Tokens of a prompt and its answer; labels are -100 on the prompt, so that only the answer is learnt."""

    input_ids: list[int]
    labels: list[int]
    is_cut: bool  # whether context or answer lost their end to the length limit


def encode_texts(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> Iterator[list[int]]:
    """The tokens of texts to pre-train on, each with an end token behind it.

    Before it stands the token that the base's tokenizer puts there, if it does.
    """
    cleaned = [_clean(tokenizer, text) for text in texts]
    end = cast(int, tokenizer.eos_token_id)
    for encoding in tokenizer.backend_tokenizer.encode_batch_fast(cleaned):
        yield encoding.ids if encoding.ids[-1:] == [end] else [*encoding.ids, end]


def encode_example(
    tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Message], context: str, length: int
) -> EncodedExample:
    """A prompt and its answer, the last message, in at most `length` tokens.

    Where they are more, the end of `context`, a part of the prompt's last message, is left out: a corpus row
    begins with its source and ends with what was retrieved. Where that is not enough, the answer loses its
    end, down to a third of `length`. Raises `QuestionTooLong` if that is not enough either.
    """
    *prompt, answer = (_without_special_tokens(tokenizer, message) for message in messages)
    before = _render(tokenizer, prompt, add_generation_prompt=True)
    whole = _render(tokenizer, [*prompt, answer], add_generation_prompt=False)
    # Some templates open a reply with words that they leave out of one that is given.
    said = whole[len(before) :] if whole.startswith(before) else answer["content"] + str(tokenizer.eos_token)
    answered = tokenizer(said, add_special_tokens=False, verbose=False)["input_ids"]
    encoding = tokenizer(before, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    asked: list[int] = encoding["input_ids"]
    excess = len(asked) + len(answered) - length
    kept = answered
    if excess > 0:
        inside = _inside(before, encoding["offset_mapping"], _clean(tokenizer, context).strip())
        question, least = len(asked) - len(inside), min(len(answered), length // 3)
        if question > length - least:
            raise QuestionTooLong(
                f"without any context the prompt has more than {length - least} tokens: {before[-80:]!r}"
            )
        kept = answered[: length - question]
        asked = asked[: max(inside.start, inside.stop - excess)] + asked[inside.stop :]
    return EncodedExample(
        input_ids=asked + kept,
        labels=[UNSUPERVISED] * len(asked) + kept,
        is_cut=excess > 0,
    )


def _inside(text: str, offsets: Sequence[tuple[int, int]], context: str) -> range:
    """The positions of the tokens that are whole within the context, where it stands last in a text."""
    begin = text.rindex(context)
    end = begin + len(context)
    places = [place for place, (first, last) in enumerate(offsets) if begin <= first and last <= end]
    return range(places[0], places[-1] + 1) if places else range(0)


def _render(
    tokenizer: "PreTrainedTokenizerFast", messages: list[Message], add_generation_prompt: bool
) -> str:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt
    )
    return cast(str, text)


def _without_special_tokens(tokenizer: "PreTrainedTokenizerFast", message: Message) -> Message:
    return {"role": message["role"], "content": _clean(tokenizer, message["content"])}


def _clean(tokenizer: "PreTrainedTokenizerFast", text: str) -> str:
    """An abstract that contains a control token is still an abstract: it ends no turn and opens none."""
    return _special(tokenizer).sub(" ", text)


@lru_cache(maxsize=8)
def _special(tokenizer: "PreTrainedTokenizerFast") -> re.Pattern[str]:
    """Every token with a meaning of its own, those included that a tokenizer has no name for."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    marks = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, marks)) or r"(?!)")
