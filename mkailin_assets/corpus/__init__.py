"""Corpus: answers, their quality, and what goes into training."""
