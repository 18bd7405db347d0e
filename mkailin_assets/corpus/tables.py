"""Tables of the corpus stage."""

import dataframely as dy
import polars as pl

from mkailin_assets.questions.tables import ROLES, CandidateContexts
from mkailin_assets.tables import one_of

DECISIONS = ("yes", "no", "maybe")
SPLITS = ("train", "validation", "test")
USES = ("source", "context")
ENTAILMENTS = ("entailed", "neutral", "contradicted")
TEXT_FORMS = ("pretraining", "instruction")
# In this order: what evaluation refused is not looked at again.
STAGES = ("evaluation", "source", "contamination", "duplicate", "balance")
# Who may have asked a question of the corpus: the generator of one of the candidates, or the champion itself.
ASKERS = (*ROLES, "champion")
COVERAGE_LEVELS = ("branch", "subtree", "depth")


def kind_of(reason: str) -> pl.Expr:
    """A column of reasons without the text or citation that each is about."""
    return pl.col(reason).str.split(": ").list.first().str.replace(r"PMID \d+", "another PMID")


def citations_made_of() -> dy.List:
    """What a row was made of, so that it can be found when PubMed takes a part of it back."""
    return dy.List(
        dy.Struct({"use": one_of(USES), "pmid": dy.Int64(), "content_hash": dy.String()}),
        description="Citations it was made of, source first: source or context, PMID, content as it was read",
    )


class DistilledQuestion(dy.Schema):
    """For each citation the question that enters the corpus, or why there is none."""

    pmid = dy.Int64(primary_key=True, min=1, description="Source citation")
    branch = dy.String(description="Home branch of the source")
    pubmed_file = dy.String(description="File the source came from")
    content_hash = dy.String(description="Content of the source it was made from")
    question = dy.String(nullable=True, description="The question")
    role = one_of(ASKERS, nullable=True, description="Who asked: domain, general, or the champion itself")
    chosen_by = dy.String(nullable=True, description="What chose it: a judge of two, or champion")
    generator = dy.String(nullable=True, description="Model or agent that wrote it")
    prompt_version = dy.String(nullable=True, description="Version of the prompt, or of the agent's rules")
    fingerprint = dy.String(nullable=True, description="Hash of everything that decided the question")
    failure = dy.String(nullable=True, description="Why there is no question")
    refused_text = dy.String(nullable=True, description="What the champion wrote, where it was refused")


class DistilledContexts(CandidateContexts):
    """The k best contexts of each question of the corpus, the source left out, and how well they fit it."""

    pmid = dy.Int64(primary_key=True, min=1, description="Source citation")
    role = one_of(ASKERS, nullable=True, description="Who asked: domain, general, or the champion itself")
    mesh_score = dy.Float64(nullable=True, description="MeSH score of the contexts, 0 to 1")
    mesh_margin = dy.Float64(nullable=True, description="Lead over the other candidate; null: no other")


class GeneratedQA(dy.Schema):
    """For each citation with a question: contexts, long answer, decision and evidence."""

    pmid = dy.Int64(primary_key=True, min=1, description="Source citation")
    branch = dy.String(description="Home branch of the source")
    pubmed_file = dy.String(description="File the source came from")
    content_hash = dy.String(description="Content of the source it was made from")
    title = dy.String(nullable=True, description="Title of the source")
    question = dy.String(nullable=True, description="The chosen question")
    question_role = dy.String(nullable=True, description="Generator role that asked it")
    generator = dy.String(nullable=True, description="Model or agent that asked it")
    question_prompt_version = dy.String(nullable=True, description="Version of its prompt or rules")
    chosen_by = dy.String(nullable=True, description="What chose the question: a judge of two, or champion")
    source_context = dy.String(nullable=True, description="Abstract of the source without its conclusion")
    source_conclusion = dy.String(nullable=True, description="Conclusion of the abstract")
    contexts = dy.List(
        dy.Struct(
            {
                "rank": dy.Int32(),
                "pmid": dy.Int64(),
                "content_hash": dy.String(),
                "title": dy.String(),
                "text": dy.String(),
            }
        ),
        description="Retrieved contexts, best first: rank, PMID, content, title, abstract",
    )
    long_answer = dy.String(nullable=True, description="Answer in sentences")
    decision = one_of(DECISIONS, nullable=True, description="yes, no or maybe")
    evidence = dy.List(dy.String(), description="Sentences the answer rests on")
    answerer = dy.String(description="Model or agent that answered")
    prompt_version = dy.String(description="Version of the prompt, or of the agent's rules")
    fingerprint = dy.String(nullable=True, description="Hash of everything that decided the answer")
    failure = dy.String(nullable=True, description="Why there is no question or answer")
    refused_text = dy.String(nullable=True, description="What the model wrote, where it was refused")


