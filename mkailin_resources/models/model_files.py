"""What the engines in this process share: a model's files, its identity, and conversations as its tokens."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mkailin_resources.models.interface import ModelUnavailable
from mkailin_resources.models.language_model import Message
from mkailin_resources.models.model_name import ModelName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_SET = "set MKAILIN_MODEL to the folder of a model, or to the name of one on the Hugging Face hub"


def check_files(model: ModelName) -> None:
    """Raise `ModelUnavailable` where a folder holds no model or no adapter; the hub is not asked."""
    if model.is_folder:
        folder = Path(model.name).expanduser()
        for needed in ("config.json", "tokenizer.json", "*.safetensors"):
            if not any(folder.glob(needed)):
                raise ModelUnavailable(f"{folder}: there is no {needed} in this folder, so no model; {_SET}")
    elif model.name.startswith(("/", ".", "~")):
        raise ModelUnavailable(f"{model.name}: there is no such folder; {_SET}")
    check_adapter(model.adapter)


def check_adapter(adapter: str) -> None:
    """Raise `ModelUnavailable` unless the folder holds a LoRA adapter; an empty name is none, and is fine."""
    folder = Path(adapter).expanduser()
    for needed in ADAPTER_FILES if adapter else ():
        if not (folder / needed).is_file():
            raise ModelUnavailable(
                f"{folder}: there is no {needed} in this folder, so no LoRA adapter; "
                "train one, or leave it out of the model's name"
            )


def identity(model: ModelName) -> tuple[str, str, str]:
    """Name, revision and hash of the adapter; `ModelUnavailable` where they cannot be found out."""
    try:
        # A folder is known by its content alone: moved elsewhere, it is the same model.
        return "" if model.is_folder else model.name, model.resolved_revision(), model.adapter_hash()
    except (OSError, ImportError, ValueError) as error:
        raise unavailable(model, error) from error


def commit(model: ModelName) -> str | None:
    """The commit to load a model of the hub at, that of its identity; None for a folder."""
    return None if model.is_folder else identity(model)[1]


def unavailable(model: ModelName, error: Exception) -> ModelUnavailable:
    """What to raise when a model cannot be loaded: the first line of the reason, and what to do."""
    reason = f"{first_line(error)}; {_SET} that can be reached from here"
    return ModelUnavailable(f"{model} cannot be loaded: {reason}")


def first_line(error: Exception) -> str:
    """The first line of what an error says, else its kind; no stop at the end."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(". ")


def too_long(tokens: int, max_tokens: int, limit: int | None) -> str | None:
    """Why a prompt of so many tokens does not fit beside its reply; None if it does."""
    if limit is None or tokens + max_tokens <= limit:
        return None
    return f"the prompt has {tokens} tokens and its reply may have {max_tokens}, the model takes {limit}"


class Conversations:
    """Turns messages into tokens of one model.

    By the model's chat template; a model without one is given the contents alone, blank lines between.
    Where the template knows no system messages, their content goes before that of the first user message.
    Special tokens of the model that stand in a content are broken by a space, so they are read as text.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast") -> None:
        self._tokenizer = tokenizer
        tokens = (token for token in tokenizer.added_tokens_decoder.values() if len(token.content) > 1)
        special = [token.content for token in tokens if token.special or token.content.startswith(("<", "["))]
        marks = sorted(special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        self._takes_system = self._renders([Message("system", "."), Message("user", ".")])

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The prompt, up to where the model begins its reply."""
        said = [message._replace(content=self._plain(message.content)) for message in messages]
        if not self._tokenizer.chat_template:
            return list(self._tokenizer("".join(f"{content}\n\n" for _, content in said))["input_ids"])
        if not self._takes_system:
            system = [content for role, content in said if role == "system"]
            user = [content for role, content in said if role == "user"]
            said = [Message("user", "\n\n".join([*system, *user]))]
        return self._templated(said)

    def _plain(self, text: str) -> str:
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _templated(self, messages: Sequence[Message]) -> list[int]:
        conversation = [message._asdict() for message in messages]
        text = self._tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        # Not by the tokenizer's own call, which takes twice as long; special tokens are in the template.
        return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def _renders(self, messages: Sequence[Message]) -> bool:
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            return True
        try:
            return bool(self._templated(messages))
        except TemplateError:
            return False
