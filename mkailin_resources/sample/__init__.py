"""The sample that ships with the project: PubMed files, a MeSH excerpt and a benchmark.

Every title and abstract is invented. MeSH names, UIs and tree numbers are real, courtesy of the U.S.
National Library of Medicine. `python -m mkailin_resources.sample.make` rewrites it; see README.md.
"""

from pathlib import Path

NLM_FOLDER = Path(__file__).parent / "nlm"
"""Laid out as NLM's servers are: pubmed/baseline, pubmed/updatefiles, projects/mesh/MESH_FILES/xmlmesh."""

PUBMEDQA_FILE = Path(__file__).parent / "pubmedqa_sample.json"
"""A benchmark of invented questions in PubMedQA's format."""

MESH_YEAR = 2026
"""Year in the name of the sample's descriptor file."""
