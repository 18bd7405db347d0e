"""Fine-tuning the encoder of retrieval on question-text pairs of the corpus, and whether that was any good.

As the predecessor published it: in-batch negatives and mined hard ones, temperature 0.02. It is
sentence-transformers that mines and trains; this module decides what it is given, makes a training that was
cut off go on to the same weights, and compares tuned and base encoder on citations that neither was tuned on.
"""

import hashlib
import io
import json
import math
import os
import random
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import BaseModel, Field, model_validator

from mkailin_assets.intervals import CONFIDENCE, RESAMPLES, SEED, Estimate
from mkailin_assets.trainer import TrainingCourse, one_thread, train_to_the_end
from mkailin_resources.embeddings.interface import Encoder
from mkailin_resources.embeddings.sentence import SentenceEncoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LEAST_PAIRS = 20
# Part of what names a training's folder: raise it when the same input is to give another encoder.
RECIPE = "1"
# Questions whose similarities to all texts are in memory at once, and those mined in one call.
_BLOCK, _MINED_AT_ONCE = 256, 8192
_USED = pl.col("reason").is_null()


class RetrieverTuning(BaseModel, extra="forbid"):
    """What decides a fine-tuning of the encoder beside its base and its pairs.

    Defaults are the predecessor's where it published them, and need a GPU. On a CPU `negatives` 1,
    `batch_size` 32 and `max_steps` 50 take minutes.
    """

    seed: int = Field(default=20, description="Seed of negatives, order, dropout and distractors")
    consistency_rank: int = Field(
        default=10, ge=1, description="A pair is kept where the base finds its text among so many first"
    )
    negatives: int = Field(default=15, ge=1, description="Mined texts a question must not find")
    nearest_rank: int = Field(default=2, ge=0, description="So many nearest wrong texts are no negatives")
    furthest_rank: int = Field(default=200, ge=2, description="Rank of the furthest wrong text to mine")
    margin: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share by which a negative must be less similar than the right text; a nearer one may "
        "be right too",
    )
    epochs: int = Field(default=20, ge=1, description="Passes over the pairs, up to max_steps")
    max_steps: int = Field(default=1000, ge=1, description="Most optimizer steps: what bounds the time")
    batch_size: int = Field(
        default=128, ge=2, description="Pairs an optimizer step, fewer where citations would meet twice"
    )
    mini_batch_size: int = Field(default=32, ge=1, description="Texts in memory at once; changes no result")
    learning_rate: float = Field(default=2e-5, gt=0, description="Peak of the linear schedule")
    temperature: float = Field(default=0.02, gt=0, description="What similarities are divided by in the loss")
    max_length: int = Field(default=256, ge=16, description="Tokens of a text that are trained on")
    checkpoint_steps: int = Field(default=100, ge=1, description="Steps between two checkpoints")
    distractors: int = Field(
        default=10_000, ge=0, description="Training texts among which held-out ones are searched, at most"
    )

    @model_validator(mode="after")
    def _ranks_have_room(self) -> "RetrieverTuning":
        if self.furthest_rank - self.nearest_rank < self.negatives:
            raise ValueError(
                f"from nearest_rank {self.nearest_rank} to furthest_rank {self.furthest_rank} there is no "
                f"room for {self.negatives} negatives"
            )
        return self


class TooFewPairs(ValueError):
    """There is not enough to tune on, or to judge by."""


class TuningRecord(BaseModel):
    """What a fine-tuning was given, and how it went."""

    settings: RetrieverTuning
    base: str = Field(description="Fingerprint of the encoder it began with")
    pairs: int = Field(description="Pairs trained on")
    left_out: dict[str, int] = Field(description="Pairs that consistency or mining took out, by reason")
    course: TrainingCourse


class Found(BaseModel):
    """How well an encoder finds the texts of held-out questions."""

    mrr_at_10: float = Field(description="Mean of 1 / rank, 0 beyond rank 10")
    recall_at_1: float
    recall_at_4: float
    recall_at_10: float


