"""How well documents are ranked: measures of each question through ir_measures, means with intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from mkailin_assets.intervals import Estimate, mean

if TYPE_CHECKING:
    from ir_measures.measures import Measure

# Column to what ir_measures calls it.
MEASURES = {
    "recall_1": "R@1",
    "recall_4": "R@4",
    "recall_10": "R@10",
    "mrr_10": "RR@10",
    "ndcg_10": "nDCG@10",
}


def measured(found: Mapping[int, Sequence[int]], relevant: Mapping[int, Mapping[int, int]]) -> pl.DataFrame:
    """A row for each question of `relevant`, in its order: question, and a column for each of `MEASURES`.

    `found` has the documents found for a question, best first. A question that nothing was found for has 0.
    """
    import ir_measures

    judged = [
        ir_measures.Qrel(str(question), str(document), score)
        for question, scores in relevant.items()
        for document, score in scores.items()
    ]
    run = [
        ir_measures.ScoredDoc(str(question), str(document), -rank)
        for question in relevant
        for rank, document in enumerate(found.get(question, ()), 1)
    ]
    columns: dict[Measure, str] = {
        ir_measures.parse_measure(name): column for column, name in MEASURES.items()
    }
    rows = {question: dict.fromkeys(MEASURES, 0.0) for question in relevant}
    for metric in ir_measures.iter_calc(list(columns), judged, run):
        rows[int(metric.query_id)][columns[metric.measure]] = metric.value
    return pl.DataFrame([{"question": question} | values for question, values in rows.items()])


def means(scores: pl.DataFrame) -> dict[str, Estimate]:
    """The mean of each measure over the questions."""
    return {measure: mean(scores[measure].to_list()) for measure in MEASURES}


def differences(ours: pl.DataFrame, theirs: pl.DataFrame) -> dict[str, Estimate]:
    """The lead of our measures over theirs on the same questions, question by question."""
    return {measure: mean((ours[measure] - theirs[measure]).to_list()) for measure in MEASURES}
