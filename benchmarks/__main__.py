"""`python -m benchmarks` lists the benchmarks, `python -m benchmarks NAME` runs one."""

import argparse
import importlib
import pkgutil
from types import ModuleType

import benchmarks
from benchmarks.report import print_report


def benchmark_modules() -> dict[str, ModuleType]:
    """Modules of this package that can be run: those with a `run()`."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in sorted(names)}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def main() -> None:
    """List or run; ends with exit status 0 whenever a benchmark ran to its end, its goals met or not."""
    modules = benchmark_modules()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument("name", nargs="?", choices=modules, help="the benchmark to run; without it, a list")
    name = parser.parse_args().name
    if name is None:
        for listed, module in modules.items():
            print(f"{listed:12} {(module.__doc__ or '').strip().splitlines()[0]}")
    else:
        print_report(name, modules[name].run())


if __name__ == "__main__":
    main()
