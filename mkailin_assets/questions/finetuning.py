"""Fine-tuning of question generators on exemplars: a document and the question that people asked of it.

What is minimised is -log P(question | document) (arXiv 2501.15108), the mean over tokens; the prompt is given
and not in the loss. The JSON around a question is in it: guided decoding forces its characters, not its
tokens, and a model that never learnt these opens a question with the `"}` that should close it. Held-out
losses are of the question alone. Who asks a tuned generator uses the prompt it was tuned with, and its
max_characters.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field, ValidationError

from mkailin_assets import adapters
from mkailin_assets.adapters import AdapterRecord, NewAdapterTuning
from mkailin_assets.questions.candidates import document_of
from mkailin_assets.questions.tables import EXEMPLAR_SOURCES, ROLES
from mkailin_assets.trainer import one_thread, train_to_the_end
from mkailin_assets.training.encoding import UNSUPERVISED
from mkailin_resources.models import model_files
from mkailin_resources.models.interface import GenerationRequest
from mkailin_resources.models.model_files import Conversations
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompting import PromptFile, QuestionReply, Rendered
from mkailin_resources.trainees import TRAINED_PROMPT

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LEAST_EXEMPLARS = 8
# Under so many of either source, a small Llama is tuned on all exemplars.
ENOUGH_OF_A_SOURCE = 40
# Part of what names a checkpoint: raise it when the same input is to give another generator.
RECIPE = "1"
NO_REPLY = "its question cannot be a reply: a quotation mark, a second question mark, or over 400 characters"
SPECIAL_TOKEN = "its question holds a special token of the base"
_BEFORE, _AFTER = '{"question":"', '"}'
_USED = pl.col("reason").is_null()


class GeneratorTuning(NewAdapterTuning):
    """What decides the tuning of a generator beside its base and its exemplars."""

    epochs: int = Field(default=6, ge=1, description="Passes over the exemplars, up to max_steps")
    max_characters: int = Field(
        default=3000, ge=100, description="Characters of a document that the prompt shows"
    )
    vocabulary: int = Field(default=2048, ge=300, description="Most tokens of the small Llama's tokenizer")


# Of the small Llama, on one core: seconds.
EMBEDDED_TUNING = GeneratorTuning(
    max_length=512,
    max_characters=600,
    epochs=8,
    max_steps=100,
    batch_size=8,
    accumulation=1,
    learning_rate=1e-2,
    warmup_steps=5,
)


class TooFewExemplars(ValueError):
    """There is not enough to tune a generator on."""


class Unfit(ValueError):
    """A question that a generator cannot be trained to write; the message is the reason."""


class GeneratorRecord(AdapterRecord):
    """What a tuning was given, and how it went: losses in nats a token, in training of the whole reply."""

    settings: GeneratorTuning
    exemplars: int = Field(description="Exemplars tuned on")
    held_out: int = Field(description="Exemplars that the held-out losses are of")
    left_out: dict[str, int] = Field(description="Exemplars that this base cannot be tuned on, by reason")


@dataclass(frozen=True)
class EncodedQuestion:
    """Tokens of a document's prompt, and of the reply with its question.

    `reply[first:last]` are the tokens with a part of the question; around them stand JSON and the end token.
    """

    prompt: list[int]
    reply: list[int]
    first: int
    last: int


class QuestionEncoder:
    """Documents and their questions as the tokens that an engine reads and writes."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", max_characters: int, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._conversations = Conversations(tokenizer)
        self._max_characters, self._max_length = max_characters, max_length

    def encode(self, row: Mapping[str, Any], question: str) -> EncodedQuestion:
        """The tokens of a row's document (title, abstract) and of a question to it; raises `Unfit`."""
        text = reply_of(question)
        encoding = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        if not set(encoding.ids).isdisjoint(self._tokenizer.all_special_ids):
            raise Unfit(SPECIAL_TOKEN)
        begin, end = len(_BEFORE), len(text) - len(_AFTER)
        asked = [
            place for place, (left, right) in enumerate(encoding.offsets) if left < end and right > begin
        ]
        prompt = self._conversations.tokens(rendered(row, self._max_characters).messages)
        reply = [*encoding.ids, self._tokenizer.eos_token_id]
        if len(prompt) + len(reply) > self._max_length:
            raise Unfit(f"its prompt and question have more than {self._max_length} tokens")
        return EncodedQuestion(prompt, reply, asked[0], asked[-1] + 1)


