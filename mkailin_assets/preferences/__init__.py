"""Preferences: which of two questions fits its citation better in the MeSH hierarchy."""
