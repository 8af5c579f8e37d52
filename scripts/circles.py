"""Refuse files that import each other in a circle, whatever their rooms.

``python scripts/circles.py [PACKAGE]`` prints each circle with the lines that make it, and exits 1 when there is one.
Imports inside functions and under ``TYPE_CHECKING`` count: they make a circle work, not good. import-linter compares what
lies side by side, so a folder's ``__init__.py`` and a file in it can be a circle that it does not see.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grimp


def circles(graph: grimp.ImportGraph) -> Iterator[tuple[str, ...]]:
    """Yield the shortest circles, their first module repeated at the end, no two with an import in common.

    Often one import closes many; what is left when these are gone is found by the next run.
    """
    imports = [(a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a)]
    ways_back = [(a, graph.find_shortest_chain(b, a)) for a, b in imports]
    closed = [(a, *back) for a, back in ways_back if back is not None]
    shown: set[tuple[str, str]] = set()
    for circle in sorted(closed, key=lambda c: (len(c), c)):
        steps = set(pairwise(circle))
        if not steps & shown:
            shown |= steps
            yield circle


def told(graph: grimp.ImportGraph, circle: tuple[str, ...], root: Path) -> str:
    """Return a circle as one line, then a line for each of its imports: file, line number, statement."""
    lines = [" -> ".join(circle)]
    for importer, imported in pairwise(circle):
        details = graph.get_import_details(importer=importer, imported=imported)
        lines += [f"  {_file(importer, root)}:{d['line_number']}: {d['line_contents']}" for d in details[:1]]
    return "\n".join(lines)


def _file(module: str, root: Path) -> Path:
    at = root.joinpath(*module.split("."))
    file = at / "__init__.py" if at.is_dir() else at.with_suffix(".py")
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def main(package: str = "muster") -> int:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"There is no package {package} to look at")
    root = Path(spec.submodule_search_locations[0]).parent
    graph = grimp.build_graph(package, cache_dir=None)
    found = [told(graph, circle, root) for circle in circles(graph)]
    if found:
        remedy = "Move what both need to a file below them, or hand it in as an argument; then look again."
        sys.stdout.write("\n".join([*found, f"Circles of files: {len(found)}. {remedy}", ""]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