def reply_of(question: str) -> str:
    """A question as a model writes it; raises `Unfit` for one that guided decoding would not let it write."""
    try:
        QuestionReply(question=question)
    except ValidationError as error:
        raise Unfit(NO_REPLY) from error
    return f"{_BEFORE}{question}{_AFTER}"


def rendered(row: Mapping[str, Any], max_characters: int) -> Rendered:
    """What a tuned generator is given of a row's document (title, abstract)."""
    request = GenerationRequest("", "question", document_of(row))
    return PromptFile.load(TRAINED_PROMPT).render(request, max_characters)


def share_of(role: str, base: ModelName | None, exemplars: pl.DataFrame) -> pl.DataFrame:
    """The QuestionExemplar rows that a role's generator is tuned on, by id.

    All that are used; of a small Llama (no base) those of one source, experts' questions for the domain and
    titles for the general one, so that the two differ. Where either source has under forty to train on, both
    get all, and differ by their seed.
    """
    used = exemplars.filter(_USED).sort("exemplar_id")
    sizes = [used.filter(source=source, split="train").height for source in EXEMPLAR_SOURCES]
    if base is None and min(sizes) >= ENOUGH_OF_A_SOURCE:
        return used.filter(source=EXEMPLAR_SOURCES[ROLES.index(role)])
    return used


def generator_fingerprint(
    role: str, base: ModelName | None, exemplars: pl.DataFrame, settings: GeneratorTuning
) -> str:
    """What names the checkpoint of `tune_generator`: hash of role, base, exemplars, settings and prompt.

    Left out: package versions and the machine, which move the last digits of weights. Raises
    `ModelUnavailable` where the commit of a base cannot be found out.
    """
    used = share_of(role, base, exemplars)
    data = list(used.select("exemplar_id", "split", "title", "abstract", "question").iter_rows())
    prompt = PromptFile.load(TRAINED_PROMPT).version
    identity = model_files.identity(base) if base else ("small Llama",)
    return adapters.fingerprint(RECIPE, role, identity, data, settings.model_dump(), prompt)


def tune_generator(  # noqa: PLR0917
    role: str,
    base: ModelName | None,
    exemplars: pl.DataFrame,
    settings: GeneratorTuning,
    folder: Path,
    work: Path,
    log: Callable[[str], None],
) -> GeneratorRecord:
    """Tune a base, or a small Llama made from the exemplars, on a QuestionExemplar table; writes `folder`.

    `folder` is empty and gets the checkpoint. `work` is a local folder that outlives the process: called
    again with the same input after a kill, the training goes on from its last whole checkpoint and, on a CPU,
    comes to the same weights to the bit. Whoever publishes `folder` removes what is in `work`.

    Raises `TooFewExemplars` before anything starts, `UntrainableBase`, `ModelUnavailable`, and
    `TrainingDiverged` as soon as a loss or a weight is not finite.
    """
    used = share_of(role, base, exemplars)
    check_enough(used, exemplars.height - used.height)
    name = generator_fingerprint(role, base, exemplars, settings)
    given = settings
    if base is None:
        settings = settings.model_copy(update={"seed": settings.seed + ROLES.index(role)})
        texts = _texts(used.filter(split="train"), settings.max_characters)
        adapters.make_base(texts, settings.vocabulary, settings.max_length, settings.seed, folder)
    where = base or ModelName(str(folder / adapters.BASE))
    tokenizer = adapters.load_tokenizer(where)
    with one_thread(), adapters.labels_alone():
        model = adapters.load_base(where, "CAUSAL_LM", settings.seed)
        encoder = QuestionEncoder(tokenizer, settings.max_characters, adapters.window(model.config, settings))
        encoded, left_out = _encoded(used, encoder)
        if len(encoded["train"]) < LEAST_EXEMPLARS:
            raise TooFewExemplars(
                f"tuning the {role} generator needs at least {LEAST_EXEMPLARS} exemplars; its base takes "
                f"{len(encoded['train'])}, the others are left out: "
                f"{'; '.join(f'{count}: {reason}' for reason, count in left_out.items())}; raise max_length "
                "or lower max_characters"
            )
        checkpoints = work / name / "checkpoints"
        trainer = _trainer(
            model, tokenizer, encoded, settings, base_is_random=base is None, checkpoints=checkpoints
        )
        course = train_to_the_end(trainer, checkpoints, log)
    sha256 = adapters.write_adapter(trainer.model, where, folder)
    record = GeneratorRecord(
        name=role,
        fingerprint=name,
        recipe=RECIPE,
        prompt=PromptFile.load(TRAINED_PROMPT).version,
        max_characters=settings.max_characters,
        course=course,
        settings=given,
        exemplars=len(encoded["train"]),
        held_out=len(encoded["held_out"]),
        left_out=left_out,
        sha256=sha256,
        **adapters.described(trainer.model, where, folder),
    )
    adapters.write_record(record, folder)
    return record


