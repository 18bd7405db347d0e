"""Tables of the retrieval stage."""

import dataframely as dy


class RetrieverCheckpoint(dy.Schema):
    """The encoder that retrieval uses, fixed until it is materialized again. One row."""

    encoder = dy.String(description="corpus (learnt from the citations) or a sentence-transformers name")
    uri = dy.String(nullable=True, description="Folder of a learnt encoder; null for a named one")
    fingerprint = dy.String(description="Hash of weights, vocabulary and settings")
    dimension = dy.Int32(min=1, description="Length of a vector")
    trained_on = dy.Int64(min=0, description="Citations a learnt encoder was fitted on")


class ContextIndex(dy.Schema):
    """State of the searchable index after the last update that changed it. One row."""

    uri = dy.String(description="Folder of the LanceDB database")
    table_version = dy.Int64(description="LanceDB version of the table that searches read")
    encoder = dy.String(description="Encoder of questions and citations: corpus or a name")
    encoder_uri = dy.String(nullable=True, description="Folder of a learnt encoder; null for a named one")
    encoder_fingerprint = dy.String(description="Encoder whose vectors it holds")
    citations = dy.Int64(min=0, description="Citations it holds")
    without_abstract = dy.Int64(min=0, description="Current citations left out: no abstract to find")
    added = dy.Int64(min=0, description="Citations this update added")
    replaced = dy.Int64(min=0, description="Citations this update replaced")
    removed = dy.Int64(min=0, description="Citations this update removed")
