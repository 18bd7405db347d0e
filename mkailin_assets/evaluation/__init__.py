"""Evaluation: whether the corpus helped, with intervals."""
