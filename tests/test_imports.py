"""The packages of sn6 stand in an order: a module imports those below its own package and never one above."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sn6

ROOT = Path(sn6.__file__).parent
# From the top down; those of one line may not import one another.
ORDER = (
    ("__main__", "trained_model", "evaluation"),
    ("run", "predict", "export", "score", "show", "simulate", "download", "check", "compare", "statistics"),
    ("exports",),
    ("sweeps",),
    ("training",),
    ("prediction",),
    ("callbacks",),
    ("segmenter",),
    ("schedules",),
    ("inspection",),
    ("simulation",),
    ("plots",),
    ("checkpoints",),
    ("acquire",),
    ("data",),
    ("datasets",),
    ("heads", "losses", "sample_weights"),
    ("targets",),
    ("models",),
    ("formats",),
    ("metrics",),
    ("footprints",),
    ("config",),
    ("cli",),
    ("progress",),
    ("precision",),
    ("processes",),
    ("files",),
    ("errors",),
    ("signals",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
PURE = ("footprints", "targets", "metrics", "models")  # know no framework and no config
FRAMEWORKS = ("lightning", "hydra", "omegaconf")


def module_name(path: Path) -> str:
    """`<root>/data/folds.py` → `data.folds`; a package by its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports anywhere in it, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def sn6_modules(path: Path) -> set[str]:
    """Those of them that are modules of sn6, by their names below it."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "sn6":
            continue
        longest = next(
            (".".join(parts[1:end]) for end in range(len(parts), 1, -1) if ".".join(parts[1:end]) in MODULES), ""
        )
        found |= {longest} - {""}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_no_package_above_its_own(name):
    package = name.partition(".")[0]
    if package == "__init__":
        assert not sn6_modules(MODULES[name])
        return
    above = [
        other
        for other in sn6_modules(MODULES[name])
        if other.partition(".")[0] != package and LEVEL[other.partition(".")[0]] <= LEVEL[package]
    ]
    assert not above


def test_modules_import_one_another_without_a_cycle():
    graph = {name: sn6_modules(path) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the cycle


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] in PURE])
def test_geometry_and_networks_know_no_framework(name):
    tops = {module.partition(".")[0] for module in imported(MODULES[name])}
    assert not tops & set(FRAMEWORKS)


def test_every_package_has_its_place_in_the_order():
    assert {name.partition(".")[0] for name in MODULES} - {"__init__"} == set(LEVEL) & {
        name.partition(".")[0] for name in MODULES
    }
