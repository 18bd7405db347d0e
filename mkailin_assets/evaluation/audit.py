"""Audit of the evaluators on documents whose real question is known.

How often does an evaluator prefer the real question to one that was asked of another document, of another
MeSH branch and of the same? The documents are PubMedQA's, whose headings are given by name, and citations of
the corpus whose title is a question. Contexts are searched for as those of candidate questions are: among the
corpus and these documents, the one in question left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from mkailin_assets.corpus.draws import pmid_hash
from mkailin_assets.evaluation.judgements import JudgedSet, question_titles, source_abstracts
from mkailin_assets.evaluation.pubmedqa import Benchmark
from mkailin_assets.evaluation.tables import AUDIT_SOURCES, DISTRACTORS, EvaluatorAudit
from mkailin_assets.intervals import accuracy
from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.mesh.similarity import MEASURES
from mkailin_assets.preferences.agreement import preferred_by_score
from mkailin_assets.preferences.cold_start import ColdStartRules, question_scores, similarity_of
from mkailin_assets.preferences.evaluating import Judge
from mkailin_assets.pubmed.home_branch import HomeBranches
from mkailin_assets.questions.candidates import normalised
from mkailin_assets.questions.contexts import find_contexts
from mkailin_resources.searcher import Searcher

OWN = "own"
SAME_BRANCH = DISTRACTORS[1]
NO_BRANCH = "it has no heading with a place in the hierarchy, and so no branch"
_TRIAL = {
    "pmid": pl.Int64,
    "distractor": pl.String,
    "branch": pl.String,
    "own_question": pl.String,
    "other_pmid": pl.Int64,
    "other_question": pl.String,
    "reason": pl.String,
}


@dataclass(frozen=True)
class Judgement:
    """What a judge said of trials; `rules` are those of a cold start, None for another judge.

    `verdicts`: pmid, distractor, and preferred: "first" (the own question), "second", or null for neither.
    """

    judge: str
    verdicts: pl.DataFrame
    rules: ColdStartRules | None = None


def audited_sets(
    benchmark: Benchmark, citations: pl.DataFrame, hierarchy: MeshHierarchy, tuned: bool
) -> dict[str, JudgedSet]:
    """By source, "pubmedqa" and "title", all documents with headings and home branch, and the questions.

    `citations` is what `judgements.sample_of` gives; `tuned` as in `question_titles`: whether an encoder or
    an evaluator was trained on the corpus. PubMedQA names no major topics: any heading may decide the branch.
    """
    headings = pl.Series([list(item.headings) for item in benchmark], dtype=pl.List(pl.String))
    by_name = pl.struct(ui=pl.lit(None, pl.String), name=pl.element(), major=pl.lit(False))
    homes = HomeBranches(hierarchy).of(headings.list.eval(by_name))
    items = homes.select("home_branch", pmid=pl.Series([item.pmid for item in benchmark]), names=headings)
    judged = source_abstracts(benchmark, citations)
    documents = judged.documents.join(items, on="pmid", how="left", maintain_order="left").with_columns(
        heading_uis=pl.coalesce("names", "heading_uis"), branch=pl.coalesce("home_branch", "branch")
    )
    pubmedqa = replace(judged, documents=documents.select(judged.documents.columns))
    return dict(zip(AUDIT_SOURCES, (pubmedqa, question_titles(citations, tuned)), strict=True))


def trials_of(judged: JudgedSet, seed: int) -> pl.DataFrame:
    """For each document with a question, by PMID, its own against one of another branch and of the same.

    Columns pmid, distractor ("other branch" or "same branch"), branch, own_question, other_pmid,
    other_question, and the reason why it is no trial, null if it is one. A question stands against the next
    suitable one in an order that PMIDs and `seed` decide; one that asks the same is passed over.
    """
    branches = dict(judged.documents.select("pmid", "branch").iter_rows())
    asked = {pmid: normalised(question).casefold() for pmid, question in judged.questions.items()}
    placed = [pmid for pmid in asked if branches[pmid]]
    order = sorted(placed, key=lambda pmid: pmid_hash(pmid, f"audit {seed}"))
    others = {
        (pmid, distractor): next(
            (
                other
                for other in (*order[place + 1 :], *order[:place])
                if (branches[other] == branches[pmid]) == (distractor == SAME_BRANCH)
                and asked[other] != asked[pmid]
            ),
            None,
        )
        for place, pmid in enumerate(order)
        for distractor in DISTRACTORS
    }
    rows = [
        {
            "pmid": pmid,
            "distractor": distractor,
            "branch": branches[pmid],
            "own_question": judged.questions[pmid],
            "other_pmid": (other := others.get((pmid, distractor))),
            "other_question": other and judged.questions[other],
            "reason": _no_trial(branches[pmid], distractor, other),
        }
        for pmid in sorted(asked)
        for distractor in DISTRACTORS
    ]
    return pl.DataFrame(rows, schema=_TRIAL)


def trial_contexts(trials: pl.DataFrame, judged: JudgedSet, searcher: Searcher, k: int) -> pl.DataFrame:
    """The k best contexts of each question of `trials_of`, for the document of its trial.

    The columns of CandidateContexts; the role is "own" or the distractor. `searcher` searches the documents
    (`ContextStore.over`).
    """
    of_trials = trials.filter(pl.col("reason").is_null())
    own = of_trials.select("pmid", "branch", question="own_question", role=pl.lit(OWN)).unique(
        "pmid", keep="first"
    )
    other = of_trials.select("pmid", "branch", question="other_question", role="distractor")
    questions = pl.concat([own, other]).sort("pmid", "role").with_columns(failure=pl.lit(None, pl.String))
    asked = judged.documents.filter(pl.col("pmid").is_in(own["pmid"].implode()))
    keys = pl.col("heading_uis").list.eval(pl.struct(ui=pl.element(), name=pl.element()))
    return find_contexts(questions, asked.select("pmid", headings=keys), searcher, k)


def pairs_to_judge(
    trials: pl.DataFrame, distractor: str, contexts: pl.DataFrame, documents: pl.DataFrame
) -> pl.DataFrame:
    """The trials with this distractor as `evaluating.Judge` takes them, the own question first.

    pmid, title, abstract, and of both questions the text and the titles of their contexts. `contexts` is what
    `trial_contexts` gave; a document whose title is the question has none.
    """
    titles = dict(documents.select("pmid", "title").iter_rows())

    def of(found: pl.Series) -> list[str]:
        return [titles[pmid] for pmid in found.struct.field("pmid") if titles[pmid]]

    shown = contexts.select(
        "pmid", "role", titles=pl.col("contexts").map_elements(of, return_dtype=pl.List(pl.String))
    )
    first, second = (
        shown.filter(role=role).select("pmid", pl.col("titles").alias(f"{place}_context_titles"))
        for place, role in (("first", OWN), ("second", distractor))
    )
    text = pl.col("text").str.slice(pl.col("title").str.len_chars() + 1)
    section = pl.struct(label=pl.lit(None, pl.String), category=pl.lit(None, pl.String), text=text)
    return (
        trials.filter(pl.col("reason").is_null(), distractor=distractor)
        .select("pmid", "branch", first_question="own_question", second_question="other_question")
        .join(documents.select("pmid", "title", abstract=pl.concat_list(section)), on="pmid", validate="1:1")
        .join(first, on="pmid", validate="1:1")
        .join(second, on="pmid", validate="1:1")
        .sort("pmid")
    )


def verdicts_by_score(trials: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """The verdicts of a judge that gives scores: pmid, role ("own" or a distractor) and score.

    The higher score is preferred, any score to none; neither where they are equal or both are missing.
    """
    own = scores.filter(role=OWN).select("pmid", own="score")
    other = scores.filter(pl.col("role") != OWN).select("pmid", distractor="role", other="score")
    both = (
        trials.filter(pl.col("reason").is_null())
        .select("pmid", "distractor")
        .join(own, on="pmid", how="left", validate="m:1")
        .join(other, on=["pmid", "distractor"], how="left", validate="1:1", maintain_order="left")
    )
    return both.select("pmid", "distractor", preferred=preferred_by_score(both["own"], both["other"]))


def cold_start_judgements(
    trials: pl.DataFrame,
    contexts: pl.DataFrame,
    hierarchy: MeshHierarchy,
    information_content: pl.DataFrame,
    rules: ColdStartRules,
) -> list[Judgement]:
    """What the cold start prefers: by these rules, by each other measure and IC, and in the other modes."""
    made = []
    for one in _variants(rules):
        similarity = similarity_of(hierarchy, information_content, one)
        verdicts = verdicts_by_score(trials, question_scores(contexts, similarity))
        made.append(Judgement(f"cold start: {_wording(one)}", verdicts, one))
    return made


def judgement_of(
    name: str, judge: Judge, trials: pl.DataFrame, contexts: pl.DataFrame, documents: pl.DataFrame
) -> Judgement:
    """What an evaluator prefers that judges pairs; `contexts` is what `trial_contexts` gave."""
    told = [
        judge(pairs_to_judge(trials, distractor, contexts, documents)).select(
            "pmid", "preferred", distractor=pl.lit(distractor)
        )
        for distractor in DISTRACTORS
    ]
    return Judgement(name, pl.concat(told))


def evaluator_audit(source: str, trials: pl.DataFrame, judgements: Iterable[Judgement]) -> pl.DataFrame:
    """Table EvaluatorAudit: for each judge the trials of either distractor.

    An undecided trial is not a right one: the accuracy is the share of all trials in which the own question
    is preferred, null where there are no trials.
    """
    valid = trials.filter(pl.col("reason").is_null()).select("pmid", "distractor")
    rows = []
    for judgement in judgements:
        told = valid.join(judgement.verdicts, on=["pmid", "distractor"], how="left", validate="1:1")
        about: dict[str, Any] = judgement.rules.scored_by if judgement.rules else {}
        for distractor in DISTRACTORS:
            preferred = told.filter(distractor=distractor)["preferred"]
            rows.append(
                {name: about.get(name) for name in ("mode", "measure", "ic_source")}
                | {"judge": judgement.judge, "source": source, "distractor": distractor}
                | {"trials": len(preferred), "undecided": preferred.null_count()}
                | _share(preferred.fill_null("neither").to_list())
            )
    return pl.DataFrame(rows, schema=EvaluatorAudit.create_empty().schema)


def _no_trial(branch: str | None, distractor: str, other: int | None) -> str | None:
    if branch is None:
        return NO_BRANCH
    which = "the same" if distractor == SAME_BRANCH else "another"
    return None if other else f"no document of {which} branch asks something else"


def _variants(rules: ColdStartRules) -> list[ColdStartRules]:
    """These rules first, each other once."""
    alone = rules.model_copy(update={"mode": "corrected", "mention_weight": 0.0})
    mixed = [
        rules.model_copy(update={"mode": "corrected", "measure": measure, "ic_source": source})
        for source in ("corpus", "intrinsic")
        for measure in MEASURES
    ]
    compat = rules.model_copy(update={"mode": "kailin_compat"})
    return list({_wording(one): one for one in (rules, *mixed, alone, compat)}.values())


def _wording(rules: ColdStartRules) -> str:
    if rules.mode == "kailin_compat":
        return rules.mode
    return f"{rules.measure}, {rules.ic_source}" + ("" if rules.mention_weight else ", contexts alone")


def _share(preferred: Sequence[str]) -> dict[str, float | None]:
    if not preferred:
        return dict.fromkeys(("accuracy", "low", "high"))
    share = accuracy(["first"] * len(preferred), preferred)
    return {"accuracy": share.value, "low": share.low, "high": share.high}
