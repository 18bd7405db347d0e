"""The Dagster UI in a real browser: the lineage is there, and a click materializes a partition."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster_ui import dagster_ui
from distillation import Distilled
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
RUN_SECONDS = 120

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def ui(distilled: Distilled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dagster_ui(distilled.environment, tmp_path_factory.mktemp("ui") / "dagster.log") as address:
        yield address


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    assert CHROMIUM, "the browser test needs Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1600, "height": 1000})
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def shoot(page: Page, name: str) -> None:
    """Keep a picture where MKAILIN_SCREENSHOTS says, for a person to look at."""
    if folder := os.environ.get("MKAILIN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_the_lineage_is_drawn_and_asks_nobody_outside(page: Page, ui: str) -> None:
    outside: list[str] = []
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((ui, "data:", "blob:")) else outside.append(request.url)
        ),
    )
    page.goto(f"{ui}/locations/mkailin/asset-groups/questions")
    expect(page.get_by_text("candidate_contexts").first).to_be_visible()
    shoot(page, "lineage_questions")
    page.goto(f"{ui}/asset-groups")
    expect(page.get_by_text("preferences").first).to_be_visible()
    shoot(page, "lineage")
    assert not outside


def test_a_click_materializes_a_partition(page: Page, ui: str, distilled: Distilled) -> None:
    page.goto(f"{ui}/assets/branch_citations")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_text("Select a partition or create one").click()
    page.get_by_placeholder("Filter partitions").fill("A11")
    page.get_by_text("Select all (1)").click()
    page.keyboard.press("Escape")
    shoot(page, "partition_dialog")
    dialog.get_by_role("button", name="Launch").click()
    table = distilled.tables / "branch_citations" / "A11.parquet"
    for _ in range(RUN_SECONDS):
        if table.exists():
            break
        page.wait_for_timeout(1000)
    assert table.exists()
    page.goto(f"{ui}/assets/branch_citations?view=partitions&partition=A11")
    expect(page.get_by_role("img", name="run_success").first).to_be_visible()
    shoot(page, "partition_done")


def test_metadata_and_checks_can_be_read(page: Page, ui: str) -> None:
    page.goto(f"{ui}/assets/benchmark_report?view=events")
    page.wait_for_timeout(3000)
    shoot(page, "benchmark_report")
    page.goto(f"{ui}/assets/training_corpus?view=checks")
    expect(page.get_by_text("Passed").first).to_be_visible()
    shoot(page, "checks")


def test_the_instance_sends_no_telemetry(distilled: Distilled) -> None:
    with dg.DagsterInstance.from_config(distilled.environment["DAGSTER_HOME"]) as instance:
        assert instance.telemetry_enabled is False
