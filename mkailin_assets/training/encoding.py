"""From chat messages to tokens: the context gives way to the length limit, the question never does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNSUPERVISED = -100  # the label that torch's cross-entropy leaves out of the loss


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


class QuestionTooLong(ValueError):
    """A question alone, without any context, exceeds the length limit."""


@dataclass(frozen=True)
class EncodedExample:
    """Tokens of a prompt and its answer; labels are -100 on the prompt, so that only the answer is learnt."""

    input_ids: list[int]
    labels: list[int]


def encode_prompt(
    tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Message], question: str, length: int
) -> list[int]:
    """At most `length` tokens that end where the assistant begins to speak.

    Of a longer prompt the start of the last user message is left out: the context, whose end holds the
    results. Raises `QuestionTooLong` where the cut would reach `question`.
    """
    cleaned = [_without_special_tokens(tokenizer, message) for message in messages]
    text = tokenizer.apply_chat_template(cleaned, tokenize=False, add_generation_prompt=True)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens, offsets = encoding["input_ids"], encoding["offset_mapping"]
    excess = len(tokens) - length
    if excess <= 0:
        return tokens
    user = text.index(cleaned[-1]["content"].strip())
    first = next(position for position, (begin, _) in enumerate(offsets) if begin >= user)
    kept = first + excess
    if kept >= len(tokens) or offsets[kept][0] > text.rindex(question.strip()):
        raise QuestionTooLong(f"the question and its frame exceed {length} tokens: {question[:80]!r}")
    return tokens[:first] + tokens[kept:]


def encode_example(
    tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Message], question: str, length: int
) -> EncodedExample:
    """A prompt and the last message, its answer, in at most `length` tokens; the answer gets up to a third."""
    *prompt, answer = (_without_special_tokens(tokenizer, message) for message in messages)
    before = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*prompt, answer], tokenize=False)
    answered = tokenizer(whole.removeprefix(before), add_special_tokens=False, verbose=False)["input_ids"]
    answered = answered[: length // 3]
    asked = encode_prompt(tokenizer, prompt, question, length - len(answered))
    return EncodedExample(asked + answered, [UNSUPERVISED] * len(asked) + answered)


def _without_special_tokens(tokenizer: "PreTrainedTokenizerFast", message: Message) -> Message:
    """An abstract that contains a control token is still an abstract: it ends no turn and opens none."""
    content = message["content"]
    for token in tokenizer.all_special_tokens:
        content = content.replace(token, " ")
    return {"role": message["role"], "content": content}
