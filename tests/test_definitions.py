"""The code location as a whole: it loads light, and every table is described, checked and partitioned."""

import os
import subprocess
import sys

import dagster as dg
import pytest
from lineage import BY_HAND, LINEAGE

from mkailin_assets.definitions import definitions
from mkailin_assets.partitions import MESH_BRANCH_NAMES
from mkailin_resources.profiles import InvalidSetting, Settings


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return definitions(Settings.from_environment({"MKAILIN_NLM_URL": "sample"}))


def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_the_lineage_is_whole(defs: dg.Definitions) -> None:
    assert sorted(specs(defs)) == sorted([*LINEAGE, *BY_HAND])
    dg.Definitions.validate_loadable(defs)


def test_every_asset_says_what_it_holds(defs: dg.Definitions) -> None:
    for name, spec in specs(defs).items():
        assert spec.description, name
        assert spec.group_name != "default", name
        assert spec.kinds, name
        assert spec.owners, name
        assert spec.code_version, name
        columns = spec.metadata["dagster/column_schema"].columns
        assert columns, name
        assert all(column.description for column in columns), name


def test_every_table_has_a_check(defs: dg.Definitions) -> None:
    checked = {key.asset_key.to_user_string() for key in defs.resolve_asset_graph().asset_check_keys}
    assert checked == {*LINEAGE, *BY_HAND}


def test_every_asset_belongs_to_a_job(defs: dg.Definitions) -> None:
    covered = {
        key.to_user_string()
        for job in defs.resolve_all_job_defs()
        if job.name != "__ASSET_JOB"
        for key in job.asset_layer.selected_asset_keys
    }
    assert covered == {*LINEAGE, *BY_HAND}


def test_there_is_a_partition_for_each_mesh_branch(defs: dg.Definitions) -> None:
    partitions = defs.resolve_asset_graph().get(dg.AssetKey("evaluated_qa")).partitions_def
    assert partitions is not None
    assert partitions.get_partition_keys() == list(MESH_BRANCH_NAMES)
    assert len(MESH_BRANCH_NAMES) == 115


def test_loading_imports_nothing_heavy() -> None:
    code = """
import sys
import mkailin_assets.definitions
heavy = "torch transformers vllm ray lancedb sklearn scipy matplotlib numba pandas".split()
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_a_changed_setting_changes_the_code_version_of_what_it_decides() -> None:
    versions = [
        specs(definitions(Settings.from_environment({"MKAILIN_MESH_YEAR": year})))
        for year in ("2024", "2026")
    ]
    changed = [name for name in LINEAGE if versions[0][name].code_version != versions[1][name].code_version]
    assert changed == ["mesh_release"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MKAILIN_PROFILE", "warp", "set it to one of: embedded"),
        ("MKAILIN_MESH_YEAR", "latest", "set it to a year"),
    ],
)
def test_a_wrong_setting_says_what_it_may_be(variable: str, value: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        Settings.from_environment({variable: value})