def check_enough(exemplars: pl.DataFrame, others: int = 0) -> None:
    """Raises `TooFewExemplars` under eight of the training split; `others` are those not used."""
    train = exemplars.filter(_USED, split="train").height
    if train < LEAST_EXEMPLARS:
        raise TooFewExemplars(
            f"tuning a question generator needs at least {LEAST_EXEMPLARS} exemplars to train on; there are "
            f"{train}, beside {exemplars.height - train} held out and {others} not used: materialize more "
            "PubMed files, set MKAILIN_BIOASQ to questions of BioASQ, or switch the training off"
        )


def _texts(exemplars: pl.DataFrame, max_characters: int) -> Iterable[str]:
    """What a tokenizer is learnt from: all that will be read and written."""
    for row in exemplars.iter_rows(named=True):
        yield from (message.content for message in rendered(row, max_characters).messages)
        yield f"{_BEFORE}{row['question']}{_AFTER}"


def _encoded(
    exemplars: pl.DataFrame, encoder: QuestionEncoder
) -> tuple[dict[str, list[dict[str, list[int]]]], dict[str, int]]:
    """By split the examples, in tokens and labels; by reason how many there are not."""
    encoded: dict[str, list[dict[str, list[int]]]] = {"train": [], "held_out": []}
    left_out: Counter[str] = Counter()
    for row in exemplars.iter_rows(named=True):
        try:
            asked = encoder.encode(row, row["question"])
        except Unfit as error:
            left_out[str(error)] += 1
            continue
        first, last = (asked.first, asked.last) if row["split"] == "held_out" else (0, len(asked.reply))
        before = len(asked.prompt) + first
        labels = [UNSUPERVISED] * before + asked.reply[first:last]
        labels += [UNSUPERVISED] * (len(asked.reply) - last)
        encoded[row["split"]].append({"input_ids": asked.prompt + asked.reply, "labels": labels})
    return encoded, dict(left_out)


def _trainer(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    encoded: dict[str, list[dict[str, list[int]]]],
    settings: GeneratorTuning,
    *,
    base_is_random: bool,
    checkpoints: Path,
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    train, held_out = encoded["train"], encoded["held_out"]
    return adapters.own_trainer(SFTTrainer)(
        model=model,
        args=SFTConfig(
            **adapters.arguments(settings, len(train), len(held_out), checkpoints),
            # Encoded already; TRL's own preparation drops an example whose answer its truncation cut off.
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="group_by_length",
        ),
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        processing_class=tokenizer,
        peft_config=adapters.lora(settings.lora_rank, settings.lora_alpha, "CAUSAL_LM", base_is_random),
    )
