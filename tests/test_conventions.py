"""Conventions of the package that no linter checks (see CONTRIBUTING.md)."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from mtlcli.cli import app
from mtlcli.registry import REGISTRIES, TorchRegistry

ROOT = Path(__file__).parents[1] / "mtlcli"
FILES = sorted(ROOT.rglob("*.py"))
COMPONENTS = {
    registry.own if isinstance(registry, TorchRegistry) else registry.package for registry in REGISTRIES.values()
}


def is_exempt(file: Path) -> bool:
    """Return whether a file is named after a registered component or a verb."""
    package = ".".join(file.relative_to(ROOT.parent).parent.parts)
    verbs = {command.name for command in app.registered_commands} | {"data"}
    return package in COMPONENTS or (package == "mtlcli.cli" and file.stem in verbs)


def test_names_of_files_are_unique() -> None:
    counts = Counter(file.name for file in FILES if not is_exempt(file))
    assert [name for name, count in counts.items() if count > 1 and name not in ("__init__.py", "base.py")] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_function_receives_the_trainer_and_nothing_imports_mocks(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.arg) and node.annotation is not None:
            names = {name.id for name in ast.walk(node.annotation) if isinstance(name, ast.Name)}
            texts = {text.value for text in ast.walk(node.annotation) if isinstance(text, ast.Constant)}
            assert "Trainer" not in names | texts, f"line {node.lineno}: pass the part of the state that is used"
        if isinstance(node, ast.ImportFrom | ast.Import):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not any(module.startswith(("unittest", "mock")) for module in modules)
