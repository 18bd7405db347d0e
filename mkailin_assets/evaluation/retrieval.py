"""From judged sets to a report on retrieval: each retriever's scores, differences, and a page to read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from mkailin_assets.evaluation.judgements import JudgedSet, JudgedSets
from mkailin_assets.evaluation.ranking import MEASURES, differences, means, measured
from mkailin_assets.evaluation.tables import RetrievalResult
from mkailin_assets.intervals import Estimate, columns_of
from mkailin_assets.markdown import table_lines
from mkailin_resources.embeddings.checkpoint import open_encoder
from mkailin_resources.embeddings.interface import Encoder
from mkailin_resources.index import ContextStore
from mkailin_resources.searcher import DEPTH, fused
from mkailin_resources.storage import Storage

TUNED = "tuned "
READ_THIS_FIRST = (
    "Means over the questions with 95% intervals (bootstrap over the questions); differences are taken "
    "question by question. A question that a retriever finds nothing for counts 0. An encoder that was "
    "learnt from the corpus has read its titles together with their abstracts."
)
_COMPARED = (("hybrid", "dense"), ("hybrid", "lexical"), ("tuned dense", "dense"), ("tuned hybrid", "hybrid"))


@dataclass(frozen=True)
class Ranking:
    """The measures of each question of a judged set (`ranking.measured`) by one retriever."""

    judged: JudgedSet
    retriever: str
    encoder: str | None
    scores: pl.DataFrame


def encoders_of(checkpoint: pl.DataFrame, storage: Storage) -> dict[str, Encoder]:
    """The encoder of a RetrieverCheckpoint row under ""; if it was tuned its base, and itself as `TUNED`."""
    made = checkpoint.row(0, named=True)
    current = open_encoder(made["uri"], made["fingerprint"], storage)
    if made["base_fingerprint"] in {None, made["fingerprint"]}:
        return {"": current}
    return {"": open_encoder(made["base_uri"], made["base_fingerprint"], storage), TUNED: current}


def rank(
    judged: JudgedSet, encoders: Mapping[str, Encoder], storage: Storage, log: Callable[[str], None]
) -> list[Ranking]:
    """Lexical search, and dense and hybrid search by each encoder, over an index of these documents alone."""
    found: dict[str, tuple[str | None, list[list[int]]]] = {}
    questions = list(judged.questions.values())
    for prefix, encoder in encoders.items():
        log(f"{judged.name}: {judged.documents.height:,} documents by encoder {encoder.fingerprint}")
        with TemporaryDirectory() as folder:
            store = ContextStore(storage=storage, retriever="hybrid")
            searcher = store.over(judged.documents, encoder, Path(folder))
            dense, lexical = searcher.dense(questions, DEPTH), searcher.lexical(questions, DEPTH)
        hybrid = [[ranked.pmid for ranked in fused(*both)] for both in zip(dense, lexical, strict=True)]
        found |= {
            "lexical": (None, lexical),
            f"{prefix}dense": (encoder.fingerprint, dense),
            f"{prefix}hybrid": (encoder.fingerprint, hybrid),
        }
    return [
        Ranking(
            judged,
            retriever,
            encoder,
            measured(dict(zip(judged.questions, lists, strict=True)), judged.relevant),
        )
        for retriever, (encoder, lists) in found.items()
    ]


def score(rankings: Sequence[Ranking]) -> pl.DataFrame:
    """The `RetrievalResult` table."""
    rows = [
        {
            "judged_set": ranking.judged.name,
            "retriever": ranking.retriever,
            "encoder": ranking.encoder,
            "questions": len(ranking.judged.questions),
            "documents": ranking.judged.documents.height,
            **_columns(means(ranking.scores)),
        }
        for ranking in rankings
    ]
    return pl.DataFrame(rows, schema=RetrievalResult.create_empty().schema)


def leads(rankings: Sequence[Ranking]) -> pl.DataFrame:
    """How far a retriever is ahead of another on the same questions: judged_set, difference, measures."""
    by_name = {(ranking.judged.name, ranking.retriever): ranking.scores for ranking in rankings}
    rows = [
        {"judged_set": name, "difference": f"{ours} - {theirs}"}
        | _columns(differences(by_name[name, ours], by_name[name, theirs]))
        for name in dict.fromkeys(name for name, _ in by_name)
        for ours, theirs in _COMPARED
        if {(name, ours), (name, theirs)} <= by_name.keys()
    ]
    return pl.DataFrame(rows)


def choice(results: pl.DataFrame, retriever: str) -> pl.DataFrame:
    """By judged set the retriever in use, with the tuned encoder if there is one, and the best one measured.

    Columns judged_set, in_use, ndcg_10, ndcg_10_high, best, best_ndcg_10.
    """
    tuned = TUNED + retriever in results["retriever"].to_list()
    used = results.filter(retriever=TUNED + retriever if tuned else retriever)
    best = results.sort("ndcg_10", descending=True, maintain_order=True).unique("judged_set", keep="first")
    return used.select("judged_set", "ndcg_10", "ndcg_10_high", in_use="retriever").join(
        best.select("judged_set", best="retriever", best_ndcg_10="ndcg_10"),
        on="judged_set",
        maintain_order="left",
    )


def verdicts(results: pl.DataFrame, retriever: str) -> dict[str, str]:
    """By judged set, in words, whether the retriever in use is the best one measured."""
    return {
        used["judged_set"]: f"{used['in_use']} is in use, the best one measured"
        if used["ndcg_10"] >= used["best_ndcg_10"]
        else f"{used['in_use']} is in use, with nDCG@10 {used['ndcg_10']:.3f}; the best one measured is "
        f"{used['best']}, with {used['best_ndcg_10']:.3f}"
        for used in choice(results, retriever).iter_rows(named=True)
    }


def readable(frame: pl.DataFrame, number: str = ".3f") -> pl.DataFrame:
    """A table with each measure and its interval as one text."""
    return frame.select(
        pl.exclude("^.*_(low|high)$"),
    ).with_columns(
        pl.Series(
            measure,
            [
                f"{value:{number}} ({low:{number}} to {high:{number}})"
                for value, low, high in frame.select(measure, f"{measure}_low", f"{measure}_high").iter_rows()
            ],
            pl.String,
        )
        for measure in MEASURES
    )


def render(judged: JudgedSets, results: pl.DataFrame, ahead: pl.DataFrame, retriever: str) -> str:
    """The report as Markdown, of what `score` and `leads` gave; `retriever` is the one that is set."""
    lines = ["# Retrieval report", "", READ_THIS_FIRST]
    for name, verdict in verdicts(results, retriever).items():
        of_set = results.filter(judged_set=name)
        questions, documents = of_set.select("questions", "documents").row(0)
        lines += ["", f"## {name}", "", f"{questions:,} questions, {documents:,} documents; {verdict}.", ""]
        lines += _of_frame(readable(of_set.drop("judged_set", "encoder", "questions", "documents")))
        lines += ["", *_of_frame(readable(ahead.filter(judged_set=name).drop("judged_set"), "+.3f"))]
    lines += ["", "## Left out", ""]
    lines += [
        f"- {name}: {n:,} {what}" for name, reasons in judged.left_out.items() for what, n in reasons.items()
    ]
    lines += [f"- {name}: {why}" for name, why in judged.absent.items()]
    return "\n".join(lines) + "\n"


def _columns(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    columns: dict[str, float | None] = {}
    for measure, found in estimates.items():
        columns |= columns_of(measure, found)
    return columns


def _of_frame(frame: pl.DataFrame) -> list[str]:
    return table_lines(frame.columns, frame.iter_rows())
