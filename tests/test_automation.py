"""What runs by itself: new files in numeric order, a few at a time; nothing unless it is switched on."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from mkailin_assets.definitions import definitions
from mkailin_assets.distill import close_killed_runs
from mkailin_assets.partitions import PUBMED_FILES, RANGE_TAGS
from mkailin_assets.pubmed.arrivals import ATTEMPTS, Arrivals, arrivals
from mkailin_resources.profiles import Settings
from mkailin_resources.sample import NLM_FOLDER

OLD = [("pubmed25n0001", "baseline"), ("pubmed25n0002", "updatefiles")]
NEW = [("pubmed26n0001", "baseline"), ("pubmed26n0002", "baseline"), ("pubmed26n0003", "updatefiles")]


def keys(numbers: str, year: int = 26) -> list[str]:
    return [f"pubmed{year}n000{number}" for number in numbers]


@pytest.mark.parametrize(
    ("offered", "parsed", "under_way", "to_fetch"),
    [
        (NEW, "", "", "12"),
        (NEW[::-1], "", "", "12"),
        (NEW, "", "1", "2"),
        (NEW, "1", "2", "3"),
        (NEW, "", "12", ""),
        (NEW, "123", "", ""),
    ],
)
def test_files_are_fetched_once_the_lowest_number_first_a_few_at_a_time(
    offered: Any, parsed: str, under_way: str, to_fetch: str
) -> None:
    found = arrivals(offered, [], keys(parsed), attempts={}, under_way=keys(under_way), at_most=2)
    assert found == Arrivals(keys(to_fetch), [], [])


def test_a_file_whose_run_failed_is_tried_again_a_few_times_and_holds_up_no_other() -> None:
    attempts = dict(zip(keys("12"), (1, ATTEMPTS), strict=True))
    assert arrivals(NEW, [], [], attempts=attempts, under_way=[], at_most=2) == Arrivals(
        keys("13"), [], keys("2")
    )


def test_numbers_are_compared_as_numbers() -> None:
    offered = [("pubmed26n10000", "updatefiles"), ("pubmed26n9999", "updatefiles")]
    assert arrivals(offered, [], [], attempts={}, under_way=[], at_most=1).to_fetch == ["pubmed26n9999"]


def test_a_years_files_retire_when_the_next_baseline_is_parsed_and_not_before() -> None:
    registered = keys("12", 25)
    half = arrivals([*OLD, *NEW], registered, [*registered, *keys("1")], attempts={}, under_way=[], at_most=5)
    assert half == Arrivals(keys("23"), [], [])
    whole = arrivals(
        [*OLD, *NEW], registered, [*registered, *keys("12")], attempts={}, under_way=[], at_most=5
    )
    assert whole == Arrivals(keys("3"), registered, [])
    # A baseline that is still being published, or of which only some files are asked for.
    for partly in (NEW[:2], NEW[1:]):
        assert not arrivals(
            [*OLD, *partly], registered, keys("123"), attempts={}, under_way=[], at_most=5
        ).to_retire
    # A mirror that keeps the old year does not bring it back.
    assert arrivals([*OLD, *NEW], keys("123"), keys("123"), attempts={}, under_way=[], at_most=5) == Arrivals(
        [], [], []
    )


def code_location(root: Path, **settings: str) -> dg.Definitions:
    given = {"MKAILIN_NLM_URL": str(root / "nlm"), "MKAILIN_STORAGE": str(root / "storage"), **settings}
    return definitions(Settings.from_environment(given))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(NLM_FOLDER, tmp_path / "nlm")
    return tmp_path


def tick(defs: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult | None:
    resources = {"nlm": (defs.resources or {})["nlm"]}
    with dg.build_sensor_context(instance, cursor=cursor, resources=resources) as context:
        result: Any = defs.resolve_sensor_def("new_pubmed_files")(context)
    return result if isinstance(result, dg.SensorResult) else None


def test_the_sensor_adds_a_partition_for_each_new_file_and_asks_for_its_run(root: Path) -> None:
    defs = code_location(root)
    held_back = root / "pubmed26n0003.xml.gz"
    (root / "nlm/pubmed/updatefiles" / held_back.name).rename(held_back)

    def asked(result: dg.SensorResult | None) -> list[tuple[str | None, str | None]]:
        assert result is not None
        assert result.run_requests is not None
        return [(request.partition_key, request.run_key) for request in result.run_requests]

    with dg.instance_for_test() as instance:
        first = tick(defs, instance, None)
        assert asked(first) == [(key, f"{key} 1") for key in keys("12")]
        assert first is not None
        added = [
            key
            for change in first.dynamic_partitions_requests or []
            if isinstance(change, dg.AddDynamicPartitionsRequest)
            for key in change.partition_keys
        ]
        assert added == keys("12")
        instance.add_dynamic_partitions(PUBMED_FILES, added)
        run = defs.resolve_job_def("pubmed_file").execute_in_process(
            instance=instance, partition_key="pubmed26n0001"
        )
        assert run.success
        held_back.rename(root / "nlm/pubmed/updatefiles" / held_back.name)
        # The run of the second one never was, as after a crash.
        second = tick(defs, instance, first.cursor)
        assert asked(second) == [("pubmed26n0002", "pubmed26n0002 2"), ("pubmed26n0003", "pubmed26n0003 1")]


def test_the_schedule_asks_for_what_is_out_of_date_and_then_for_the_branches_gathered_before(
    root: Path,
) -> None:
    defs = code_location(root)
    storage = {"storage": (defs.resources or {})["storage"]}
    defined = defs.get_repository_def()
    with dg.instance_for_test() as instance:

        def run(job: str, **how: Any) -> dg.ExecuteInProcessResult:
            result = defs.resolve_job_def(job).execute_in_process(instance=instance, **how)
            assert result.success
            return result

        def due() -> set[str]:
            with dg.build_schedule_context(instance, repository_def=defined, resources=storage) as context:
                request: Any = defs.resolve_schedule_def("daily_resolve")(context)
            return {key.to_user_string() for key in getattr(request, "asset_selection", None) or []}

        def branches(finished: dg.ExecuteInProcessResult) -> list[tuple[str, ...]]:
            event = next(e for e in finished.all_events if e.event_type_value == "PIPELINE_SUCCESS")
            built = dg.build_run_status_sensor_context(
                "branches_after_resolve",
                event,
                instance,
                finished.dagster_run,
                repository_def=defined,
                resources=storage,
            )
            sensor: Any = defs.resolve_sensor_def("branches_after_resolve")
            with built as context:
                return [tuple(request.tags[tag] for tag in RANGE_TAGS) for request in sensor(context) or []]

        instance.add_dynamic_partitions(PUBMED_FILES, keys("123"))
        assert due() == set()
        for key in keys("12"):
            run("pubmed_file", partition_key=key)
        mesh = {"mesh_release", "mesh_descriptors"}
        everything = {"current_citations", "quarantined_records", "mesh_information_content"}
        assert due() == mesh | everything | {"retriever_checkpoint", "context_index"}
        resolved = run("daily")
        assert due() == set()
        assert branches(resolved) == []
        for branch in ("C04", "F03"):
            run("branch_text", tags=dict.fromkeys(RANGE_TAGS, branch))
        assert branches(resolved) == []
        run("pubmed_file", partition_key="pubmed26n0003")
        # The encoder is a checkpoint: it stays.
        assert due() == everything | {"context_index"}
        again = run("daily", asset_selection=[dg.AssetKey(name) for name in due()])
        assert branches(again) == [("C04", "C04"), ("F03", "F03")]


def test_a_corpus_that_is_a_query_does_not_draw_in_all_of_pubmed(root: Path) -> None:
    defs = code_location(root, MKAILIN_PUBMED_QUERY="review[pt]")
    with dg.instance_for_test() as instance:
        assert tick(defs, instance, None) is None


def test_a_run_whose_process_is_gone_does_not_hold_its_place() -> None:
    """As after `make dev` and all its runs were killed: nobody is left to say that they ended."""

    @dg.op
    def nothing() -> None: ...

    @dg.job
    def empty() -> None:
        nothing()

    ended = subprocess.Popen(["true"])
    ended.wait()
    with dg.instance_for_test() as instance:

        def begun(pid: int) -> str:
            run = instance.create_run_for_job(empty)
            told = EngineEventData({"pid": dg.MetadataValue.text(str(pid))})
            instance.report_engine_event("Started process for run", run, told)
            start = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, empty.name)
            instance.report_dagster_event(start, run.run_id)
            return run.run_id

        dead, alive = begun(ended.pid), begun(os.getpid())
        close_killed_runs(instance)
        statuses = {run.run_id: run.status for run in instance.get_runs()}
        assert statuses == {dead: dg.DagsterRunStatus.FAILURE, alive: dg.DagsterRunStatus.STARTED}


def test_all_of_it_is_off_unless_the_one_switch_is_set(root: Path) -> None:
    for schedule, is_running in (("", False), ("30 4 * * *", True)):
        defs = code_location(root, MKAILIN_SCHEDULE=schedule)
        sensors = [defs.resolve_sensor_def(name) for name in ("new_pubmed_files", "branches_after_resolve")]
        daily = defs.resolve_schedule_def("daily_resolve")
        statuses = {thing.default_status.value for thing in itertools.chain(sensors, [daily])}
        assert statuses == {"RUNNING" if is_running else "STOPPED"}
        assert daily.cron_schedule == (schedule or "0 5 * * *")
