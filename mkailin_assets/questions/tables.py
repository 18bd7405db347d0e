"""Tables of the questions stage."""

import dataframely as dy

from mkailin_assets.tables import one_of

ROLES = ("domain", "general")


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
