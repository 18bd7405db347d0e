"""Tables of the evaluation stage."""

import dataframely as dy

from mkailin_assets.tables import one_of

_LOW, _HIGH = "Lower end of the 95% interval", "Upper end of the 95% interval"
AUDIT_SOURCES = ("pubmedqa", "title")
DISTRACTORS = ("other branch", "same branch")
FORMS = ("likelihood", "generation", "baseline")
METRICS = ("accuracy", "macro_f1", "bits_per_byte")
RETRIEVERS = ("lexical", "dense", "hybrid", "tuned dense", "tuned hybrid")


def _score(what: str) -> dy.Float64:
    return dy.Float64(min=0, max=1, description=what)


class BenchmarkAnswer(dy.Schema):
    """What one model said to one item of one task, and whether it is right."""

    benchmark = dy.String(primary_key=True, description="Name of the benchmark file, or corpus")
    task = dy.String(primary_key=True, description="What was asked: a task file of the same name")
    form = one_of(
        FORMS,
        primary_key=True,
        description="likelihood: the likeliest answer; generation: what it wrote; baseline: no model",
    )
    model = dy.String(
        primary_key=True,
        description="base, pretrained, finetuned, the agent that answers, or random, majority, human",
    )
    item = dy.String(primary_key=True, description="Item of the benchmark: its PMID or id")
    gold = dy.String(nullable=True, description="Right answer: yes, no, maybe, or A to D; null: none to give")
    answer = dy.String(nullable=True, description="Answer of the model; null: it gave none")
    right = dy.Bool(nullable=True, description="Whether they are the same; null: there is nothing to choose")
    nats = dy.Float64(
        nullable=True, description="Negative log-likelihood of the item's text, where that is the task"
    )
    utf8_bytes = dy.Int64(nullable=True, min=0, description="UTF-8 bytes of that text")
    written = dy.String(nullable=True, description="What it wrote, where it wrote")
    failure = dy.String(nullable=True, description="Why it gave no answer")
    model_fingerprint = dy.String(nullable=True, description="What decides the model; null: a baseline")
    tokenizer_sha256 = dy.String(
        nullable=True, description="SHA-256 of its tokenizer and chat template; null: it has none"
    )
    task_fingerprint = dy.String(description="Hash of task file, items, prompts and harness")


class BenchmarkResult(dy.Schema):
    """A score of one model on one task, over all its items or a cohort of them, with its 95% interval."""

    benchmark = dy.String(primary_key=True, description="Name of the benchmark file, or corpus")
    task = dy.String(primary_key=True, description="What was asked")
    form = one_of(FORMS, primary_key=True, description="likelihood, generation, or baseline: no model")
    cohort = dy.String(
        primary_key=True, description="all, clean (not given away), a period, or a MeSH heading"
    )
    model = dy.String(primary_key=True, description="base, pretrained, finetuned, an agent or a baseline")
    metric = one_of(
        METRICS,
        primary_key=True,
        description="accuracy; macro_f1 of yes, no and maybe; bits_per_byte of a text, lower is better",
    )
    items = dy.Int64(min=1, description="Items asked")
    failures = dy.Int64(min=0, description="Items without an answer: wrong choices, texts left out")
    given_away = dy.Int64(min=0, description="Items that an example which was trained on gives away")
    value = dy.Float64(min=0, description="The score")
    low = dy.Float64(min=0, description=_LOW)
    high = dy.Float64(min=0, description=_HIGH)


class BenchmarkComparison(dy.Schema):
    """How far one model is ahead of another on the same items, with its 95% interval."""

    benchmark = dy.String(primary_key=True, description="Name of the benchmark file, or corpus")
    task = dy.String(primary_key=True, description="What was asked")
    form = one_of(FORMS, primary_key=True, description="likelihood or generation")
    cohort = dy.String(
        primary_key=True, description="all, clean (not given away), a period, or a MeSH heading"
    )
    metric = one_of(METRICS, primary_key=True, description="accuracy, macro_f1 or bits_per_byte")
    model = dy.String(primary_key=True, description="Whose lead it is")
    other = dy.String(primary_key=True, description="Over whom")
    items = dy.Int64(min=1, description="Items that both were asked")
    difference = dy.Float64(description="Score of the model minus that of the other")
    low = dy.Float64(description="Lower end of its 95% interval, paired bootstrap over the items")
    high = dy.Float64(description=_HIGH)
    better = dy.Bool(nullable=True, description="Whether it is better by more than chance; null: neither is")
    mcnemar = dy.Float64(
        nullable=True, min=0, max=1, description="p of McNemar's exact test; null: not an accuracy"
    )


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
