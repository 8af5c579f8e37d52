"""A broad ``except`` stands only at a boundary, and says there why."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "muster"
BROAD = {"Exception", "BaseException", "ExceptionGroup", "BaseExceptionGroup"}
# The linter finds what goes on as if nothing had been; on its line the reason follows the linter's own word.
SILENCED = re.compile(r"# noqa: BLE001 - boundary: \S")
REASON = re.compile(r"# boundary: \S")


def unexplained(text: str) -> Iterator[int]:
    """Yield the lines of broad catches without their reason; what raises the same again catches nothing."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and not raises_again(node):
            first = node.body[0].lineno
            said = lines[node.lineno - 1 : max(first - 1, node.lineno)]
        elif isinstance(node, ast.withitem) and is_broad_suppression(node.context_expr):
            said = lines[max(node.context_expr.lineno - 2, 0) : node.context_expr.lineno]
        else:
            continue
        if not (SILENCED.search(said[0]) or ("BLE001" not in said[0] and any(REASON.search(s) for s in said))):
            yield node.lineno if isinstance(node, ast.ExceptHandler) else node.context_expr.lineno


def is_broad(caught: ast.expr | None) -> bool:
    parts = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(p is None or (isinstance(p, ast.Name) and p.id in BROAD) for p in parts)


def is_broad_suppression(context: ast.expr) -> bool:
    name = ast.unparse(context.func) if isinstance(context, ast.Call) else ""
    return isinstance(context, ast.Call) and name.endswith("suppress") and is_broad(ast.Tuple(context.args))


def raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_every_broad_except_says_that_it_is_a_boundary_and_why() -> None:
    paths = sorted(SOURCE.rglob("*.py"))
    assert SOURCE / "cli" / "__init__.py" in paths
    found = [
        f"{path.relative_to(SOURCE.parents[1])}:{line}: a broad except without its reason: # boundary: ..."
        for path in paths
        for line in unexplained(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    pass\nexcept Exception:\n    pass",
        "try:\n    pass\nexcept Exception:  # noqa: BLE001\n    pass",
        "try:\n    pass\nexcept Exception:  # noqa: BLE001 - it may fail\n    pass",
        "try:\n    pass\nexcept Exception:  # noqa: BLE001\n    # boundary: elsewhere than the linter is told\n    pass",
        "try:\n    pass\nexcept:\n    pass",
        "try:\n    pass\nexcept (ValueError, BaseException) as e:\n    raise OSError from e",
        "try:\n    pass\nexcept* Exception:\n    pass",
        "try:\n    pass\nexcept Exception:  # boundary:\n    pass",
        "with contextlib.suppress(Exception):\n    pass",
        "with one, contextlib.suppress(ValueError, BaseExceptionGroup):\n    pass",
    ],
)
def test_a_broad_except_without_a_reason_is_found(text: str) -> None:
    assert len(list(unexplained(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    pass\nexcept Exception:  # noqa: BLE001 - boundary: a beat must not end the beats\n    pass",
        "try:\n    pass\nexcept Exception as e:\n    # boundary: the library shares no parent\n    raise OSError from e",
        "try:\n    pass\nexcept BaseException:\n    close()\n    raise",
        "try:\n    pass\nexcept (ValueError, OSError):\n    pass",
        "# boundary: what is closed may be gone\nwith contextlib.suppress(Exception):\n    pass",
        "with contextlib.suppress(OSError):\n    pass",
    ],
)
def test_what_says_why_or_catches_little_is_left_alone(text: str) -> None:
    assert list(unexplained(text)) == []
