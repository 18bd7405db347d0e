"""The assets of the platform, in the order data flows."""

LINEAGE = [
    "mesh_release",
    "mesh_descriptors",
    "mesh_information_content",
    "raw_pubmed",
    "pubmed_citations",
    "current_citations",
    "branch_citations",
    "retriever_checkpoint",
    "context_index",
    "candidate_questions",
    "candidate_contexts",
    "cold_start_preferences",
    "generated_qa",
    "evaluated_qa",
    "training_corpus",
    "corpus_exclusions",
    "finetuned_checkpoint",
    "benchmark_report",
]
