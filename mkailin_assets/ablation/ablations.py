"""The ablations: which agent each takes out, and what is asked of a citation without it.

Each changes one thing of how the corpus is made. What is learnt from it goes with it: without the choice
between two questions, or with a drawn one, there is nothing that a champion could be trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import polars as pl

from mkailin_assets.corpus import distilled
from mkailin_assets.corpus.draws import by_hash
from mkailin_assets.preferences.verdicts import by_evaluator

ALL_AGENTS, NO_DPO, NO_FILTER = "all_agents", "no_dpo", "no_evaluator_filter"
# What chance alone changes: the yardstick for what an agent does.
ANOTHER_SEED = "another_seed"
# In words: what a model of the name is trained without.
TAKEN_OUT = {
    ALL_AGENTS: "nothing: the training corpus itself",
    ANOTHER_SEED: "nothing: the same once more, by another seed",
    "one_generator": "the domain generator: the general one asks of every citation, and nothing is chosen",
    "no_retrieval": "retrieval: neither answers nor texts are made with contexts",
    "random_preference": "the preference of MeSH and evaluator: of two questions one is drawn",
    NO_DPO: "what was trained on the preferences: the preferred of two candidates is asked",
    NO_FILTER: "the verdict on pairs: every one with a question and an answer may enter",
}
ABLATIONS = tuple(TAKEN_OUT)
LEFT_TO_ASK = "general"
ONLY_ONE, DRAWN = "the only generator", "drawn at random"


@dataclass(frozen=True)
class Branch:
    """What a branch has of the citations that are trained on, as the tables of the same names."""

    citations: pl.DataFrame
    candidate_questions: pl.DataFrame
    candidate_contexts: pl.DataFrame
    question_preferences: pl.DataFrame
    distilled_questions: pl.DataFrame


@dataclass(frozen=True)
class Asked:
    """What is asked of each citation: DistilledQuestion, DistilledContexts, QuestionPreference."""

    questions: pl.DataFrame
    contexts: pl.DataFrame
    preferences: pl.DataFrame


def one_generator(branch: Branch) -> Asked:
    """The general generator's candidates, whatever was preferred."""
    of_general = pl.col("role") == LEFT_TO_ASK
    candidates = branch.candidate_questions.filter(of_general)
    preferences = only_of(branch.question_preferences, LEFT_TO_ASK)
    return preferred(replace(branch, candidate_questions=candidates, question_preferences=preferences))


def random_preference(branch: Branch) -> Asked:
    """One of the two candidates, drawn by a hash of the PMID; the other where only that was written."""
    return preferred(replace(branch, question_preferences=drawn(branch.question_preferences)))


def no_retrieval(branch: Branch) -> Asked:
    """The questions of the corpus without contexts: no signal speaks of contexts either."""
    questions, nothing = branch.distilled_questions, distilled.NOTHING_FOUND
    unscored = distilled.preferred_scores(branch.question_preferences).clear()
    contexts = distilled.distilled_contexts(questions, nothing, nothing, unscored)
    return Asked(questions, contexts, branch.question_preferences)


def preferred(branch: Branch) -> Asked:
    """The preferred of the two candidates, as it is asked where no trained generator is champion."""
    preferences = branch.question_preferences
    questions = distilled.best_of_two(preferences, branch.candidate_questions, branch.citations)
    scores = distilled.preferred_scores(preferences)
    contexts = distilled.distilled_contexts(
        questions, branch.candidate_contexts, distilled.NOTHING_FOUND, scores
    )
    return Asked(questions, contexts, preferences)


# What is asked instead; the others ask what is asked already.
ASK_ANEW: dict[str, Callable[[Branch], Asked]] = {
    "one_generator": one_generator,
    "no_retrieval": no_retrieval,
    "random_preference": random_preference,
    NO_DPO: preferred,
}


def only_of(preferences: pl.DataFrame, role: str) -> pl.DataFrame:
    """A `QuestionPreference` table that knows the questions of one generator alone."""

    def own(name: str) -> pl.Expr:
        return (
            pl.when(pl.col("chosen_role") == role)
            .then(f"chosen_{name}")
            .when(pl.col("rejected_role") == role)
            .then(f"rejected_{name}")
        )

    names = ("role", "question", "score")
    none = {name: pl.lit(None, preferences.schema[name]) for name in ("margin", "evaluator_margin")}
    none |= {f"rejected_{name}": pl.lit(None, preferences.schema[f"rejected_{name}"]) for name in names}
    chosen = {f"chosen_{name}": own(name) for name in names}
    return preferences.with_columns(**chosen, **none, judge=pl.lit(ONLY_ONE))


def drawn(preferences: pl.DataFrame) -> pl.DataFrame:
    """A `QuestionPreference` table whose choices are drawn, of citations with two questions.

    A coin is a hash of the PMID: the same at each run and on every machine.
    """
    two = preferences.drop_nulls(["chosen_question", "rejected_question"])
    heads = by_hash("coin") % 2 == 0
    is_first = heads == (pl.col("chosen_role") == LEFT_TO_ASK)
    coins = two.select(
        "pmid",
        preferred=pl.when(is_first).then(pl.lit("first")).otherwise(pl.lit("second")),
        difference=pl.lit(None, pl.Float64),
        reason=pl.lit(None, pl.String),
        fingerprints=pl.lit([], pl.List(pl.String)),
    )
    return by_evaluator(preferences, coins, DRAWN)
