"""Tables of the questions stage."""

import dataframely as dy

from mkailin_assets.pubmed.tables import abstract_sections
from mkailin_assets.tables import one_of

ROLES = ("domain", "general")
EXEMPLAR_SOURCES = ("bioasq", "title")


class QuestionExemplar(dy.Schema):
    """A document and a question that people asked of it, to tune question generators on.

    Where the title is the question, the document is the abstract without its conclusion.
    """

    exemplar_id = dy.String(primary_key=True, description="Hash of source, document and question")
    source = one_of(EXEMPLAR_SOURCES, description="bioasq: asked by experts; title: a title that asks")
    pmid = dy.Int64(nullable=True, min=1, description="Citation of the document, where it is known")
    pubmed_file = dy.String(nullable=True, description="File it came from; null: not in the corpus")
    title = dy.String(nullable=True, description="Title of the document; null where it is the question")
    abstract = abstract_sections()
    question = dy.String(description="The question")
    split = one_of(("train", "held_out"), description="Decided by the citation alone; never changes")
    reason = dy.String(nullable=True, description="Why it is not used; null: it is")


class CandidateQuestion(dy.Schema):
    """For each citation one question of each generator, or why there is none."""

    pmid = dy.Int64(primary_key=True, min=1, description="Source citation")
    role = one_of(ROLES, primary_key=True, description="Which generator: domain or general")
    branch = dy.String(description="Home branch of the source")
    pubmed_file = dy.String(description="File the source came from")
    content_hash = dy.String(description="Content of the source it was made from")
    question = dy.String(nullable=True, description="The question; null when generation failed")
    failure = dy.String(nullable=True, description="Why there is no question")
    refused_text = dy.String(nullable=True, description="What the model wrote, where it was refused")
    generator = dy.String(description="Model or agent that wrote it")
    prompt_version = dy.String(description="Version of the prompt, or of the agent's rules")
    fingerprint = dy.String(description="Hash of everything that decided the question")


class CandidateContexts(dy.Schema):
    """The k best contexts of each candidate question, the source itself left out."""

    pmid = dy.Int64(primary_key=True, min=1, description="Source citation")
    role = one_of(ROLES, primary_key=True, description="Which generator asked")
    branch = dy.String(description="Home branch of the source")
    question = dy.String(nullable=True, description="The question searched for")
    heading_uis = dy.List(dy.String(), description="Headings of the source: descriptor UIs, else names")
    contexts = dy.List(
        dy.Struct(
            {
                "rank": dy.Int32(min=1),
                "pmid": dy.Int64(),
                "content_hash": dy.String(),
                "score": dy.Float64(),
                "found_by": one_of(("dense", "lexical", "both")),
                "heading_uis": dy.List(dy.String()),
            }
        ),
        description="Best first: rank, PMID, content, fused score, retriever, descriptor UIs",
    )
    source_rank = dy.Int32(nullable=True, min=1, description="Rank of the source itself; null: not found")
    encoder = dy.String(nullable=True, description="Fingerprint of the encoder; null: nothing was searched")
    search_kind = dy.String(
        nullable=True,
        description="Retriever (dense, lexical or hybrid) with version, and filters; null as above",
    )
    failure = dy.String(nullable=True, description="Why there are no contexts")


class TrainedGenerator(dy.Schema):
    """Where a trained question generator lies, and what it is called; null throughout where there is none."""

    generator = dy.String(nullable=True, description="What rows call it: what was trained, and from what")
    fingerprint = dy.String(nullable=True, description="Hash of base, data, settings, seed and code")
    uri = dy.String(nullable=True, description="Folder: adapter, training.json, and the base if it is ours")
    base = dy.String(nullable=True, description="Base model; null: the small Llama in the folder")
    revision = dy.String(nullable=True, description="Commit of the base, or hash of its files")


class GeneratorCheckpoint(TrainedGenerator):
    """One of the two question generators: the tuned one, who asked before, and who asks now. One row."""

    role = one_of(ROLES, description="domain or general")
    asks = dy.String(description="Model or agent that asks in this role: the tuned one, or the start")
    start = dy.String(description="Model or agent that the settings name for the role")
    exemplars = dy.Int64(min=0, description="Exemplars trained on")
    steps = dy.Int64(min=0, description="Optimizer steps")
    first_loss = dy.Float64(nullable=True, description="Loss of the first logged step, nats a question token")
    last_loss = dy.Float64(nullable=True, description="Loss of the last logged step")
    held_out_loss = dy.Float64(nullable=True, description="Loss on held-out exemplars")
    documents = dy.Int64(min=0, description="Held-out citations both were tried on")
    start_score = dy.Float64(nullable=True, description="Mean MeSH score of the start's questions, 0 to 1")
    tuned_score = dy.Float64(nullable=True, description="Mean MeSH score of the tuned one's questions")
    lead = dy.Float64(nullable=True, description="Tuned minus start, citation by citation")
    lead_low = dy.Float64(nullable=True, description="Lower end of its 95% interval")
    lead_high = dy.Float64(nullable=True, description="Upper end of its 95% interval")
    reason = dy.String(nullable=True, description="Why the tuned one does not ask")