class QualitySignals(dy.Schema):
    """What is measured of a question-answer pair; null where there is nothing to measure it on."""

    question_words = dy.Int32(description="Words in the question")
    answer_words = dy.Int32(description="Words in the long answer")
    answer_support = dy.Float64(
        nullable=True, min=0, max=1, description="Share of the answer's content words in its contexts"
    )
    question_support = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="Share of the question's content words in its contexts, the title left out",
    )
    title_overlap = dy.Float64(
        nullable=True, min=0, max=1, description="Jaccard similarity of question and title words"
    )
    copied_share = dy.Float64(
        nullable=True, min=0, max=1, description="Share of the answer's words in spans copied from contexts"
    )
    entailment = one_of(
        ENTAILMENTS, nullable=True, description="Whether its contexts entail the answer, as a model judges"
    )
    entailment_judge = dy.String(nullable=True, description="Model that judged it, and its prompt version")
    read_decision = one_of(DECISIONS, nullable=True, description="Decision that the long answer reads like")
    specificity = dy.Float64(
        nullable=True, min=0, max=1, description="Highest information content of the headings it names"
    )
    language = dy.String(nullable=True, description="Language of question and answer, ISO 639-1")
    reading_grade = dy.Float64(nullable=True, description="Flesch-Kincaid grade of the long answer")
    toxicity = dy.Float64(nullable=True, min=0, max=1, description="Probability of offensive wording")
    personal_data = dy.List(dy.String(), description="Kinds of personal data in question and answer")
    odd_characters = dy.Int32(
        description="Control, private, unassigned and pictographic characters in question and answer"
    )
    mesh_score = dy.Float64(nullable=True, description="MeSH score of the question's contexts")
    mesh_margin = dy.Float64(nullable=True, description="Lead over the rejected question")
    source_rank = dy.Int32(nullable=True, description="Rank at which the question finds its source")
    evaluator_margin = dy.Float64(
        nullable=True, description="Lead over the rejected question, as the evaluator scores them"
    )


class EvaluatedQA(GeneratedQA, QualitySignals):
    """Generated question-answer pairs with quality signals and a verdict."""

    entailment_fingerprint = dy.String(nullable=True, description="Hash of what decided the entailment")
    entailment_failure = dy.String(nullable=True, description="Why a model that was asked judged nothing")
    kept = dy.Bool(description="Whether the row may enter the training corpus")
    reasons = dy.List(dy.String(), description="Every reason a row is not kept")


class Example(dy.Schema):
    """What a model is trained on, and what it was made of."""

    example_id = dy.String(primary_key=True, description="Hash of PMID and question")
    example_hash = dy.String(description="Hash of all its texts")
    pmid = dy.Int64(min=1, description="Source citation")
    pubmed_file = dy.String(description="File the source came from")
    branch = dy.String(description="Home branch of the source")
    split = one_of(SPLITS, description="Decided by the PMID alone; never changes")
    question = dy.String(description="The question")
    context = dy.String(description="What the model reads beside the question")
    context_pmids = dy.List(dy.Int64(), description="Citations it was retrieved from, beside the source")
    made_of = citations_made_of()
    long_answer = dy.String(description="Answer in sentences")
    decision = one_of(DECISIONS, nullable=True, description="yes, no or maybe")
    pretraining_text = dy.String(description="Title, abstract, contexts, question: continued pre-training")
    messages = dy.List(
        dy.Struct({"role": dy.String(), "content": dy.String()}), description="Instruction pair, chat form"
    )
    generator = dy.String(description="Model or agent that asked")
    question_prompt_version = dy.String(nullable=True, description="Version of the asker's prompt or rules")
    chosen_by = dy.String(nullable=True, description="What chose the question: a judge of two, or champion")
    answerer = dy.String(description="Model or agent that answered")
    prompt_version = dy.String(description="Version of the answerer's prompt or rules")


class TrainingExample(Example, QualitySignals):
    """Rows to train on: deduplicated, decontaminated, balanced, split by source citation."""


class CorpusExclusion(dy.Schema):
    """Rows that evaluation or assembly kept out of training, each with its reason."""

    pmid = dy.Int64(primary_key=True, min=1, description="Source citation")
    branch = dy.String(primary_key=True, description="Branch the pair was made in")
    question = dy.String(nullable=True, description="The question, where there is one")
    stage = one_of(STAGES, description="What kept it out: the first of these that did")
    reason = dy.String(description="Why, in words")
    benchmark = dy.String(nullable=True, description="Benchmark that it would give away, if that is why")
    benchmark_item = dy.String(nullable=True, description="Item of the benchmark")
    evidence = dy.String(nullable=True, description="What they share: a PMID, a question, words in a row")


class CorpusLength(dy.Schema):
    """Tokens of the corpus' texts, and how many sequences they fill when they are packed."""

    form = one_of(TEXT_FORMS, primary_key=True, description="Texts to pre-train on, or instruction pairs")
    split = one_of(SPLITS, primary_key=True, description="Split")
    tokenizer = dy.String(description="Tokenizer they were counted with")
    examples = dy.Int64(min=0, description="Texts")
    tokens = dy.Int64(min=0, description="Tokens of all, with an end token each")
    longest = dy.Int64(min=0, description="Tokens of the longest")
    sequence_length = dy.Int64(min=1, description="Tokens of a packed sequence")
    longer = dy.Int64(min=0, description="Texts that are longer than a sequence")
    sequences = dy.Int64(min=0, description="Packed sequences")


