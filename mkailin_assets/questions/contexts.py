"""The contexts of each candidate question: what retrieval finds for it, beside its own source."""

from typing import Any

import polars as pl

from mkailin_assets.questions.tables import CandidateContexts
from mkailin_assets.retrieval.update import heading_uis
from mkailin_resources.searcher import Ranked, Searcher

_EMPTY = CandidateContexts.create_empty()
_QUESTIONS_PER_BATCH = 1_024

NO_CONTEXT = "no context found"
NO_SOURCE = "the citation it was asked of is no longer in this branch"


def still_found(
    recorded: pl.DataFrame | None, candidate_questions: pl.DataFrame, searcher: Searcher, k: int
) -> pl.DataFrame:
    """Those rows of the table as it was with the same question, search and every one of k contexts.

    They are kept, so that what is new in PubMed does not reach back to all that was made before.
    """
    if recorded is None or recorded.schema != _EMPTY.schema:
        return _EMPTY
    key = ["pmid", "role"]
    rows = recorded.join(candidate_questions, on=[*key, "question"], how="semi").filter(
        pl.col("encoder") == searcher.encoder,
        pl.col("search_kind") == searcher.search_kind,
        pl.col("contexts").list.len() == k,
    )
    context = pl.col("contexts").struct
    cited = rows.select(*key, "contexts").explode("contexts", empty_as_null=False)
    cited = cited.select(*key, cited=context.field("pmid"), content_hash=context.field("content_hash"))
    held = searcher.records(cited["cited"].unique())
    there = pl.DataFrame(
        [(pmid, record.content_hash) for pmid, record in held.items()],
        schema={"cited": pl.Int64, "content_hash": pl.String},
        orient="row",
    )
    changed = cited.join(there, on=["cited", "content_hash"], how="anti")
    return rows.join(changed, on=key, how="anti")


def find_contexts(
    candidate_questions: pl.DataFrame,
    branch_citations: pl.DataFrame,
    searcher: Searcher,
    k: int,
    kept: pl.DataFrame = _EMPTY,
) -> pl.DataFrame:
    """The k best contexts of each question (CandidateContexts), in the order of the questions.

    Questions that have a row in `kept` (`still_found`) get its contexts and are not searched for.

    The source is left out of its own contexts; `source_rank` is its place in the fused list, null where
    neither retriever has it in its first 100. A question that was not generated keeps its failure.
    """
    headings = dict(branch_citations.select("pmid", heading_uis()).iter_rows())
    rows = [
        _row(question, headings.get(question["pmid"]))
        for question in candidate_questions.select("pmid", "role", "branch", "question", "failure").to_dicts()
    ]
    found = {(row["pmid"], row["role"]): row for row in kept.to_dicts()}
    asked = []
    for row in rows:
        if row["failure"] is None:
            row |= {"encoder": searcher.encoder, "search_kind": searcher.search_kind}
            if before := found.get((row["pmid"], row["role"])):
                row.update(contexts=before["contexts"], source_rank=before["source_rank"])
            else:
                asked.append(row)
    for start in range(0, len(asked), _QUESTIONS_PER_BATCH):
        _search(asked[start : start + _QUESTIONS_PER_BATCH], searcher, k)
    return pl.DataFrame(rows, schema=_EMPTY.schema)


def _row(question: dict[str, Any], heading_uis: list[str] | None) -> dict[str, Any]:
    failure = question["failure"] or (NO_SOURCE if heading_uis is None else None)
    found = {"heading_uis": heading_uis or [], "contexts": [], "source_rank": None}
    return question | found | {"failure": failure, "encoder": None, "search_kind": None}


def _search(rows: list[dict[str, Any]], searcher: Searcher, k: int) -> None:
    """Fill in contexts, rank of the source and, where nothing was found, the failure."""
    tops: list[list[Ranked]] = []
    for row, ranked in zip(rows, searcher.rank([row["question"] for row in rows]), strict=True):
        pmids = [found.pmid for found in ranked]
        row["source_rank"] = pmids.index(row["pmid"]) + 1 if row["pmid"] in pmids else None
        tops.append([found for found in ranked if found.pmid != row["pmid"]][:k])
    records = searcher.records({found.pmid for top in tops for found in top})
    for row, top in zip(rows, tops, strict=True):
        row["contexts"] = [
            found._asdict() | records[found.pmid]._asdict() | {"rank": rank}
            for rank, found in enumerate(top, 1)
        ]
        row["failure"] = None if top else NO_CONTEXT
