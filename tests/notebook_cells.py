"""Runs the cells of a notebook in one `__main__`, as IPython does; it can be run with the path of a notebook."""

import ast
import json
import linecache
import sys
from pathlib import Path
from typing import Any
from unittest import mock


def run_cell(number: int, source: str, namespace: dict[str, Any]) -> Any:
    """Run a cell; returns the value of its last line, if that is an expression, which a notebook displays."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), name, "eval"), namespace)


def code_cells(notebook: Path) -> list[str]:
    """The sources of the cells with code."""
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


if __name__ == "__main__":
    notebook, results = map(Path, sys.argv[1:])
    # the studies of a test are not those of the project
    with mock.patch("search.settings.base_folder", return_value=results.parent):
        for number, source in enumerate(code_cells(notebook)):
            shown = run_cell(number, source, sys.modules["__main__"].__dict__)
            if shown is not None:
                html = shown._repr_html_() if hasattr(shown, "_repr_html_") else ""
                print(f"cell {number}:\n{shown!r}\n{html}", flush=True)