class LedgerRow(dy.Schema):
    """What is remembered of a row of a published training corpus."""

    example_id = dy.String(primary_key=True, description="Key of the row")
    example_hash = dy.String(description="Hash of all its texts")
    pmid = dy.Int64(min=1, description="Source citation")
    branch = dy.String(description="Home branch of the source")
    split = one_of(SPLITS, description="Split of the row")
    question = dy.String(description="The question")
    made_of = citations_made_of()


class CorpusRecall(dy.Schema):
    """Rows of published training corpora that rest on what PubMed has since retracted, deleted or revised."""

    corpus = dy.String(primary_key=True, description="Fingerprint of the training corpus that held the row")
    example_id = dy.String(primary_key=True, description="Key of the row in it")
    pmid = dy.Int64(min=1, description="Source citation")
    branch = dy.String(description="Home branch of the source")
    split = one_of(SPLITS, description="Split of the row")
    question = dy.String(description="The question")
    cited_pmid = dy.Int64(primary_key=True, min=1, description="Citation that changed: source or context")
    reason = dy.String(primary_key=True, description="source or context retracted, deleted, revised since")
    pubmed_file = dy.String(nullable=True, description="File that said so; null if in none any longer")


class MeshCoverage(dy.Schema):
    """How the corpus covers the MeSH tree, beside PubMed itself: a row for each place in the tree.

    A branch counts the citations at home in it. A subtree and a depth are seen through headings: a descriptor
    has the citations annotated with it or a descendant, as `MeshInformationContent` counts them.
    """

    level = one_of(
        COVERAGE_LEVELS,
        primary_key=True,
        description="branch: C04; subtree: C04.588, a step below; depth: all descriptors so many steps down",
    )
    place = dy.String(primary_key=True, description="C04, C04.588, or the depth: 0 for the head of a branch")
    name = dy.String(
        nullable=True, description="Name of the branch or descriptor; null: a depth, or no known branch"
    )
    pubmed_citations = dy.Int64(
        min=0,
        description="branch: current citations with an abstract; subtree: citations under its head; "
        "depth: the citations under its descriptors added up, so that one counts for each it is under",
    )
    citations = dy.Int64(min=0, description="The same of the citations that the corpus was made of")
    examples = dy.Int64(nullable=True, min=0, description="Rows of the corpus; null but for a branch")
    share_of_pubmed = dy.Float64(
        min=0,
        description="Of all citations with a home (branch) or with headings (subtree); depth: of all depths",
    )
    share_of_corpus = dy.Float64(min=0, description="The same share of the citations of the corpus")
    ratio = dy.Float64(
        nullable=True, min=0, description="Share of the corpus over share of PubMed; null if PubMed has none"
    )
    descriptors = dy.Int64(min=0, description="Descriptors of the MeSH release that have a place here")
    pubmed_descriptors = dy.Int64(
        min=0, description="Of these, those that a citation of PubMed is annotated with, or with a descendant"
    )
    corpus_descriptors = dy.Int64(min=0, description="The same of the citations of the corpus")
    is_distilled = dy.Bool(
        nullable=True, description="Whether the branch has a table of evaluated pairs; null but for a branch"
    )
    fillable = dy.Int64(
        nullable=True,
        min=0,
        description="Current citations with an abstract at home here that the corpus lacks; null but for a "
        "branch",
    )
    untried = dy.Int64(
        nullable=True,
        min=0,
        description="Of these, those without an evaluated pair: what distilling the branch would add",
    )


class CoverageGap(dy.Schema):
    """Descriptors of which the corpus has at least one citation less than its size and PubMed's share say.

    Not check tags, nor a descriptor whose gap is that of descriptors right below it.
    """

    descriptor_ui = dy.String(primary_key=True, description="Unique identifier")
    name = dy.String(description="Preferred name")
    depth = dy.Int32(nullable=True, description="Shortest way down from a root; null without tree number")
    branches = dy.List(dy.String(), description="Branches it stands in")
    pubmed_citations = dy.Int64(
        min=0, description="Current citations annotated with it or a descendant, each once"
    )
    corpus_citations = dy.Int64(min=0, description="Those of them that the corpus was made of")
    expected = dy.Float64(min=0, description="Citations it would have in the corpus at its share of PubMed")
    missing = dy.Float64(min=1, description="Expected citations less those that there are")
    fillable = dy.Int64(
        min=0,
        description="Current citations annotated so, with an abstract, that the corpus lacks; only those of "
        "branches that are gathered",
    )
    home_branch = dy.String(
        nullable=True,
        description="Branch where most of these are at home; if there are none, a branch of the descriptor "
        "that has yet to be gathered",
    )
    pmids = dy.List(
        dy.Int64(), description="Up to ten of them: those never tried first, the newest of these first"
    )
