"""Imports point one way, packages that must stay light stay light, and files stay readable."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "moslora"
# Each layer may import the ones before it; packages of one layer never import each other.
LAYERS = [
    {"errors", "__init__", "estimation"},
    {"files", "emoji", "launch", "score_records"},
    {"records", "painting", "packed"},
    {"core", "baselines"},
    {"adapter"},
    {"data"},
    {"training", "evaluation"},
    {"runs"},
    {"comparison"},
    {"starting"},
    {"judging"},
    {"reports"},
    {"cli", "recipes"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
TORCH_FREE = [
    "errors.py",
    "estimation.py",
    "files.py",
    "packed.py",
    "records.py",
    "score_records.py",
    "__init__.py",
    "emoji",
    "reports",
    "judging",
]
TORCH_FREE += [
    f"painting/{name}.py" for name in ("canvas", "lettering", "png", "prompts", "requests", "sheet", "side_by_side")
]
HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "bitsandbytes", "diffusers"}
MODULES = sorted(ROOT.rglob("*.py"))


def part(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path, *, top_level_only=False):
    """The modules a file imports, by full name; imports for type checkers only do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else [node for node in ast.walk(tree) if not is_type_checking(node)]
    guarded = {id(inner) for node in ast.walk(tree) if is_type_checking(node) for inner in ast.walk(node)}
    for node in nodes:
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    here = part(path)
    assert here in RANK, f"{here} has no place in the order of layers"
    for name in imported(path):
        if not name.startswith("moslora."):
            continue
        there = name.split(".")[1]
        if there not in RANK or there == here:  # a name of the package itself, such as __version__, or its own part
            continue
        assert RANK[there] < RANK[here], (
            f"{path.relative_to(ROOT)} imports {name}, which comes later or stands beside it"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_peft_internals_stay_in_the_adapter_package(path):
    if part(path) != "adapter":
        internals = [name for name in imported(path) if name.startswith(("peft.tuners", "peft.utils", "peft.mapping"))]
        assert not internals


def test_light_parts_import_nothing_heavy():
    for name in TORCH_FREE:
        paths = [ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py")
        for path in paths:
            assert not HEAVY & {imported_name.split(".")[0] for imported_name in imported(path)}, path


def test_commands_import_nothing_heavy_before_they_run():
    for path in (ROOT / "cli").rglob("*.py"):
        assert not HEAVY & {name.split(".")[0] for name in imported(path, top_level_only=True)}, path


# Within `runs`: what every kind of run shares comes first, then the kinds, then what calls them by name of none.
CALL_A_KIND = [
    *(f"runs/{name}.py" for name in ("run", "steps", "adapters", "scoring", "exporting", "inspecting", "counting")),
    *(f"comparison/{name}.py" for name in ("cost", "estimate", "rehearsal", "matching", "coverage")),
]
OF_ONE_KIND = (
    *(f"moslora.runs.kinds.{path.stem}." for path in (ROOT / "runs" / "kinds").glob("[a-z]*.py")),
    "moslora.evaluation.",
    "moslora.data.",
)
OF_ALL_KINDS = ("moslora.evaluation.scores", "moslora.evaluation.inference", "moslora.data.prompts.STYLES")


@pytest.mark.parametrize("name", CALL_A_KIND)
def test_what_every_kind_of_run_shares_names_none(name):
    for imported_name in imported(ROOT / name):
        assert imported_name.startswith(OF_ALL_KINDS) or not imported_name.startswith(OF_ONE_KIND), imported_name


def test_a_kind_of_run_imports_nothing_that_calls_it():
    callers = tuple("moslora." + name.removesuffix(".py").replace("/", ".") for name in CALL_A_KIND)
    for path in (ROOT / "runs" / "kinds").rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith(callers)], path


def test_asserts_only_narrow_types():
    """Python's -O leaves asserts out: no check and no effect may stand in one."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                given = ast.unparse(node.test).removesuffix(" is not None")
                assert given.replace(".", "").isidentifier(), f"{path}:{node.lineno} asserts {ast.unparse(node.test)}"


def test_no_grab_bags_and_no_long_files():
    for path in MODULES:
        assert path.stem not in {"utils", "util", "common", "misc", "helpers"}
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 320, path
