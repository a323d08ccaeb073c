"""The house holds: who imports whom, how long things are, what the terminal keeps to itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nmlcli"
MODULES = sorted(PACKAGE.rglob("*.py"))
GROUND = {"errors", "allocator", "keyed", "provenance", "atomic", "progress", "version"}
BASE = {"products", "numerics"} | GROUND
# Room -> the rooms it may import, itself apart.
ALLOWED = {
    "cli": {"stages", "tuning", "training", "models", "noise", "data", "report"} | BASE,
    "stages": {"tuning", "training", "models", "noise", "data", "report"} | BASE,
    "tuning": {"training", "models"} | BASE,
    "training": BASE,
    "models": BASE,
    "noise": BASE,
    "data": BASE,
    "report": BASE,
    "products": GROUND,
    "numerics": GROUND,
    "errors": set(),
    "version": set(),
    "progress": set(),
    "allocator": set(),
    "keyed": {"errors"},
    "atomic": {"errors"},
    "provenance": {"errors", "version", "keyed"},
}
MENUS = (
    "noise/kinds.py", "noise/classmaps.py", "noise/terms.py", "products/vectors.py",
    "numerics/measures.py", "numerics/scores.py", "numerics/pools.py", "tuning/methods.py",
    "tuning/presets.py", "tuning/criteria.py",
    "products/formats.py", "data/sources.py", "models/schemes.py", "models/precision.py",
    "training/augmentation.py", "training/schedules.py", "data/generated/menu.py",
    "data/torchvision_sets.py", "models/pooling.py", "training/losses.py", "training/recipes.py",
    "stages/objectives.py",
)  # fmt: skip
HEAVY = {
    "numpy", "torch", "h5py", "timm", "torchvision", "PIL", "safetensors", "rich", "matplotlib",
    "open_clip", "transformers", "scipy", "sklearn",
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(nodes: list[ast.stmt], inside: bool = False) -> Iterator[str]:
    """Modules imported by statements, at the top or everywhere, but for TYPE_CHECKING blocks."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from imports(node.orelse, inside)
        elif inside or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            children = [
                child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node
            ]
            yield from imports([child for child in children if child in _own(node)], inside)


def _own(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        found += [child] if isinstance(child, ast.stmt) else _own(child)
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "nmlcli" and len(parts) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    room = parts[0]
    if room in ("__init__", "__main__"):
        return
    known = {room_of(module) for module in imports(ast.parse(path.read_text()).body, inside=True)}
    assert known - {None, room} <= ALLOWED[room], f"{name_of(path)} imports upwards or sideways"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sizes_and_words(path):
    text = path.read_text()
    assert text.count("\n") <= 400, "a module is a room with one purpose"
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _is_command(path, node):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print in line {node.lineno}"
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}: raise for bad input"
    if text.strip() and path.name != "__init__.py":
        assert ast.get_docstring(tree), "a module says what the room is for"


def _is_command(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command is its declarations, a line or more an option; its body is held to the usual size."""
    if path.parent.name != "cli":
        return False
    return (node.end_lineno or 0) - node.body[0].lineno + 1 <= 60


def test_package_inits_are_empty():
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            assert path.read_text() == "", name_of(path)


@pytest.mark.parametrize("name", MENUS)
def test_menus_are_light(name):
    assert not _reached(PACKAGE / name) & HEAVY


def test_command_modules_are_light():
    for path in (PACKAGE / "cli").glob("*.py"):
        assert not _reached(path) & HEAVY, name_of(path)
        tops = set(imports(ast.parse(path.read_text()).body))
        menus = {"nmlcli." + name.removesuffix(".py").replace("/", ".") for name in MENUS}
        rooms = {module for module in tops if module.startswith("nmlcli.stages.")}
        assert not {module for module in rooms if not module.startswith(tuple(menus))}, name_of(path)


def _reached(path: Path, seen: set[Path] | None = None) -> set[str]:
    """The libraries that importing a module loads, through our own modules."""
    seen = set() if seen is None else seen
    if path in seen:
        return set()
    seen.add(path)
    found: set[str] = set()
    for module in imports(ast.parse(path.read_text()).body):
        if module.startswith("nmlcli."):
            below = PACKAGE.joinpath(*module.split(".")[1:])
            for candidate in (below.with_suffix(".py"), below / "__init__.py"):
                if candidate.exists():
                    found |= _reached(candidate, seen)
        else:
            found.add(module.split(".")[0])
    return found


def test_rich_is_only_in_render():
    for path in MODULES:
        if name_of(path) != "cli/render.py":
            known = set(imports(ast.parse(path.read_text()).body, inside=True))
            assert not {module for module in known if module.split(".")[0] == "rich"}, name_of(path)
