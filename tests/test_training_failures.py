"""What our trainings share: what they tell, when they stop, and what happens where memory or disk end."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_model import REPOSITORY
from tiny_trainer import tiny_trainer, weights_of

from mkailin_assets import trainer as our_trainer
from mkailin_assets.trainer import (
    DiskFull,
    OtherProcesses,
    OutOfMemory,
    TrainingCourse,
    train_to_the_end,
    watch,
)
from mkailin_resources.training_checkpoints import MANIFEST, last_whole, manifest_writer

STEP = re.compile(r"step (\d+) of 12: loss \d\.\d{3}, [\d,.]+ (tokens|steps)/s(, \d+ s left)?")
PATIENT = {"load_best_model_at_end": True, "metric_for_best_model": "loss"}


class Cut(RuntimeError):
    """Ends a training where a kill would."""


def quiet(line: str) -> None:
    pass


def trained(
    folder: Path, log: Callable[[str], None] = quiet, callbacks: Any = (), **given: Any
) -> tuple[bytes, TrainingCourse]:
    trainer = tiny_trainer(folder, callbacks, **given)
    course = train_to_the_end(trainer, folder, log)
    return weights_of(trainer), course


def patient(looks: int = 3) -> list[Any]:
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(looks)]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def cut_at(step: int) -> Callable[[str], None]:
    def log(line: str) -> None:
        if line.startswith(f"step {step} of 12: loss"):
            raise Cut

    return log


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A training that nothing cut off."""
    lines: list[str] = []
    weights, course = trained(tmp_path_factory.mktemp("whole"), lines.append)
    return SimpleNamespace(weights=weights, course=course, lines=lines)


# What is told


def test_each_step_tells_its_loss_how_fast_it_is_and_the_time_that_is_left(whole: SimpleNamespace) -> None:
    told = [match for line in whole.lines if (match := STEP.fullmatch(line))]
    assert [int(match[1]) for match in told] == list(range(1, 13))
    assert {match[2] for match in told} == {"tokens"}
    assert [bool(match[3]) for match in told] == [True] * 11 + [False]
    assert len([line for line in whole.lines if "eval_loss" in line]) == 12
    course = whole.course
    assert (course.steps, course.kept_step, course.tokens) == (12, 12, 12 * 4 * 8)
    assert course.tokens_per_second == pytest.approx(course.tokens / course.seconds)
    assert [step for step, _ in course.curve.validation] == list(range(1, 13))


