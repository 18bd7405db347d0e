"""From chat messages to tokens: the context gives way to the length limit, the question never does."""

from collections.abc import Sequence
from dataclasses import dataclass
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


def encode_prompt(
    tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Message], context: str, length: int
) -> list[int]:
    """At most `length` tokens that end where the assistant begins to speak.

    Of a longer prompt the end of `context`, a part of the last message, is left out: a corpus row begins with
    its source and ends with what was retrieved. Raises `QuestionTooLong` if that is not enough.
    """
    cleaned = [_without_special_tokens(tokenizer, message) for message in messages]
    text = _render(tokenizer, cleaned, add_generation_prompt=True)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens: list[int] = encoding["input_ids"]
    excess = len(tokens) - length
    if excess <= 0:
        return tokens
    context = _clean(tokenizer, context).strip()
    begin = text.rindex(context)
    inside = [
        position
        for position, (first, last) in enumerate(encoding["offset_mapping"])
        if begin <= first and last <= begin + len(context)
    ]
    if excess > len(inside):
        raise QuestionTooLong(f"without any context the prompt has more than {length} tokens: {text[-80:]!r}")
    cut = inside[-1] + 1
    return tokens[: cut - excess] + tokens[cut:]


def encode_example(
    tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Message], context: str, length: int
) -> EncodedExample:
    """A prompt and its answer, the last message, in at most `length` tokens; up to a third for the answer."""
    *prompt, answer = (_without_special_tokens(tokenizer, message) for message in messages)
    before = _render(tokenizer, prompt, add_generation_prompt=True)
    whole = _render(tokenizer, [*prompt, answer], add_generation_prompt=False)
    answered = tokenizer(whole.removeprefix(before), add_special_tokens=False, verbose=False)["input_ids"]
    answered = answered[: length // 3]
    asked = encode_prompt(tokenizer, prompt, context, length - len(answered))
    return EncodedExample(asked + answered, [UNSUPERVISED] * len(asked) + answered)


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
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, " ")
    return text
