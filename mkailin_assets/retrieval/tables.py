"""Tables of the retrieval stage."""

import dataframely as dy

from mkailin_assets.tables import one_of


class RetrieverCheckpoint(dy.Schema):
    """The encoder that retrieval uses, fixed until it is materialized again. One row."""

    encoder = dy.String(description="corpus (learnt from the citations), or the name of a transformer")
    uri = dy.String(description="Checkpoint folder: encoder.json, and the weights that are ours")
    fingerprint = dy.String(description="Hash of weights, vocabulary and settings")
    dimension = dy.Int32(min=1, description="Length of a vector")
    trained_on = dy.Int64(
        min=0, description="Citations a learnt encoder was fitted on; pairs it was tuned on"
    )
    base_uri = dy.String(nullable=True, description="Checkpoint folder of what was tuned; null: nothing was")
    base_fingerprint = dy.String(nullable=True, description="Hash of what was tuned; null: nothing was")
    tuned_uri = dy.String(nullable=True, description="Checkpoint folder of what came of it, current or not")
    held_out_pairs = dy.Int64(nullable=True, min=1, description="Pairs tuned and base were compared on")
    base_mrr = dy.Float64(nullable=True, min=0, max=1, description="MRR@10 of the base on them")
    tuned_mrr = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="The same after tuning; if it is lower the base stays current",
    )


class ContextIndex(dy.Schema):
    """State of the searchable index after the last update that changed it. One row."""

    uri = dy.String(description="Folder of the LanceDB database")
    table_version = dy.Int64(description="LanceDB version of the table that searches read")
    encoder = dy.String(description="Encoder of questions and citations, as RetrieverCheckpoint names it")
    encoder_uri = dy.String(description="Checkpoint folder of the encoder")
    encoder_fingerprint = dy.String(description="Encoder whose vectors it holds")
    citations = dy.Int64(min=0, description="Citations it holds")
    without_vector = dy.Int64(min=0, description="Of these, found by their words alone: no sound vector")
    without_abstract = dy.Int64(min=0, description="Current citations left out: no abstract to find")
    added = dy.Int64(min=0, description="Citations this update added")
    replaced = dy.Int64(min=0, description="Citations this update replaced")
    removed = dy.Int64(min=0, description="Citations this update removed")


# Fine-tuning of the encoder.

PAIR_SOURCES = ("title", "statement", "conclusion")
PAIR_SPLITS = ("train", "held_out")


class RetrieverPair(dy.Schema):
    """A question and the text that an encoder is to find for it, from one citation."""

    pmid = dy.Int64(primary_key=True, min=1, description="Citation that both are from")
    pubmed_file = dy.String(description="File the citation came from")
    source = one_of(
        PAIR_SOURCES,
        primary_key=True,
        description="Where the question is from: title (it asks), statement (of the title), conclusion",
    )
    question = dy.String(nullable=True, description="The question; null where the rules found none")
    text = dy.String(description="Abstract without what the question is from: the title, or the claim")
    split = one_of(PAIR_SPLITS, description="train or held_out (a tenth), by a hash of the PMID")
    reason = dy.String(nullable=True, description="Why the pair is not used; null: it is")
