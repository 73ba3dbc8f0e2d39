"""The lines between the packages, read from the source: who imports what, what is documented."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

import stock_assets

PACKAGE = Path(stock_assets.__file__).resolve().parent
MODULES = sorted(PACKAGE.rglob("*.py"))
PURE = ("sources", "lake", "forecasting", "drift", "notices")
PURE_MODULES = (
    "settings.py",
    "source_settings.py",
    "name_claims.py",
    "calendars.py",
    "calendar_files.py",
    "slices.py",
    "errors.py",
)
PYPROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
RUFF = PYPROJECT["tool"]["ruff"]["lint"]
HEAVY = set(RUFF["flake8-tidy-imports"]["banned-module-level-imports"])


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def is_pure(path: Path) -> bool:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] in PURE or parts in [(module,) for module in PURE_MODULES]


def imported(node: ast.AST) -> set[str]:
    """Dotted names that an import statement asks for."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        module = node.module or ""
        return {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return set()


def anywhere(source: str) -> set[str]:
    """All that the source imports, in functions and for type checking too."""
    return set().union(*(imported(node) for node in ast.walk(ast.parse(source))))


def when_loaded(source: str) -> set[str]:
    """What is imported by loading the module: not in functions, not for type checking only."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        found |= imported(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        todo += ast.iter_child_nodes(node)
    return found


def tops(names: set[str]) -> set[str]:
    return {item.split(".")[0] for item in names}


@pytest.mark.parametrize("path", [path for path in MODULES if is_pure(path)], ids=name)
def test_pure_packages_do_not_know_dagster(path):
    names = anywhere(path.read_text(encoding="utf-8"))

    assert not {top for top in tops(names) if top.startswith("dagster")}


@pytest.mark.parametrize("path", [path for path in MODULES if is_pure(path)], ids=name)
def test_pure_packages_import_only_each_other_of_this_project(path):
    own = {item.split(".")[1] for item in anywhere(path.read_text(encoding="utf-8"))
           if item.startswith("stock_assets.")}  # fmt: skip

    assert own <= {*PURE, *(Path(module).stem for module in PURE_MODULES)}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_heavy_packages_are_imported_where_they_are_used_only(path):
    assert not tops(when_loaded(path.read_text(encoding="utf-8"))) & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_belongs_there(path):
    assert len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") > 30


def test_both_lists_of_the_line_name_what_exists():
    assert all((PACKAGE / folder).is_dir() for folder in PURE)
    assert all((PACKAGE / module).is_file() for module in PURE_MODULES)
    assert {"evidently", "mlflow", "catboost", "matplotlib", "pandas", "scipy"} <= HEAVY


@pytest.mark.parametrize(
    ("source", "top_level"),
    [
        ("import scipy.stats", True),
        ("from scipy import stats", True),
        ("try:\n    import scipy\nexcept ImportError:\n    scipy = None", True),
        ("class A:\n    import scipy", True),
        ("if True:\n    import scipy", True),
        ("def f():\n    import scipy", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import scipy", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import scipy", True),
    ],
)
def test_the_reader_of_imports_sees_through_each_form(source, top_level):
    assert ("scipy" in tops(when_loaded(source))) is top_level
    assert "scipy" in tops(anywhere(source))
