"""What a person sees on the terminal while a job runs in this process."""

import logging

import dagster as dg
from dagster import DagsterEventType
from rich.console import Console
from rich.markup import escape

console = Console(highlight=False, soft_wrap=True)


class _ProgressHandler(logging.Handler):
    """A line when a table is published, and when a check or step fails; the assets' own messages between."""

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        if event is None:
            # What a failed step keeps from running is told by the table at the end.
            held_back = "Dependencies for step" in record.getMessage()
            if record.levelno >= logging.INFO and not held_back:
                console.print(f"    {escape(meta.get('orig_message') or record.getMessage())}", style="dim")
            return
        line = _line(event)
        if line:
            console.print(line)


def _line(event: dg.DagsterEvent) -> str | None:
    match event.event_type:
        case DagsterEventType.ASSET_MATERIALIZATION:
            done = event.step_materialization_data.materialization
            rows = done.metadata.get("dagster/row_count")
            where = f" [cyan]{done.partition}[/]" if done.partition else ""
            size = f", {rows.value:,} {'row' if rows.value == 1 else 'rows'}" if rows else ""
            return f"  [green]✓[/] {done.asset_key.to_user_string()}{where}{size}"
        case DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.passed:
                return None
            mark = "[yellow]![/]" if check.severity == dg.AssetCheckSeverity.WARN else "[red]✗[/]"
            said = escape(check.description or "failed")
            return f"  {mark} {check.asset_key.to_user_string()}: {check.check_name}: {said}"
        case DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            cause = error.cause or error if error else None
            return f"  [red]✗[/] {event.step_key}: {escape(cause.message.strip() if cause else 'failed')}"
        case _:
            return None


@dg.logger(None, description="A line per published table, failed check and failed step, for people.")
def progress_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """Logger for runs in a terminal; the full event log is in the Dagster UI."""
    logger = logging.Logger("progress", level=logging.DEBUG)
    logger.addHandler(_ProgressHandler())
    return logger