class Verdict(BaseModel):
    """Whether the tuned encoder is at least as good as its base on held-out pairs."""

    pairs: int
    citations: int
    texts: int = Field(description="Texts searched: all held-out ones and the distractors")
    base: Found
    tuned: Found
    gain: Estimate = Field(description="Of MRR@10, with its 95% bootstrap interval over citations")

    @property
    def tuned_is_current(self) -> bool:
        """The tuned encoder is to be used: its MRR@10 is not below its base's."""
        return self.tuned.mrr_at_10 >= self.base.mrr_at_10

    def __str__(self) -> str:
        """The verdict in a sentence."""
        return (
            f"MRR@10 on {self.pairs} held-out pairs of {self.citations} citations among {self.texts} texts: "
            f"tuned {self.tuned.mrr_at_10:.3f}, base {self.base.mrr_at_10:.3f}, difference "
            f"{self.gain.value:+.3f} (95% interval {self.gain.low:+.3f} to {self.gain.high:+.3f}); "
            f"the {'tuned' if self.tuned_is_current else 'base'} encoder is current"
        )


def fine_tune(
    model: "SentenceTransformer",
    pairs: pl.DataFrame,
    settings: RetrieverTuning,
    work: Path,
    log: Callable[[str], None],
) -> tuple[TuningRecord, pl.DataFrame]:
    """Tune `model` in place on the pairs of the training split; the record, and the pairs with all reasons.

    `pairs` is a RetrieverPair table. `work` is a local folder that outlives the process: called again with
    the same model, pairs and settings after a kill, the training goes on from its last whole checkpoint and,
    on a CPU, comes to the same weights to the bit. Whoever publishes the outcome removes `work`. Raises
    `TooFewPairs`, and `TrainingDiverged` as soon as a loss or a weight is not finite.
    """
    check_enough(pairs)
    base = SentenceEncoder(model)
    folder = work / _digest(base.fingerprint, pairs, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with one_thread():
        examples = _examples(base, pairs, settings, folder / "examples.parquet", log)
        course = _train(model, examples, settings, folder / "checkpoints", log)
    reasons = examples.join(pairs.filter(_USED), on=["pmid", "source"], how="semi")["reason"].drop_nulls()
    record = TuningRecord(
        settings=settings,
        base=base.fingerprint,
        pairs=examples["negatives"].count(),
        left_out=dict(reasons.value_counts().sort("reason").iter_rows()),
        course=course,
    )
    return record, examples.drop("negatives")


def held_out_ranks(encoder: Encoder, pairs: pl.DataFrame, settings: RetrieverTuning) -> pl.DataFrame:
    """Of each held-out pair the rank of its text for its question: pmid, source, rank, texts.

    Exact search among all held-out texts and a seeded sample of training texts, `texts` in number. Other
    texts of the same citation do not count, equal similarity counts against the encoder.
    """
    check_enough(pairs)
    held_out = pairs.filter(_USED, split="held_out").sort("pmid", "source")
    others = pairs.filter(_USED, split="train").unique("text", keep="first").sort("pmid", "source")
    if others.height > settings.distractors:
        others = others.sample(settings.distractors, seed=settings.seed)
    texts = pl.concat([held_out, others]).unique("text", keep="first", maintain_order=True)
    ranks = _ranks(
        encoder.encode_queries(held_out["question"].to_list()),
        encoder.encode_documents(texts["text"].to_list()),
        held_out,
        texts,
    )
    return held_out.select("pmid", "source", rank=ranks, texts=pl.lit(texts.height))


def judge(base: pl.DataFrame, tuned: pl.DataFrame) -> Verdict:
    """Compare what `held_out_ranks` found of two encoders on the same pairs.

    The interval of the gain is a paired bootstrap that draws citations, since pairs of one go together.
    """
    from scipy.stats import bootstrap

    both = base.join(tuned, on=["pmid", "source"], how="inner", validate="1:1", suffix="_tuned")
    same_texts = both["texts"].to_list() == both["texts_tuned"].to_list()
    if not both.height == base.height == tuned.height or not same_texts:
        raise ValueError(
            f"ranks of {base.height} and of {tuned.height} pairs, which are not the same pairs, among the "
            "same number of texts"
        )
    gains = (
        both.select("pmid", gain=_reciprocal("rank_tuned") - _reciprocal("rank"))
        .group_by("pmid")
        .agg(pl.col("gain").sum(), pairs=pl.len())
        .sort("pmid")
    )

    def mean(gain: np.ndarray, pairs: np.ndarray, axis: int) -> np.ndarray:
        return gain.sum(axis) / pairs.sum(axis)

    drawn = bootstrap(
        (gains["gain"].to_numpy(), gains["pairs"].to_numpy()),
        mean,
        paired=True,
        vectorized=True,
        batch=100,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=SEED,
    ).confidence_interval
    gain = float(gains["gain"].sum()) / both.height
    return Verdict(
        pairs=both.height,
        citations=gains.height,
        texts=both.item(0, "texts"),
        base=_found(both["rank"]),
        tuned=_found(both["rank_tuned"]),
        gain=Estimate(gain, float(drawn.low), float(drawn.high)),
    )


def check_enough(pairs: pl.DataFrame) -> None:
    """Raises `TooFewPairs` where a split of a RetrieverPair table has under twenty pairs to use."""
    usable = pairs.filter(_USED)
    train, held_out = (usable.filter(split=split).height for split in ("train", "held_out"))
    if min(train, held_out) < LEAST_PAIRS:
        raise TooFewPairs(
            f"tuning the encoder needs at least {LEAST_PAIRS} pairs to train on and {LEAST_PAIRS} held-out "
            f"ones; of {pairs.height} pairs {train} and {held_out} can be used: materialize more PubMed "
            "files first, or switch tuning off"
        )


def _examples(
    base: SentenceEncoder,
    pairs: pl.DataFrame,
    settings: RetrieverTuning,
    path: Path,
    log: Callable[[str], None],
) -> pl.DataFrame:
    """The pairs with the reasons of this module, and for those trained on their `negatives`: rows of others.

    Kept in a file, since a GPU that computes them again may find others.
    """
    if path.is_file():
        return pl.read_parquet(path)
    rows = pairs.sort("pmid", "source").with_row_index("row")
    train = rows.filter(_USED, split="train")
    texts = train.unique("text", keep="first", maintain_order=True)
    questions = base.encode_queries(train["question"].to_list())
    vectors = base.encode_documents(texts["text"].to_list())
    # By rank, since how similar similar is differs from encoder to encoder.
    inconsistent = _ranks(questions, vectors, train, texts) > settings.consistency_rank
    reason = (
        f"inconsistent: the base encoder does not find its text among the first {settings.consistency_rank}"
    )
    train = train.with_columns(reason=pl.when(pl.Series(inconsistent)).then(pl.lit(reason)))
    kept = train.filter(_USED)
    mined = _mined(kept, questions[~inconsistent], texts, vectors, settings)
    few = f"fewer than {settings.negatives} texts are wrong enough to be negatives"
    kept = kept.join(mined, on="row", how="left", validate="1:1").with_columns(
        reason=pl.when(pl.col("negatives").is_null()).then(pl.lit(few))
    )
    used = mined.height
    dropped = f"{int(inconsistent.sum())} are inconsistent, {kept.height - used} lack negatives"
    log(f"{used} pairs to train on; {dropped}")
    if used < LEAST_PAIRS:
        raise TooFewPairs(
            f"of {train.height} pairs {kept.height} are consistent and {used} of these have "
            f"{settings.negatives} negatives, {LEAST_PAIRS} are needed: lower negatives or nearest_rank, "
            "or materialize more PubMed files first"
        )
    judged = pl.concat([kept, train.filter(~_USED)], how="diagonal").select(
        "row", "negatives", judged="reason"
    )
    examples = rows.join(judged, on="row", how="left", maintain_order="left", validate="1:1")
    examples = examples.with_columns(reason=pl.coalesce("reason", "judged")).drop("row", "judged")
    part = path.with_suffix(".part")
    examples.write_parquet(part)
    os.replace(part, path)
    return examples


def _mined(
    pairs: pl.DataFrame,
    questions: np.ndarray,
    texts: pl.DataFrame,
    vectors: np.ndarray,
    settings: RetrieverTuning,
) -> pl.DataFrame:
    """Rows of the texts that are hard negatives for pairs, of those for which there are enough."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    corpus = texts["text"].to_list()
    row_of = dict(texts.select("text", "row").iter_rows())
    encoded = _encoded(dict(zip(pairs["question"], questions, strict=True)), vectors)
    # All texts of a citation are right for its questions: none is a negative of another.
    siblings = texts.select("pmid", right="text").unique(maintain_order=True)
    random.seed(settings.seed)
    found = [pl.DataFrame(schema={"row": pl.UInt32, "negatives": pl.List(pl.UInt32)})]
    for some in pairs.iter_slices(_MINED_AT_ONCE):
        right = some.join(siblings, on="pmid", how="left", maintain_order="left")
        with redirect_stderr(io.StringIO()):  # its progress bars cannot be switched off
            mined = mine_hard_negatives(
                Dataset.from_dict(
                    {"question": right["question"].to_list(), "text": right["right"].to_list()}
                ),
                encoded,
                corpus=corpus,
                range_min=settings.nearest_rank,
                range_max=settings.furthest_rank,
                relative_margin=settings.margin,
                num_negatives=settings.negatives,
                sampling_strategy="random",
                output_format="n-tuple",
                faiss_batch_size=_BLOCK,
                verbose=False,
            )
        wrong = zip(*(mined[f"negative_{n}"] for n in range(1, settings.negatives + 1)), strict=True)
        negatives = [[row_of[text] for text in each] for each in wrong]
        rows = pl.DataFrame(
            {"question": list(mined["question"]), "negatives": negatives},
            schema={"question": pl.String, "negatives": pl.List(pl.UInt32)},
        )
        found.append(some.join(rows.unique("question"), on="question").select("row", "negatives"))
    return pl.concat(found)


def _encoded(questions: dict[str, np.ndarray], texts: np.ndarray) -> Any:
    """What `mine_hard_negatives` asks of a model, for texts that are encoded already."""
    from sentence_transformers.util import dot_score, pairwise_dot_score

    class Encoded:
        device = "cpu"
        similarity = staticmethod(dot_score)
        similarity_pairwise = staticmethod(pairwise_dot_score)

        def encode_document(self, corpus: Sequence[str], **options: Any) -> np.ndarray:
            return texts

        def encode_query(self, asked: Sequence[str], **options: Any) -> np.ndarray:
            return np.stack([questions[question] for question in asked])

    return Encoded()


def _train(
    model: "SentenceTransformer",
    examples: pl.DataFrame,
    settings: RetrieverTuning,
    checkpoints: Path,
    log: Callable[[str], None],
) -> TrainingCourse:
    """Train to the end, from the last whole checkpoint where there is one."""
    window = model.max_seq_length
    model.max_seq_length = min(window or settings.max_length, settings.max_length)
    try:
        return train_to_the_end(_trainer(model, examples, settings, checkpoints), checkpoints, log)
    finally:
        model.max_seq_length = window


def _trainer(
    model: "SentenceTransformer",
    examples: pl.DataFrame,
    settings: RetrieverTuning,
    checkpoints: Path,
) -> Any:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    used = examples.with_row_index("row").drop_nulls("negatives")
    wrong = {f"negative_{n}": used["negatives"].list.get(n) for n in range(settings.negatives)}
    rows = {"text": used["row"], **wrong}
    questions, texts, citations = (examples[name].to_list() for name in ("question", "text", "pmid"))
    owners = Dataset.from_dict(
        {name: [str(citations[row]) for row in column] for name, column in rows.items()}
    )

    class PairTrainer(SentenceTransformerTrainer):
        def get_batch_sampler(  # type: ignore[override]
            self, dataset: Dataset, **options: Any
        ) -> NoDuplicatesBatchSampler:
            """No citation twice in a batch, as right or as wrong text: else what is right is a negative."""
            return NoDuplicatesBatchSampler(owners, **options)

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """No model card: it would quote the corpus, and ask the Hub about the base."""

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            assert output_dir is not None
            self.model.save_pretrained(output_dir, create_model_card=False)

    def read(batch: dict[str, list[int]]) -> dict[str, list[str]]:
        return {
            name: [(questions if name == "question" else texts)[row] for row in batch[name]] for name in batch
        }

    return PairTrainer(
        model=model,
        args=_arguments(model, settings, used.height, list(wrong), checkpoints),
        train_dataset=Dataset.from_dict({"question": used["row"], **rows}).with_transform(read),
        loss=CachedMultipleNegativesRankingLoss(
            model, scale=1 / settings.temperature, mini_batch_size=settings.mini_batch_size
        ),
    )


def _arguments(
    model: "SentenceTransformer",
    settings: RetrieverTuning,
    pairs: int,
    negatives: list[str],
    checkpoints: Path,
) -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments

    steps = min(settings.max_steps, settings.epochs * math.ceil(pairs / settings.batch_size))
    roles = {"question": "query", **dict.fromkeys(["text", *negatives], "document")}
    on_gpu = model.device.type == "cuda"
    return SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, steps // 10),
        prompts={column: prompt for column, role in roles.items() if (prompt := model.prompts.get(role))},
        router_mapping=roles,
        logging_steps=max(1, steps // 25),
        # The default replaces a loss that is not a number by a mean that is.
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=not on_gpu,
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )


def _ranks(
    questions: np.ndarray, vectors: np.ndarray, pairs: pl.DataFrame, texts: pl.DataFrame
) -> np.ndarray:
    """Rank of each pair's own text among the texts of other citations, from 1; ties count against it."""
    places = {text: place for place, text in enumerate(texts["text"])}
    own = np.array([places[text] for text in pairs["text"]])
    citations, owners = pairs["pmid"].to_numpy(), texts["pmid"].to_numpy()
    ranks = np.empty(len(own), np.int64)
    for start in range(0, len(own), _BLOCK):
        at = slice(start, start + _BLOCK)
        scores = questions[at] @ vectors.T
        others = owners[None, :] != citations[at, None]
        np.put_along_axis(others, own[at, None], False, axis=1)
        # So written, a similarity that is no number is a loss.
        better = others & ~(scores < np.take_along_axis(scores, own[at, None], axis=1))
        ranks[at] = 1 + better.sum(axis=1)
    return ranks


def _reciprocal(rank: str) -> pl.Expr:
    return pl.when(pl.col(rank) <= 10).then(1 / pl.col(rank)).otherwise(0.0)


def _found(ranks: pl.Series) -> Found:
    share = {k: float((ranks <= k).sum()) / len(ranks) for k in (1, 4, 10)}
    mrr = ranks.to_frame("rank").select(_reciprocal("rank").mean()).item()
    return Found(mrr_at_10=mrr, recall_at_1=share[1], recall_at_4=share[4], recall_at_10=share[10])


def _digest(base: str, pairs: pl.DataFrame, settings: RetrieverTuning) -> str:
    """Name of a training's folder: hash of base, pairs, settings and recipe."""
    digest = hashlib.blake2b(json.dumps([RECIPE, base, settings.model_dump()]).encode(), digest_size=16)
    for row in pairs.sort("pmid", "source").iter_rows():
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
