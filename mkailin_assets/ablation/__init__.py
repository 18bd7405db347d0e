"""The ablations: what each agent is worth, by corpora and models made without it."""
