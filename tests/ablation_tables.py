"""A small corpus and all that it was made of, for tests of what is made without one of the agents."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from asking import Writer, unpaid
from corpus_tables import TOPICS

from mkailin_assets.ablation.corpora import Agents, Lineage
from mkailin_assets.corpus import distilled
from mkailin_assets.corpus.answers import generated_qa
from mkailin_assets.corpus.assembly import CorpusRules, assemble, examples
from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.corpus.draws import split_of
from mkailin_assets.corpus.entailment import entailments
from mkailin_assets.corpus.quality import QualityRules, evaluate
from mkailin_assets.corpus.tables import DistilledQuestion, TrainingExample
from mkailin_assets.preferences.tables import QuestionPreference
from mkailin_assets.pubmed.tables import BranchCitation, CurrentCitation
from mkailin_assets.questions.tables import CandidateContexts, CandidateQuestion
from mkailin_resources.models.interface import GenerationRequest, GenerationResult

BRANCHES = ("C04", "F03")
TRAIN = [pmid for pmid in range(1, 200) if split_of(pmid) == "train"][:24]
HELD_OUT = [pmid for pmid in range(1, 200) if split_of(pmid) != "train"][:6]
PMIDS = sorted([*TRAIN, *HELD_OUT])
# Texts and questions are alike but for their numbers; what is asked of them is another matter.
CORPUS_RULES = CorpusRules(min_duplicate_similarity=0.9, max_decision_share=1)
QUALITY_RULES = QualityRules(min_question_support=None, min_answer_support=None, max_source_rank=50)
NOBODY = benchmark_questions([])
CITED = {"domain": 50_000, "general": 60_000, "champion": 70_000}
Questions = Mapping[tuple[int, str], str | None]


def branch_of(pmid: int) -> str:
    return BRANCHES[pmid % 2]


def asked_of(pmid: int, role: str) -> str:
    return f"Did the {role} reader of trial {pmid * 7919} see that {TOPICS[pmid % len(TOPICS)]}?"


def table(schema: Any, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    empty = dict.fromkeys(schema.create_empty().columns)
    return pl.DataFrame([empty | row for row in rows], schema=schema.create_empty().schema)


def citation(pmid: int) -> dict[str, Any]:
    topic, trial = TOPICS[pmid % len(TOPICS)], pmid * 7919
    texts = {"RESULTS": f"We counted {trial} and {topic}.", "CONCLUSIONS": f"In trial {trial} {topic}."}
    sections = [{"label": label, "category": label, "text": text} for label, text in texts.items()]
    made = {"pubmed_file": "f", "content_hash": f"h{pmid}", "headings": [], "publication_types": []}
    return made | {"pmid": pmid, "branch": branch_of(pmid), "title": f"Trial {pmid}", "abstract": sections}


def candidate(pmid: int, role: str, question: str | None) -> dict[str, Any]:
    made = {"pmid": pmid, "role": role, "branch": branch_of(pmid), "question": question}
    made |= {"generator": f"the {role} one", "prompt_version": "1", "fingerprint": f"{role} {pmid}"}
    failure = None if question else f"the {role} one saw no claim"
    return made | {"pubmed_file": "f", "content_hash": f"h{pmid}", "failure": failure}


def found_for(pmid: int, role: str, question: str | None) -> dict[str, Any]:
    cited = CITED[role] + pmid
    context = {"rank": 1, "pmid": cited, "content_hash": f"h{cited}", "score": 1.0, "found_by": "both"}
    made = {"pmid": pmid, "role": role, "branch": branch_of(pmid), "question": question, "heading_uis": []}
    contexts = [context | {"heading_uis": []}] if question else []
    return made | {"contexts": contexts, "source_rank": 2, "encoder": "e", "search_kind": "lexical"}


def preference(pmid: int, questions: Questions) -> dict[str, Any]:
    """The domain generator's question, where it wrote one."""
    wrote = [role for role in ("domain", "general") if questions[pmid, role]]
    row: dict[str, Any] = {"pmid": pmid, "branch": branch_of(pmid), "judge": "an evaluator"}
    row |= {"margin": 0.5, "evaluator_margin": 2.0, "fingerprints": []} if len(wrote) == 2 else {}
    for verdict, role, score in zip(("chosen", "rejected"), wrote, (0.75, 0.25), strict=False):
        named = {"role": role, "question": questions[pmid, role], "score": score}
        row |= {f"{verdict}_{name}": value for name, value in named.items()}
    return row


