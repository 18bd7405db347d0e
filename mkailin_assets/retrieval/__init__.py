"""Retrieval: the encoder and the searchable index over all current citations."""
