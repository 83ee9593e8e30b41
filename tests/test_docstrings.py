"""Every public name is documented."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mlc_controlnet"
SOURCES = sorted(PACKAGE.rglob("*.py"))
# The docstring of the module says what these do: a pass, a command.
OF_THE_MODULE = {"transform_module", "add_arguments", "run"}
# The class or function that these replace is documented where it is declared.
OVERRIDES = {"apply", "forward", "end_headers", "list_directory", "log_request"}


def undocumented(tree: ast.Module) -> Iterator[str]:
    """The public classes, functions and methods without a docstring."""
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        prefix, parent = pending.pop()
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
                continue
            is_pass = any("module_pass" in ast.unparse(decorator) for decorator in node.decorator_list)
            if not (is_pass or node.name in OF_THE_MODULE | OVERRIDES) and ast.get_docstring(node) is None:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                pending.append((f"{prefix}{node.name}.", node))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(PACKAGE)))
def test_every_public_name_has_a_docstring(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    has_own_docstring = ast.get_docstring(tree) is not None or source.read_text().strip() == ""
    assert has_own_docstring, "the module has none"
    assert list(undocumented(tree)) == []
