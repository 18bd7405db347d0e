"""MeSH: the release as NLM publishes it, its descriptors, and how much each one says."""
