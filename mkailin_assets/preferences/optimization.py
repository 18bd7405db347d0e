"""Direct preference optimization of a question generator (Rafailov et al., arXiv 2305.18290).

A generator that was tuned learns from pairs of questions which one is preferred; as it was at the start,
frozen, it is the reference. TRL trains; this module decides what it is given. The log-probabilities
are of the questions' tokens alone, after the same prompt and the same JSON as in fine-tuning and when asked.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets import adapters
from mkailin_assets.adapters import AdapterRecord, AdapterTuning
from mkailin_assets.questions.finetuning import EncodedQuestion, QuestionEncoder, Unfit
from mkailin_assets.trainer import curve_of, one_thread, train_to_the_end
from mkailin_resources.models.prompting import PromptFile
from mkailin_resources.trainees import TRAINED_PROMPT

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerFast

LEAST_PAIRS = 20
# Part of what names a checkpoint: raise it when the same input is to give another generator.
RECIPE = "1"
SAME = "both of its questions are the same"
UNEVEN = "held out, and beyond whole batches"

Pair = dict[str, list[int]]


class PreferenceOptimization(AdapterTuning):
    """What decides an optimization beside start and pairs; the defaults are for models of the hub."""

    epochs: int = Field(default=3, ge=1, description="Passes over the pairs, up to max_steps")
    beta: float = Field(default=0.1, gt=0, description="How dear it is to move away from the start")


# Of the small Llama, on one core: seconds.
EMBEDDED_OPTIMIZATION = PreferenceOptimization(
    max_length=512, epochs=2, max_steps=30, batch_size=8, accumulation=1, learning_rate=1e-3
)


class TooFewPairs(ValueError):
    """There is not enough to optimize on."""


class RewardCurve(BaseModel):
    """Optimizer steps and what the rewards were there, a mean over batches.

    A reward is beta times how much likelier a question became than it was at the start, in nats.
    """

    train: list[tuple[int, float]]
    held_out: list[tuple[int, float]]


class OptimizationRecord(AdapterRecord):
    """What an optimization was given, and how it went: losses in nats a pair, ln 2 at the start."""

    settings: PreferenceOptimization
    start: str = Field(description="Fingerprint of the generator it began with")
    pairs: int = Field(description="Pairs optimized on")
    held_out_pairs: int = Field(description="Pairs that the held-out numbers are of")
    left_out: dict[str, int] = Field(description="Pairs that this base cannot be optimized on, by reason")
    reward_margin: RewardCurve = Field(description="Reward of the chosen question minus the rejected one's")
    reward_accuracy: RewardCurve = Field(description="Share of pairs whose chosen question is ahead")

    @property
    def held_out_margin(self) -> float | None:
        """Mean reward margin of the held-out pairs in the end; None without such pairs."""
        return self.reward_margin.held_out[-1][1] if self.reward_margin.held_out else None

    @property
    def held_out_accuracy(self) -> float | None:
        """Share of the held-out pairs whose chosen question is ahead in the end; None without such pairs."""
        return self.reward_accuracy.held_out[-1][1] if self.reward_accuracy.held_out else None


def optimization_fingerprint(start: Path, pairs: pl.DataFrame, settings: PreferenceOptimization) -> str:
    """What names the checkpoint of `optimize`: hash of start, pairs, settings and prompt."""
    read = list(pairs.select(_READ).sort("pmid", "chosen", "rejected").iter_rows())
    begun = adapters.read_record(start, AdapterRecord).fingerprint
    return adapters.fingerprint(
        RECIPE, begun, read, settings.model_dump(), PromptFile.load(TRAINED_PROMPT).version
    )


_READ = ["pmid", "title", "abstract", "chosen", "rejected", "split"]


def optimize(  # noqa: PLR0917
    start: Path,
    pairs: pl.DataFrame,
    settings: PreferenceOptimization,
    folder: Path,
    work: Path,
    log: Callable[[str], None],
) -> OptimizationRecord:
    """Optimize the generator of a checkpoint folder on pairs; writes its successor to an empty `folder`.

    `start` is of `tune_generator` or of an earlier round. `pairs` has pmid, title, abstract (as in a
    QuestionExemplar), chosen, rejected, and split ("train" or "held_out"). `work` is a local folder that
    outlives the process: called again with the same input after a kill, the training goes on from its last
    whole checkpoint and, on a CPU, comes to the same weights to the bit. Whoever publishes `folder` removes
    what is in `work`.

    Raises `TooFewPairs` before anything starts, `ModelUnavailable` where the base is gone, and
    `TrainingDiverged` as soon as a loss or a weight is not finite; then there is no record in `folder`.
    """
    check_enough(pairs)
    begun = adapters.read_record(start, AdapterRecord)
    name = optimization_fingerprint(start, pairs, settings)
    checkpoints = work / name / "checkpoints"
    with one_thread(), adapters.labels_alone():
        model, tokenizer = adapters.load_trainable(start, "CAUSAL_LM", settings.seed)
        encoder = QuestionEncoder(tokenizer, begun.max_characters, adapters.window(model.config, settings))
        encoded, left_out = encoded_pairs(pairs, encoder)
        _check_left(encoded, left_out)
        uneven = _uneven(len(encoded["held_out"]), settings.batch_size)
        if uneven:
            left_out[UNEVEN] = uneven
            encoded["held_out"] = encoded["held_out"][:-uneven]
        trainer = _trainer(model, tokenizer, encoded, settings, checkpoints)
        course = train_to_the_end(trainer, checkpoints, log)
    model.delete_adapter("ref")
    if (start / adapters.BASE).is_dir():
        shutil.copytree(start / adapters.BASE, folder / adapters.BASE)
    base = adapters.base_of(start)
    history = trainer.state.log_history
    record = OptimizationRecord(
        name="preferred",
        fingerprint=name,
        recipe=RECIPE,
        prompt=PromptFile.load(TRAINED_PROMPT).version,
        max_characters=begun.max_characters,
        course=course,
        settings=settings,
        start=begun.fingerprint,
        pairs=len(encoded["train"]),
        held_out_pairs=len(encoded["held_out"]),
        left_out=left_out,
        reward_margin=_rewards(history, "margins"),
        reward_accuracy=_rewards(history, "accuracies"),
        sha256=adapters.write_adapter(model, base, folder),
        **adapters.described(model, base, folder),
    )
    adapters.write_record(record, folder)
    return record


def check_enough(pairs: pl.DataFrame) -> None:
    """Raises `TooFewPairs` under twenty of the training split."""
    train = pairs.filter(split="train").height
    if train < LEAST_PAIRS:
        raise TooFewPairs(
            f"preference optimization needs at least {LEAST_PAIRS} pairs to train on; of {pairs.height} "
            f"{train} are, the others are held out: materialize question_preferences of more branches first"
        )


def encoded_pairs(
    pairs: pl.DataFrame, encoder: QuestionEncoder
) -> tuple[dict[str, list[Pair]], dict[str, int]]:
    """By split the pairs as TRL takes them, in tokens, by PMID; by reason how many there are not.

    The JSON before a question goes with the prompt, that after it is left out: it is the same for both, and
    forced.
    """
    encoded: dict[str, list[Pair]] = {"train": [], "held_out": []}
    left_out: Counter[str] = Counter()
    for row in pairs.sort("pmid", "chosen", "rejected").iter_rows(named=True):
        try:
            if row["chosen"] == row["rejected"]:
                raise Unfit(SAME)
            chosen, rejected = (encoder.encode(row, row[name]) for name in ("chosen", "rejected"))
        except Unfit as error:
            left_out[str(error)] += 1
        else:
            encoded[row["split"]].append(_pair(chosen, rejected))
    return encoded, dict(left_out)


def _pair(chosen: EncodedQuestion, rejected: EncodedQuestion) -> Pair:
    # A question that begins with a sign may share its first token with the JSON before it.
    first = min(chosen.first, rejected.first)
    return {
        "prompt_ids": chosen.prompt + chosen.reply[:first],
        "chosen_ids": chosen.reply[first : chosen.last],
        "rejected_ids": rejected.reply[first : rejected.last],
    }


def _uneven(held_out: int, batch_size: int) -> int:
    """Held-out pairs beyond whole batches: TRL takes the mean of batches, and each pair is to count."""
    return held_out % batch_size if held_out > batch_size else 0


def _check_left(encoded: dict[str, list[Pair]], left_out: dict[str, int]) -> None:
    if len(encoded["train"]) < LEAST_PAIRS:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in left_out.items())
        raise TooFewPairs(
            f"preference optimization needs at least {LEAST_PAIRS} pairs to train on; the generator takes "
            f"{len(encoded['train'])}, others are left out: {reasons}; raise max_length, or materialize "
            "question_preferences of more branches first"
        )


def _trainer(
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerFast",
    encoded: dict[str, list[Pair]],
    settings: PreferenceOptimization,
    checkpoints: Path,
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class PairTrainer(adapters.own_trainer(DPOTrainer)):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Dataset, *given: Any) -> Dataset:
            """In tokens already: TRL 1.16 would render its own prompt, and drop what it finds too long."""
            return dataset

    train, held_out = encoded["train"], encoded["held_out"]
    return PairTrainer(
        # TRL copies the adapter it is given: the copy, frozen, is the reference.
        model=model,
        args=DPOConfig(
            **adapters.arguments(settings, len(train), len(held_out), checkpoints), beta=settings.beta
        ),
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        processing_class=tokenizer,
    )


def _rewards(history: list[dict[str, float]], name: str) -> RewardCurve:
    return RewardCurve(
        train=curve_of(history, f"rewards/{name}"), held_out=curve_of(history, f"eval_rewards/{name}")
    )
