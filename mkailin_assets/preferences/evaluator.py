"""A learned evaluator: a reward model that gives a question a number, taught by the cold-start preferences.

It reads the citation, the question, and the titles of what the question found. By Bradley and Terry (1952)
the sigmoid of the difference of two scores is the probability that the one question is preferred to the
other. TRL and PEFT do the training; this module decides what they are given.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from mkailin_assets import adapters
from mkailin_assets.adapters import AdapterRecord, NewAdapterTuning
from mkailin_assets.corpus.draws import by_hash
from mkailin_assets.questions.candidates import document_of
from mkailin_assets.trainer import one_thread, train_to_the_end
from mkailin_resources.models import model_files
from mkailin_resources.models.interface import Document
from mkailin_resources.models.language_model import Message
from mkailin_resources.models.model_files import Conversations
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompting import visible

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerFast

LEAST_PAIRS = 20
# Held-out pairs of the validation loss, which is computed five times.
MOST_HELD_OUT = 500
SPLITS = ("train", "held_out")
# Part of every fingerprint: raise it when the same pairs and settings are to give another evaluator.
RECIPE = "1"
# Version of what `evaluator_text` makes of a question.
TEXT = "evaluator_text-1"
INCOMPLETE = "one of its questions is missing"
BEYOND = "there are more than the training reads"
_QUESTIONS = ["chosen_question", "rejected_question"]
_CUT = " [...] "


class EvaluatorTuning(NewAdapterTuning):
    """What decides an evaluator beside its base and its pairs; the defaults are for models of the hub."""

    accumulation: int = Field(default=1, ge=1, description="Batches an optimizer step")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak of the cosine schedule")
    max_characters: int = Field(
        default=3000, ge=200, description="Characters of citation, question and titles of contexts together"
    )
    vocabulary: int = Field(default=4096, ge=300, description="Most tokens of the small Llama's tokenizer")


# For the small Llama on one core of a CPU.
SMALL = EvaluatorTuning(
    max_length=256, max_characters=800, epochs=2, max_steps=16, learning_rate=1e-3, checkpoint_steps=8
)


class TooFewPreferences(ValueError):
    """There is not enough to teach an evaluator, or to judge it by."""


class EvaluatorRecord(AdapterRecord):
    """What an evaluator was taught, and how that went."""

    settings: EvaluatorTuning
    pairs: int = Field(description="Preferences it was taught")
    held_out_pairs: int = Field(description="Preferences that the validation loss is of")
    left_out: dict[str, int] = Field(description="Pairs that no training could take, by reason")
    cut_to_fit: int = Field(description="Texts that fill the limit of tokens, most by losing their beginning")


@dataclass(frozen=True)
class Evaluator:
    """A taught evaluator, ready to score."""

    record: EvaluatorRecord
    _model: "PeftModel"
    _tokenizer: "PreTrainedTokenizerFast"

    def scores(self, texts: Sequence[str]) -> "np.ndarray":
        """The score of each text (`evaluator_text`), a real number; a text that comes twice has it twice."""
        import numpy as np
        import torch
        from torch.nn.utils.rnn import pad_sequence

        settings, device = self.record.settings, self._model.device
        length = adapters.window(self._model.config, settings)
        distinct = list(dict.fromkeys(texts))
        tokens = _tokens(self._tokenizer, distinct, length)
        # Texts of like length share a batch, so that little of it is padding.
        by_length = sorted(range(len(distinct)), key=lambda place: len(tokens[place]))
        score: dict[str, float] = {}
        on_gpu = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
        with torch.inference_mode(), one_thread(), on_gpu:
            for start in range(0, len(by_length), settings.batch_size):
                batch = by_length[start : start + settings.batch_size]
                read = [torch.tensor(tokens[place]) for place in batch]
                padded = pad_sequence(read, batch_first=True, padding_value=self._tokenizer.pad_token_id)
                mask = pad_sequence([torch.ones_like(one) for one in read], batch_first=True)
                logits = self._model(input_ids=padded.to(device), attention_mask=mask.to(device)).logits
                score |= zip((distinct[place] for place in batch), logits[:, 0].tolist(), strict=True)
        return np.array([score[text] for text in texts], dtype=np.float64)


def evaluator_text(
    document: Document, question: str, context_titles: Iterable[str], max_characters: int
) -> str:
    """What an evaluator reads of a question, in at most `max_characters`.

    Question and titles take half of them at most. What is too long loses its middle: aims stand at the
    beginning of an abstract and the conclusion at its end. Each text is one line, so that none can pass for
    another.
    """
    half = max_characters // 2
    titles = [visible(title) for title in context_titles]
    asked = _shortened(f"QUESTION: {visible(question)}", half)
    room = (half - 1 - len(asked)) // max(len(titles), 1) - 1
    found = (_shortened(f"FOUND: {title}", room) for title in titles)
    ending = "\n".join(["", asked, *(line for line in found if line)])
    sections = (f"{section.label or ''} {section.text}" for section in document.sections)
    citation = visible(" ".join([document.title, *sections]))
    return _shortened(f"CITATION: {citation}", max_characters - len(ending)) + ending


def check_enough(pairs: pl.DataFrame) -> None:
    """Raises `TooFewPreferences` where an evaluator cannot be taught or judged with these pairs."""
    complete = pairs.drop_nulls(_QUESTIONS)
    train, held_out = (complete.filter(split=split).height for split in SPLITS)
    if train < LEAST_PAIRS or not held_out:
        raise TooFewPreferences(
            f"an evaluator needs at least {LEAST_PAIRS} preferences to learn from and one held-out one; of "
            f"{pairs.height} pairs {train} and {held_out} can be used: materialize cold_start_preferences of "
            "more branches first, or let the cold start judge"
        )


def evaluator_fingerprint(base: ModelName | None, pairs: pl.DataFrame, settings: EvaluatorTuning) -> str:
    """Hash of base, pairs as they are read, settings and recipe: the name of the evaluator's folder.

    `base` and `pairs` as for `train_evaluator`. Left out are package versions and the machine, which move the
    last digits of the weights.
    """
    identity = model_files.identity(base) if base else ("small Llama",)
    read = [texts_of(_used(pairs, split, settings), settings.max_characters) for split in SPLITS]
    return adapters.fingerprint(RECIPE, TEXT, identity, settings.model_dump(), read)


def texts_of(pairs: pl.DataFrame, max_characters: int) -> list[tuple[str, str]]:
    """What an evaluator reads of the chosen and of the rejected question of each pair."""
    return [
        (
            evaluator_text(document, row["chosen_question"], row["chosen_context_titles"], max_characters),
            evaluator_text(
                document, row["rejected_question"], row["rejected_context_titles"], max_characters
            ),
        )
        for row in pairs.iter_rows(named=True)
        for document in [document_of(row)]
    ]


def train_evaluator(  # noqa: PLR0917 (what it is made of, and where it goes)
    base: ModelName | None,
    pairs: pl.DataFrame,
    settings: EvaluatorTuning,
    folder: Path,
    work: Path,
    log: Callable[[str], None],
) -> EvaluatorRecord:
    """Teach an evaluator on the pairs of the training split, and write its checkpoint to an empty `folder`.

    `base` None is a small Llama of random weights, made here. `pairs` has pmid, title, abstract,
    chosen_question, rejected_question, chosen_context_titles, rejected_context_titles, and split ("train" or
    "held_out"); where there are more than `max_steps` can read, the PMID decides which are read. `work` is a
    local folder that outlives the process: called again with the same input after a kill, the training goes
    on from its last whole checkpoint there and, on a CPU, comes to the same weights to the bit. Whoever
    publishes the folder removes `work`. Raises `TooFewPreferences`, `UntrainableBase` and `ModelUnavailable`
    before anything is trained, and `TrainingDiverged` as soon as a loss or a weight is not finite; then there
    is no record in the folder.
    """
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    check_enough(pairs)
    name = evaluator_fingerprint(base, pairs, settings)
    checkpoints = work / name / "checkpoints"
    used = [_used(pairs, split, settings) for split in SPLITS]
    texts = [texts_of(some, settings.max_characters) for some in used]
    with one_thread():
        if base is None:
            read = [text for pair in texts[0] for text in pair]
            adapters.make_base(read, settings.vocabulary, settings.max_length, settings.seed, folder)
        model_name = base or ModelName(str(folder / adapters.BASE))
        tokenizer = adapters.load_tokenizer(model_name, "SEQ_CLS")
        with suppress_seqcls_warning():  # that the head is new, and the one that writes text not used
            model = adapters.load_base(model_name, "SEQ_CLS", settings.seed)
        length = adapters.window(model.config, settings)
        train, held_out = (_encoded(tokenizer, some, length) for some in texts)
        given = adapters.arguments(settings, train.num_rows, held_out.num_rows, checkpoints)
        trainer = adapters.own_trainer(RewardTrainer)(
            model=model,
            # Cut to the limit already; TRL would leave out what is longer.
            args=RewardConfig(**given | {"max_length": None}),
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=adapters.lora(settings.lora_rank, settings.lora_alpha, "SEQ_CLS", not base),
        )
        course = train_to_the_end(trainer, checkpoints, log)
    sha256 = adapters.write_adapter(trainer.model, model_name, folder)
    complete = pairs.drop_nulls(_QUESTIONS).height
    left_out = {INCOMPLETE: pairs.height - complete, BEYOND: complete - sum(some.height for some in used)}
    record = EvaluatorRecord(
        name="evaluator",
        fingerprint=name,
        recipe=RECIPE,
        prompt=TEXT,
        max_characters=settings.max_characters,
        settings=settings,
        pairs=train.num_rows,
        held_out_pairs=held_out.num_rows,
        left_out={reason: count for reason, count in left_out.items() if count},
        cut_to_fit=sum(
            len(tokens) == length
            for split in (train, held_out)
            for side in ("chosen_ids", "rejected_ids")
            for tokens in split[side]
        ),
        course=course,
        sha256=sha256,
        **adapters.described(trainer.model, model_name, folder),
    )
    adapters.write_record(record, folder)
    return record


def load_evaluator(folder: Path) -> Evaluator:
    """The evaluator of a checkpoint folder, on the GPU if there is one."""
    import torch
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    record = adapters.read_record(folder, EvaluatorRecord)
    with suppress_seqcls_warning():
        model, tokenizer = adapters.load_trainable(folder, "SEQ_CLS", record.settings.seed)
    # Where a text ends, among the padding.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if torch.cuda.is_available() and model.device.type == "cpu":
        model.to("cuda")
    return Evaluator(record, model.eval(), tokenizer)


def _used(pairs: pl.DataFrame, split: str, settings: EvaluatorTuning) -> pl.DataFrame:
    """The pairs of a split that a training reads, by PMID; of too many those with the lowest hash of it."""
    step = settings.batch_size * settings.accumulation
    most = settings.max_steps * step if split == "train" else MOST_HELD_OUT
    drawn = by_hash("evaluator")
    complete = pairs.filter(split=split).drop_nulls(_QUESTIONS)
    return complete.sort(drawn, "pmid", *_QUESTIONS).head(most).sort("pmid", *_QUESTIONS)


def _encoded(
    tokenizer: "PreTrainedTokenizerFast", texts: Sequence[tuple[str, str]], max_length: int
) -> "Dataset":
    from datasets import Dataset

    chosen, rejected = (_tokens(tokenizer, side, max_length) for side in zip(*texts, strict=True))
    return Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})


def _tokens(tokenizer: "PreTrainedTokenizerFast", texts: Iterable[str], max_length: int) -> list[list[int]]:
    """Texts as tokens, special tokens in them broken; a longer one loses the beginning of its citation.

    Without the chat template, which in some models states the date.
    """
    tokenizer.chat_template = None
    conversations = Conversations(tokenizer)
    one, other = (conversations.tokens([Message("user", text)]) for text in ("a", "b"))
    begin = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    encoded = []
    for text in texts:
        tokens = conversations.tokens([Message("user", text)])
        excess = max(len(tokens) - max_length, 0)
        encoded.append(tokens[:begin] + tokens[begin + excess :])
    return encoded


def _shortened(text: str, room: int) -> str:
    """A text of at most `room` characters, without its middle if it is longer."""
    if len(text) <= room:
        return text
    kept = room - len(_CUT)
    if kept <= 0:
        return text[: max(room, 0)]
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :]
