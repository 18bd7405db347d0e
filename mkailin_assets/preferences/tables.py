"""Tables of the preferences stage."""

from typing import get_args

import dataframely as dy

from mkailin_assets.questions.tables import TrainedGenerator
from mkailin_assets.tables import one_of
from mkailin_resources.trainees import EvaluatorKind

COLD_START = "cold start"
EVALUATOR_KINDS: tuple[str, ...] = get_args(EvaluatorKind)


class ColdStartPreference(dy.Schema):
    """Of each citation's two questions, the one whose contexts fit the citation best in MeSH."""

    pmid = dy.Int64(primary_key=True, min=1, description="Source citation")
    branch = dy.String(description="Home branch of the source")
    chosen_role = dy.String(nullable=True, description="Generator of the chosen question")
    chosen_question = dy.String(nullable=True, description="The chosen question")
    chosen_score = dy.Float64(nullable=True, description="Its MeSH score, 0 to 1; null: not scorable")
    rejected_role = dy.String(nullable=True, description="Generator of the rejected question")
    rejected_question = dy.String(nullable=True, description="The rejected question")
    rejected_score = dy.Float64(nullable=True, description="Its MeSH score")
    margin = dy.Float64(nullable=True, description="Chosen minus rejected score")
    kept = dy.Bool(description="Whether the pair is a preference to learn from")
    reason = dy.String(nullable=True, description="Why a pair is not kept")
    mode = dy.String(description="Formula of the scores: corrected or kailin_compat")
    measure = dy.String(description="lin, resnik, jiang_conrath or rel; kailin: that formula's own mix")
    ic_source = dy.String(description="Information content: corpus or intrinsic; kailin: its own")
    mention_weight = dy.Float64(
        min=0, description="As how many contexts the headings counted that a question names"
    )
    ic_snapshot = dy.String(description="MeSH year and number of citations behind it")


class EvaluatorCheckpoint(dy.Schema):
    """The evaluator: what judges two questions, how far it can be trusted, and whether it does. One row."""

    kind = one_of(
        EVALUATOR_KINDS, description="reward: learned; judge: a language model; cold_start: neither"
    )
    evaluator = dy.String(description="What rows call it")
    fingerprint = dy.String(nullable=True, description="Hash of base, data, settings, seed and code")
    uri = dy.String(nullable=True, description="Folder of a learned one: weights, training.json")
    pairs = dy.Int64(min=0, description="Cold-start preferences it was trained on")
    held_out_pairs = dy.Int64(min=0, description="Held-out preferences it was measured on")
    agreement = dy.Float64(nullable=True, description="Share of those it decides as the cold start does")
    agreement_low = dy.Float64(nullable=True, description="Lower end of its 95% interval")
    agreement_high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
    by_role = dy.Float64(
        nullable=True, description="Agreement of who always prefers the generator that wins more often"
    )
    calibration_error = dy.Float64(nullable=True, description="Expected calibration error of a learned one")
    position_bias = dy.Float64(nullable=True, description="Share of verdicts that change with the order")
    trials = dy.Int64(min=0, description="Trials: a citation's own question against another citation's")
    identified = dy.Float64(nullable=True, description="Share in which it prefers the own question")
    cold_start_identified = dy.Float64(nullable=True, description="Share in which the cold start does")
    lead = dy.Float64(nullable=True, description="Its lead over the cold start, trial by trial")
    lead_low = dy.Float64(nullable=True, description="Lower end of its 95% interval")
    lead_high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
    judges = dy.Bool(description="Whether it judges question_preferences; else the cold start does")
    reason = dy.String(description="Why, in words")


class QuestionPreference(ColdStartPreference):
    """Of each citation's two questions, the one that the evaluator, or else the cold start, prefers."""

    judge = dy.String(description="What judged the pair: the evaluator's name, or cold start")
    evaluator_margin = dy.Float64(nullable=True, description="Chosen minus rejected score of the evaluator")
    evaluator_reason = dy.String(nullable=True, description="Why the evaluator prefers neither")
    fingerprints = dy.List(dy.String(), description="Hashes of what decided a language model's verdicts")


class PreferredGenerator(TrainedGenerator):
    """The question generator after direct preference optimization (DPO), by round; round 0 is its start."""

    round = dy.Int64(primary_key=True, min=0, description="Round; each trains on the preferences of the last")
    pairs = dy.Int64(min=0, description="Preference pairs trained on")
    held_out_pairs = dy.Int64(min=0, description="Preference pairs measured on")
    steps = dy.Int64(min=0, description="Optimizer steps")
    first_loss = dy.Float64(nullable=True, description="Loss of the first logged step, nats a pair")
    last_loss = dy.Float64(nullable=True, description="Loss of the last logged step")
    reward_margin = dy.Float64(nullable=True, description="Mean reward margin on held-out pairs, in the end")
    reward_accuracy = dy.Float64(nullable=True, description="Share of held-out pairs it rewards rightly")
    documents = dy.Int64(min=0, description="Held-out citations it was tried on")
    score = dy.Float64(nullable=True, description="Mean MeSH score of its questions, 0 to 1")
    score_low = dy.Float64(nullable=True, description="Lower end of its 95% interval")
    score_high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
    lead = dy.Float64(nullable=True, description="Its lead over the start, citation by citation")
    lead_low = dy.Float64(nullable=True, description="Lower end of its 95% interval")
    lead_high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
    is_current = dy.Bool(description="Whether it is the preferred generator: the best that beats the start")


class QuestionChampion(TrainedGenerator):
    """Who asks the questions of the corpus: the contestants, their scores, and the champion."""

    contestant = dy.String(primary_key=True, description="best of two, or a trained generator")
    documents = dy.Int64(min=0, description="Held-out citations")
    questions = dy.Int64(min=0, description="Questions it asked of them")
    score = dy.Float64(nullable=True, description="Mean MeSH score, 0 to 1; no question counts 0")
    score_low = dy.Float64(nullable=True, description="Lower end of its 95% interval")
    score_high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
    lead = dy.Float64(nullable=True, description="Its lead over best of two, citation by citation")
    lead_low = dy.Float64(nullable=True, description="Lower end of its 95% interval")
    lead_high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
    is_champion = dy.Bool(description="Whether it asks")
