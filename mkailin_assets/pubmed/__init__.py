"""PubMed: the files as NLM publishes them, their citations, and the latest state of each."""
