"""Tables of the evaluation stage."""

import dataframely as dy

from mkailin_assets.tables import one_of

_LOW, _HIGH = "Lower end of the 95% interval", "Upper end of the 95% interval"
AUDIT_SOURCES = ("pubmedqa", "title")
DISTRACTORS = ("other branch", "same branch")
RETRIEVERS = ("lexical", "dense", "hybrid", "tuned dense", "tuned hybrid")


def _score(what: str) -> dy.Float64:
    return dy.Float64(min=0, max=1, description=what)


class BenchmarkResult(dy.Schema):
    """Accuracy of one model on one benchmark under one protocol, with 95% intervals."""

    benchmark = dy.String(primary_key=True, description="Name of the benchmark file")
    protocol = dy.String(
        primary_key=True, description="reasoning_required (with contexts) or question_only (without)"
    )
    model = dy.String(primary_key=True, description="majority, extractive agents, base or finetuned")
    items = dy.Int64(min=1, description="Questions asked")
    accuracy = _score("Share answered as the experts did")
    accuracy_low = _score(_LOW)
    accuracy_high = _score(_HIGH)
    macro_f1 = _score("Mean F1 of yes, no and maybe")
    macro_f1_low = _score(_LOW)
    macro_f1_high = _score(_HIGH)


class RetrievalResult(dy.Schema):
    """What one retriever finds on one judged set: means over its questions, with 95% intervals."""

    judged_set = dy.String(primary_key=True, description="Judged folder, source abstracts or question titles")
    retriever = one_of(
        RETRIEVERS, primary_key=True, description="lexical, dense or hybrid, or the latter two after tuning"
    )
    encoder = dy.String(nullable=True, description="Fingerprint of the encoder; null: none is asked")
    questions = dy.Int64(min=1, description="Questions asked")
    documents = dy.Int64(min=1, description="Documents among which the answer is looked for")
    recall_1 = _score("Share of the relevant documents that come first")
    recall_1_low = _score(_LOW)
    recall_1_high = _score(_HIGH)
    recall_4 = _score("Share of the relevant documents among the first 4, as many as a question has contexts")
    recall_4_low = _score(_LOW)
    recall_4_high = _score(_HIGH)
    recall_10 = _score("Share of the relevant documents among the first 10")
    recall_10_low = _score(_LOW)
    recall_10_high = _score(_HIGH)
    mrr_10 = _score("1 / rank of the first relevant document, 0 beyond the first 10")
    mrr_10_low = _score(_LOW)
    mrr_10_high = _score(_HIGH)
    ndcg_10 = _score("Discounted gain of the first 10, of the highest possible one")
    ndcg_10_low = _score(_LOW)
    ndcg_10_high = _score(_HIGH)


class EvaluatorAudit(dy.Schema):
    """How often a judge prefers a document's real question to one that was asked of another document."""

    judge = dy.String(primary_key=True, description="What judged, with its settings")
    mode = dy.String(nullable=True, description="Formula of a cold start; null: another judge")
    measure = dy.String(nullable=True, description="Similarity of two descriptors; null: another judge")
    ic_source = dy.String(nullable=True, description="Its information content; null: another judge")
    source = one_of(
        AUDIT_SOURCES, primary_key=True, description="Documents: PubMedQA's, or those whose title asks"
    )
    distractor = one_of(
        DISTRACTORS, primary_key=True, description="Home branch of the document the other question is of"
    )
    trials = dy.Int64(min=0, description="Documents with such another question")
    undecided = dy.Int64(min=0, description="Trials in which neither was preferred; they count as wrong")
    accuracy = dy.Float64(nullable=True, description="Share of trials won by the real question")
    low = dy.Float64(nullable=True, description="Lower end of its 95% interval (Wilson)")
    high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
