"""Training: checkpoints made from the corpus."""
