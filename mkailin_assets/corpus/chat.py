"""How a question is put to the model that is trained, and asked of it again in evaluation.

Each is a template with a `{}` for every text, for `str.format` and `polars.format` alike.
"""

CONTEXT = "Context: {}\n\n"
QUESTION = "Question: {}\n\n"
DECIDE = "Answer yes, no or maybe, then explain."
EXPLAIN = "Answer in a few sentences."
DECIDED = "{}. {}"