@pytest.mark.parametrize(
    ("tokens", "seconds", "told"),
    [
        (32_100, 120, "step 40 of 300: loss 5.123, 3,210 tokens/s, 13 min left"),
        (0, 0.5, "step 40 of 300: loss 5.123, 20.00 steps/s, 3 s left"),
        (100, 6000, "step 40 of 300: loss 5.123, 10 tokens/s, 10 h 50 min left"),
    ],
)
def test_the_speed_is_of_the_last_steps_and_the_time_left_of_all(
    tokens: int, seconds: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 1 to 30 took longer, with a look at held-out examples; `tokens` were read in the last ten."""
    lines: list[str] = []
    watching, state = watch(lines.append), SimpleNamespace(global_step=0, max_steps=300)
    args: Any = SimpleNamespace(learning_rate=0.1)
    state.num_input_tokens_seen, now = 0, 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    watching.on_step_begin(args, state, None)
    now, state.global_step = seconds - min(10, seconds), 30
    watching.on_evaluate(args, state, None)
    watching.on_step_begin(args, state, None)
    now, state.global_step, state.num_input_tokens_seen = seconds, 40, tokens
    watching.on_log(args, state, None, logs={"loss": 5.123})
    assert lines == [told]


def test_a_resumed_training_ends_as_if_it_had_not_been_cut(tmp_path: Path, whole: SimpleNamespace) -> None:
    with pytest.raises(Cut):
        trained(tmp_path, cut_at(6))
    lines: list[str] = []
    weights, course = trained(tmp_path, lines.append)
    assert weights == whole.weights
    assert lines[0] == "goes on from checkpoint-5"
    assert (course.resumed_at, course.tokens, course.curve) == (5, whole.course.tokens, whole.course.curve)
    assert course.tokens_per_second == pytest.approx(7 * 4 * 8 / course.seconds)


def test_a_checkpoint_of_other_processes_is_not_gone_on_from(tmp_path: Path) -> None:
    trained(tmp_path, max_steps=1)
    checkpoint = tmp_path / "checkpoint-1"
    for rank in "01":
        (checkpoint / f"rng_state_{rank}.pth").write_bytes((checkpoint / "rng_state.pth").read_bytes())
    written: Any = SimpleNamespace(output_dir=str(tmp_path), global_step=1)
    manifest_writer().on_save(written, written, written)
    with pytest.raises(
        OtherProcesses, match=r"checkpoint-1: 2 processes trained it and this run has 1, .*train with 2"
    ):
        trained(tmp_path)
    assert checkpoint.is_dir()


# When it stops


@pytest.mark.parametrize("lora", [False, True])
def test_a_training_that_stopped_early_has_its_best_weights_and_takes_no_step_more(
    tmp_path: Path, *, lora: bool
) -> None:
    lines: list[str] = []
    given = PATIENT | {"lora": lora, "learning_rate": 0.02 if lora else 0.005}
    weights, course = trained(tmp_path, lines.append, patient(), **given)
    losses = dict(course.curve.validation)
    assert course.kept_step == min(losses, key=losses.__getitem__) == course.steps - 3
    assert course.steps < 12
    assert lines[-1] == f"ended at step {course.steps}: the weights of step {course.kept_step} are kept"
    assert names(tmp_path) == {f"checkpoint-{course.steps}", f"checkpoint-{course.kept_step}"}

    lines.clear()
    again, course_again = trained(tmp_path, lines.append, patient(), **given)
    assert again == weights
    assert lines == [
        f"goes on from checkpoint-{course.steps}",
        f"ended at step {course.steps}: the weights of step {course.kept_step} are kept",
    ]
    assert (course_again.kept_step, course_again.curve) == (course.kept_step, course.curve)
    assert weights_at(tmp_path / f"checkpoint-{course.kept_step}", lora=lora) == weights


def weights_at(checkpoint: Path, *, lora: bool) -> bytes:
    trainer = tiny_trainer(checkpoint, lora=lora)
    trainer._load_from_checkpoint(str(checkpoint))
    return weights_of(trainer)


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_training_that_was_cut_stops_early_at_the_same_step(tmp_path: Path, step: int) -> None:
    weights, course = trained(tmp_path / "whole", callbacks=patient(), **PATIENT)
    with pytest.raises(Cut):
        trained(tmp_path, cut_at(step), patient(), **PATIENT)
    resumed, course_of_resumed = trained(tmp_path, callbacks=patient(), **PATIENT)
    assert (course.kept_step, course.steps) == (2, 5)
    assert (course_of_resumed.kept_step, course_of_resumed.steps) == (2, 5)
    assert resumed == weights


def test_the_best_checkpoint_stays_until_a_better_one_is_whole(tmp_path: Path) -> None:
    """Best is step 1; 2 and 3 are worse, and a kill comes while 4 is saved, which is better."""
    from transformers import TrainerCallback

    class CutWhileSaving(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 4:
                raise Cut

    given = PATIENT | {"lora": True, "learning_rate": 0.2}
    weights, course = trained(tmp_path / "whole", **given)
    first, second, third, fourth, *_ = (loss for _, loss in course.curve.validation)
    assert fourth < first < second < third
    with pytest.raises(Cut):
        trained(tmp_path, callbacks=[CutWhileSaving()], **given)
    assert last_whole(tmp_path, quiet) == tmp_path / "checkpoint-3"
    resumed, course_of_resumed = trained(tmp_path, **given)
    assert (course_of_resumed.resumed_at, course_of_resumed.kept_step) == (3, course.kept_step)
    assert resumed == weights


def test_a_checkpoint_whose_best_one_is_torn_is_not_gone_on_from(tmp_path: Path) -> None:
    trained(tmp_path, max_steps=4, **PATIENT)
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-4"}
    os.truncate(tmp_path / "checkpoint-2" / "model.safetensors", 100)
    lines: list[str] = []
    assert last_whole(tmp_path, lines.append) is None
    assert "model.safetensors is not as it was written in" in lines[0]
    assert "checkpoint-2, whose weights it would end with" in lines[0]


# Where memory ends

_NO_MEMORY = """
import json, re, resource, sys
from pathlib import Path
from tiny_trainer import tiny_trainer
from mkailin_assets.trainer import OutOfMemory, train_to_the_end

batch, accumulation, said = 4096, 1, []
def trainer():
    given = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    given |= {"rows": 4096, "eval_strategy": "no", "save_strategy": "no", "max_steps": 1}
    return tiny_trainer(Path(sys.argv[1]), **given)

first = trainer()
now = int(re.search(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 120_000_000, resource.RLIM_INFINITY))
for _ in range(8):
    try:
        course = train_to_the_end(first, Path(sys.argv[1]), lambda line: None)
    except OutOfMemory as error:
        said.append(str(error))
        del first
        found = re.findall(r"(?:batch_size|accumulation) (\\d+)", said[-1])
        batch, accumulation = map(int, found)
        first = trainer()
    else:
        break
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps([said, batch, accumulation, course.tokens]))
"""


def test_out_of_memory_names_the_settings_that_fit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NO_MEMORY, str(tmp_path)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": "tests", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, batch, accumulation, tokens = json.loads(done.stdout)
    assert said
    assert said[0].startswith("out of memory at step 1 of 1, which asked for ")
    assert said[0].endswith("take batch_size 2048 and accumulation 2, for the same optimizer step")
    assert batch * accumulation == 4096, "the same optimizer step"
    assert tokens == 4096 * 8


@pytest.mark.parametrize(
    ("gpu", "adapter", "four_bits", "checkpointing", "advice"),
    [
        (False, False, False, False, "max_length 512 (it is 1024), or a smaller base"),
        (
            True,
            False,
            False,
            False,
            "max_length 512 (it is 1024), or gradient_checkpointing true, or method lora, which trains "
            "adapters alone, or a smaller base",
        ),
        (
            True,
            True,
            False,
            True,
            "max_length 512 (it is 1024), or method qlora, which holds the base in 4 bits, or a smaller base",
        ),
        (True, True, True, True, "max_length 512 (it is 1024), or a smaller base"),
    ],
)
def test_where_a_batch_has_one_sequence_already_the_advice_is_another(
    gpu: bool, adapter: bool, four_bits: bool, checkpointing: bool, advice: str
) -> None:
    """There is no GPU here to run out of memory."""
    args = SimpleNamespace(
        max_steps=300,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=8,
        world_size=1,
        max_length=1024,
        device=SimpleNamespace(type="cuda" if gpu else "cpu"),
        gradient_checkpointing=checkpointing,
    )
    model = SimpleNamespace(is_loaded_in_4bit=four_bits, **{"peft_config": {}} if adapter else {})
    trainer = SimpleNamespace(args=args, model=model, state=SimpleNamespace(global_step=11))
    said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"
    expected = "out of memory at step 12 of 300, which asked for 2.00 GiB: batch_size is 1 already, take "
    assert our_trainer._advice(trainer, said) == expected + advice


def test_processes_that_share_a_step_are_told_of_the_recipes_settings() -> None:
    """As kailin-70b on eight GPUs: 2 and 8 are what it has."""
    args = SimpleNamespace(
        max_steps=600, per_device_train_batch_size=2, gradient_accumulation_steps=1, world_size=8
    )
    trainer = SimpleNamespace(args=args, state=SimpleNamespace(global_step=0))
    said = our_trainer._advice(trainer, "CUDA out of memory.")
    assert said.endswith("take batch_size 1 and accumulation 16, for the same optimizer step")


@pytest.mark.parametrize(("batch", "advice"), [(6, "3 and accumulation 4"), (9, "3 and accumulation 6")])
def test_a_smaller_batch_leaves_the_optimizer_step_as_it_is(
    tmp_path: Path, batch: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    trainer = tiny_trainer(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=2)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(trainer, "training_step", full)
    with pytest.raises(OutOfMemory, match=f"asked for 20.00 MiB: take batch_size {advice}, for the same"):
        train_to_the_end(trainer, tmp_path, quiet)


# Where the disk ends


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within it the system writes no file beyond that many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("ends_in", ["model.safetensors", "optimizer.pt", "notes.json"])
def test_a_full_disk_costs_no_step_before_it(tmp_path: Path, whole: SimpleNamespace, ends_in: str) -> None:
    """Three writers: of safetensors, of torch, and of Python."""
    from transformers import TrainerCallback

    class Notes(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            (tmp_path / f"checkpoint-{state.global_step}" / "notes.json").write_text("0" * 300_000)

    callbacks = [Notes()] if ends_in == "notes.json" else []
    room = {"model.safetensors": 50_000, "optimizer.pt": 150_000, "notes.json": 270_000}[ends_in]
    with pytest.raises(Cut):
        trained(tmp_path, cut_at(5), callbacks)
    lines: list[str] = []
    with files_of_at_most(room), pytest.raises(DiskFull) as failed:
        trained(tmp_path, lines.append, callbacks)
    assert re.fullmatch(
        rf"{tmp_path}: checkpoint-5 could not be saved \((File too large|its file was not written)\), where "
        r"[\d.,]+ GB were free: checkpoint-4 is kept, and the same run goes on from it once there is room",
        str(failed.value),
    )
    assert names(tmp_path) == {"checkpoint-3", "checkpoint-4"}, "what was half written makes room"
    assert (tmp_path / "checkpoint-4" / MANIFEST).exists()
    weights, course = trained(tmp_path, callbacks=callbacks)
    assert course.resumed_at == 4
    assert weights == whole.weights


def test_an_error_of_another_kind_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(tmp_path)
    error = PermissionError(13, "Permission denied")

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(trainer, "training_step", failing)
    with pytest.raises(PermissionError) as raised:
        train_to_the_end(trainer, tmp_path, quiet)
    assert raised.value is error
