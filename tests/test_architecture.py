"""Data flows one way, and so do imports; only `_ops` speaks to the operators; importing costs little; all is short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ntkfast

PACKAGE = Path(ntkfast.__file__).parent
# jet → residual → factors → diag, trace, gram, operator → spectrum, weights → problems → training → plots
STAGES = (
    ("_C", "kept", "refusals"),
    ("_ops", "networks", "cost", "reference", "jet"),
    ("residual",),
    ("chain", "channels"),
    ("tape", "probe", "tiles", "selection"),
    ("recording",),
    ("sweep",),
    ("memory", "precision"),
    ("streaming", "snapshot", "rows"),
    ("contraction",),
    ("assembly",),
    ("factors",),
    ("diag", "loss_gradient", "trace", "gram", "operator", "plan"),
    ("spectrum", "weights"),
    ("check", "drift"),
    ("problems",),
    ("training",),
    ("style", "ticks"),
    ("plots",),
)
RANK = {name: rank for rank, stage in enumerate(STAGES) for name in stage}
ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "build_support", "csrc", "examples", "ntkfast", "scripts", "tests")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


def everything() -> list[Path]:
    """The files of the checkout, what was built in it among them."""
    return [ROOT / "setup.py", *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())]


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules and subpackages of ours that a file imports when it is imported itself, types aside."""
    found: set[str] = set()
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        names = [node.module] if node.module else [alias.name for alias in node.names]
        if node.level == depth:
            found.update(name.split(".")[0] for name in names)
        elif node.level == 0 and (node.module or "").startswith("ntkfast."):
            found.add(node.module.split(".")[1])
    return found


def test_every_module_has_its_place():
    assert {module_of(path) for path in FILES} <= set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = module_of(path)
    for name in imported(path) - {own}:
        assert RANK[name] < RANK[own], f"{own} imports {name}"


def test_only_one_file_speaks_to_the_operators():
    speakers = {path.name for path in FILES if "torch.ops.ntkfast" in path.read_text(encoding="utf-8")}
    assert speakers == {"_ops.py"}


def test_the_reference_imports_nothing_of_ours():
    assert imported(PACKAGE / "reference.py") == set()


def test_importing_starts_no_gpu_and_loads_no_matplotlib(tmp_path):
    code = "import sys, torch, ntkfast; sys.exit('matplotlib' in sys.modules or torch.cuda.is_initialized())"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_lines_of_native_code_fit_a_screen():
    sources = [path for path in ROOT.joinpath("csrc").rglob("*") if path.is_file()]
    assert len(sources) > 50
    for path in sources:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 120, f"{path.name}:{number}"


def test_files_are_short():
    kinds = {".py", ".pyi", ".cpp", ".h", ".cu", ".cuh", ".sh"}
    sources = [path for path in everything() if path.suffix in kinds]
    assert len(sources) > 250
    for path in sources:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring."""
    first = function.body[0]
    lines = function.end_lineno - function.lineno + 1
    return lines if ast.get_docstring(function) is None else lines - (first.end_lineno - first.lineno + 1)


def test_functions_are_short():
    for path in everything():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.suffix == ".py" else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert lines_of(node) <= 60, f"{path}: {node.name}"
