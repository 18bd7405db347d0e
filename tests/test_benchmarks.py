"""The benchmarks can be run: each is there by its name."""

from tiny_model import REPOSITORY

from benchmarks.__main__ import benchmark_modules


def test_each_benchmark_is_listed_with_what_it_compares() -> None:
    modules = benchmark_modules()
    runnable = {
        file.stem for file in (REPOSITORY / "benchmarks").glob("*.py") if "\ndef run()" in file.read_text()
    }
    assert set(modules) == runnable
    assert all(module.__doc__ for module in modules.values())
