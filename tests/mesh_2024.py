"""The real MeSH release of 2024, read once for all tests."""

from functools import cache
from pathlib import Path

import polars as pl

from mkailin_assets.mesh.descriptors import read_descriptors
from mkailin_assets.mesh.hierarchy import MeshHierarchy


@cache
def descriptors(real_data: Path) -> pl.DataFrame:
    """Table MeshDescriptor."""
    path = real_data / "nlm/projects/mesh/MESH_FILES/xmlmesh/desc2024.gz"
    return read_descriptors(path, path.name, 2024)


@cache
def tree(real_data: Path) -> MeshHierarchy:
    """Its hierarchy."""
    return MeshHierarchy.from_descriptors(descriptors(real_data))
