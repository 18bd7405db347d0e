"""The assets of the platform, in the order data flows."""

# Materialized by hand, and by no run of the whole lineage.
BY_HAND = ["mesh_migration", "citation_moves", "ablated_corpus", "ablated_checkpoint", "ablation_report"]

LINEAGE = [
    "mesh_release",
    "mesh_descriptors",
    "mesh_information_content",
    "raw_pubmed",
    "pubmed_citations",
    "current_citations",
    "quarantined_records",
    "branch_citations",
    "retriever_checkpoint",
    "context_index",
    "question_exemplars",
    "domain_generator",
    "general_generator",
    "candidate_questions",
    "candidate_contexts",
    "cold_start_preferences",
    "evaluator_checkpoint",
    "question_preferences",
    "preferred_generator",
    "question_champion",
    "distilled_questions",
    "distilled_contexts",
    "generated_qa",
    "evaluated_qa",
    "training_corpus",
    "corpus_exclusions",
    "corpus_recalls",
    "corpus_lengths",
    "mesh_coverage",
    "coverage_gaps",
    "corpus_release",
    "release_recalls",
    "retrieval_report",
    "evaluator_audit",
    "pretrained_checkpoint",
    "finetuned_checkpoint",
    "benchmark_answers",
    "benchmark_report",
    "benchmark_comparisons",
]

# Those of them that are partitioned by MeSH branch.
BRANCH_TABLES = [
    "branch_citations",
    "candidate_questions",
    "candidate_contexts",
    "cold_start_preferences",
    "question_preferences",
    "distilled_questions",
    "distilled_contexts",
    "generated_qa",
    "evaluated_qa",
]
