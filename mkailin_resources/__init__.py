"""The world outside the graph: NLM's servers, storage, models, encoders, the index."""