def answer(request: GenerationRequest) -> GenerationResult:
    """The conclusion, and how many contexts were read beside it."""
    said = request.document.sections[-1].text
    told = f"{said[:-1]}, beside {len(request.contexts)} more."
    written = {"long_answer": told, "decision": "yes", "evidence": [said]}
    return GenerationResult(request.key, text=json.dumps(written), tokens_in=1, tokens_out=1)


def texts_of(pmids: pl.Series) -> pl.DataFrame:
    rows = [{"pmid": pmid, "title": f"Of {pmid}.", "text": f"Number {pmid} agrees."} for pmid in pmids]
    return pl.DataFrame(rows, schema={"pmid": pl.Int64, "title": pl.String, "text": pl.String})


def agents(answerer: Writer, ask: Any = unpaid) -> Agents:
    return Agents(answerer, None, lambda asked: [None] * len(asked), QUALITY_RULES, texts_of, ask)


AGENTS = agents(Writer(answer))


def current() -> pl.DataFrame:
    cited = [(pmid, branch_of(pmid)) for pmid in PMIDS]
    cited += [(base + pmid, None) for pmid in PMIDS for base in CITED.values()]
    rows = [{"pmid": pmid, "home_branch": home, "content_hash": f"h{pmid}"} for pmid, home in cited]
    return table(CurrentCitation, [row | {"state": "current"} for row in rows])


def lineage(
    questions: Questions | None = None,
    champion: Sequence[int] = (),
    agents: Agents = AGENTS,
    benchmark: pl.DataFrame = NOBODY,
) -> Lineage:
    """A corpus and what it was made of; of the citations `champion` a trained one asked."""
    asked = {(pmid, role): asked_of(pmid, role) for pmid in PMIDS for role in CITED} | dict(questions or {})
    tables: dict[str, dict[str, pl.LazyFrame]] = {}
    for branch in BRANCHES:
        pmids = [pmid for pmid in PMIDS if branch_of(pmid) == branch]
        keys = [(pmid, role) for pmid in pmids for role in ("domain", "general")]
        citations = table(BranchCitation, [citation(pmid) for pmid in pmids])
        candidates = table(CandidateQuestion, [candidate(*key, asked[key]) for key in keys])
        found = table(CandidateContexts, [found_for(*key, asked[key]) for key in keys])
        preferences = table(QuestionPreference, [preference(pmid, asked) for pmid in pmids])
        of_two = distilled.best_of_two(preferences, candidates, citations)
        own = [candidate(pmid, "champion", asked[pmid, "champion"]) for pmid in pmids if pmid in champion]
        by_champion = table(DistilledQuestion, [row | {"chosen_by": "champion"} for row in own])
        chosen = pl.concat([of_two.join(by_champion, on="pmid", how="anti"), by_champion]).sort("pmid")
        searched = table(
            CandidateContexts, [found_for(row["pmid"], "champion", row["question"]) for row in own]
        )
        scores = distilled.preferred_scores(preferences)
        contexts = distilled.distilled_contexts(chosen, found, searched, scores)
        texts = texts_of(contexts["contexts"].explode(empty_as_null=False).struct.field("pmid"))
        pairs = generated_qa(chosen, contexts, citations, texts, agents.answerer, branch, agents.ask)
        judged = entailments(pairs, None, agents.ask)
        evaluated = evaluate(pairs, contexts, preferences, judged, agents.specificity, QUALITY_RULES)
        made = (citations, candidates, found, preferences, chosen, evaluated)
        for name, rows in zip(Lineage.__dataclass_fields__, made, strict=False):
            tables.setdefault(name, {})[branch] = rows.lazy()
    kept = assemble(tables["evaluated_qa"], current(), benchmark, CORPUS_RULES).kept
    corpus = examples(tables["evaluated_qa"], kept, CORPUS_RULES)
    return Lineage(**tables, training_corpus=pl.concat([TrainingExample.create_empty(), *corpus]).lazy())
