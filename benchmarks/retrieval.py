"""Retrieval on SciFact: lexical, dense and hybrid search against the libraries of their kind, used directly.

SciFact's test judgements (5,183 abstracts, 300 claims), nDCG@10 through ir_measures. Ours is the pipeline as
`retrieval_report` runs it: an index over the abstracts, their vectors through the embedding store. Beside it
bm25s (its own defaults, English stop words, English stemmer of PyStemmer) and all-MiniLM-L6-v2 with the exact
search of sentence-transformers, twice: as its users call it, a text cut off at the end of the window, and
with the vectors of our encoder, which reads texts to their end. The space learnt from these abstracts is
reported beside it. Seconds are the clock's, on one thread, from empty stores.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.report import Goal, Report
from mkailin_assets.evaluation.judgements import JudgedSet, read_beir
from mkailin_assets.evaluation.ranking import differences, means, measured
from mkailin_assets.evaluation.retrieval import rank
from mkailin_resources.embeddings.corpus import CorpusEncoder
from mkailin_resources.embeddings.interface import Encoder
from mkailin_resources.embeddings.sentence import SentenceEncoder
from mkailin_resources.searcher import DEPTH
from mkailin_resources.storage import Storage


class _Remembering:
    """An encoder that keeps what it made of documents, so that a second contender need not make it again."""

    def __init__(self, encoder: Encoder) -> None:
        self.fingerprint, self.dimension = encoder.fingerprint, encoder.dimension
        self.encode_queries = encoder.encode_queries
        self.made: dict[str, np.ndarray] = {}
        self._encoder = encoder

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, dimension)."""
        vectors = self._encoder.encode_documents(texts)
        self.made |= zip(texts, vectors, strict=True)
        return vectors


def run() -> Report:
    """Measure; SystemExit with what to do where the judgements or a contender are not at hand."""
    data = os.environ.get("MKAILIN_REAL_DATA")
    if not data:
        raise SystemExit("retrieval: set MKAILIN_REAL_DATA to the folder that holds retrieval/scifact")
    try:
        return _compare(read_beir(Path(data) / "retrieval" / "scifact"))
    except ImportError as error:
        raise SystemExit(f"retrieval: {error}: run make env") from error


def _compare(judged: JudgedSet) -> Report:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import torch
    from minilm import minilm_folder
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    texts, asked = judged.documents["text"].to_list(), list(judged.questions.values())
    scores: dict[str, pl.DataFrame] = {}
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    scores["bm25s"] = _measured(judged, _bm25s(texts, asked))
    seconds["bm25s"] = time.perf_counter() - began
    minilm = _Remembering(SentenceEncoder.load(str(minilm_folder())))
    encoders: dict[str, Encoder] = {"": minilm, "learnt ": CorpusEncoder.learn(texts)}
    with tempfile.TemporaryDirectory() as folder:
        for prefix, encoder in encoders.items():
            began = time.perf_counter()
            for ranking in rank(judged, {prefix: encoder}, Storage(root=folder), lambda line: None):
                scores[ranking.retriever] = ranking.scores
            seconds[f"{prefix}pipeline"] = time.perf_counter() - began
    model = SentenceTransformer(str(minilm_folder()))
    questions = model.encode_query(asked)
    windows = np.stack([minilm.made[text] for text in texts])
    scores["minilm with windows"] = _measured(judged, _exact(questions, windows))
    began = time.perf_counter()
    scores["minilm cut off"] = _measured(judged, _exact(questions, model.encode_document(texts)))
    seconds["minilm cut off"] = time.perf_counter() - began
    return _report(judged, scores, seconds)


def _bm25s(texts: Sequence[str], questions: Sequence[str]) -> list[list[int]]:
    """Places of the texts found for each question, from 0, best first."""
    import bm25s
    import Stemmer

    words = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(list(texts), **words), show_progress=False)
    found, _ = retriever.retrieve(bm25s.tokenize(list(questions), **words), k=DEPTH, show_progress=False)
    return found.tolist()


def _exact(questions: np.ndarray, vectors: np.ndarray) -> list[list[int]]:
    """The same by the cosine of vectors."""
    import torch
    from sentence_transformers.util import semantic_search

    hits = semantic_search(torch.from_numpy(questions), torch.from_numpy(vectors), top_k=DEPTH)
    return [[int(hit["corpus_id"]) for hit in of] for of in hits]


def _measured(judged: JudgedSet, places: list[list[int]]) -> pl.DataFrame:
    numbers = judged.documents["pmid"].to_list()
    found = [[numbers[place] for place in some] for some in places]
    return measured(dict(zip(judged.questions, found, strict=True)), judged.relevant)


def _report(judged: JudgedSet, scores: dict[str, pl.DataFrame], seconds: dict[str, float]) -> Report:
    ndcg = {name: means(of)["ndcg_10"] for name, of in scores.items()}
    libraries = {"bm25s": "lexical", "minilm with windows": "dense", "minilm cut off": "dense"}
    losses = {library: ndcg[library].value - ndcg[ours].value for library, ours in libraries.items()}
    leads = {other: differences(scores["hybrid"], scores[other])["ndcg_10"] for other in ("dense", "lexical")}
    results: dict[str, Any] = {
        "documents": judged.documents.height,
        "questions": len(judged.questions),
        "ndcg10": {name: round(found.value, 4) for name, found in ndcg.items()},
        "intervals": {name: [round(found.low, 4), round(found.high, 4)] for name, found in ndcg.items()},
        "losses": {library: round(loss, 4) for library, loss in losses.items()},
        "hybrid_minus": {
            other: [round(lead.value, 4), round(lead.low, 4), round(lead.high, 4)]
            for other, lead in leads.items()
        },
        "seconds": {name: round(taken, 1) for name, taken in seconds.items()},
    }
    return Report(
        results,
        goals=[
            Goal("loss_to_library", max(losses.values()), 0.002, at_least=False),
            Goal("ndcg10_hybrid", ndcg["hybrid"].value, 0.70, at_least=True),
            Goal("hybrid_lead", min(lead.value for lead in leads.values()), 0.0, at_least=True),
        ],
    )
