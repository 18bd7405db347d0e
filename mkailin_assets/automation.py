"""The jobs a person launches from the UI, and that `make distill` runs in this order."""

import dagster as dg

mesh_job = dg.define_asset_job(
    "mesh",
    selection=dg.AssetSelection.assets("mesh_release", "mesh_descriptors"),
    description="Fetch and parse one year of MeSH.",
)
pubmed_file_job = dg.define_asset_job(
    "pubmed_file",
    selection=dg.AssetSelection.assets("raw_pubmed", "pubmed_citations"),
    description="Fetch and parse one PubMed file.",
)
resolve_job = dg.define_asset_job(
    "resolve",
    selection=dg.AssetSelection.assets(
        "current_citations", "mesh_information_content", "retriever_checkpoint", "context_index"
    ),
    description="Bring the state of every citation, information content and the index up to date.",
)
branch_text_job = dg.define_asset_job(
    "branch_text",
    selection=dg.AssetSelection.assets("branch_citations"),
    description="Gather the citations of MeSH branches, any number in one pass.",
)
distill_branch_job = dg.define_asset_job(
    "distill_branch",
    selection=dg.AssetSelection.assets(
        "candidate_questions",
        "candidate_contexts",
        "cold_start_preferences",
        "generated_qa",
        "evaluated_qa",
    ),
    description="From the citations of one MeSH branch to its evaluated question-answer pairs.",
)
learn_job = dg.define_asset_job(
    "learn",
    selection=dg.AssetSelection.assets(
        "training_corpus", "corpus_exclusions", "finetuned_checkpoint", "benchmark_report"
    ),
    description="Assemble the corpus over all branches, train on it, and measure.",
)

jobs = [mesh_job, pubmed_file_job, resolve_job, branch_text_job, distill_branch_job, learn_job]
