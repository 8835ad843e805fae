"""How the parts of the package depend on each other."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each may import what stands after it.
ORDER = ("cli", "export", "applications", "library")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "keras_sspcab":
        parts = ("keras_sspcab", *parts)
    return ".".join(parts).removesuffix(".__init__")


def is_for_types_only(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_of(tree):
    """The names that a module imports, wherever in it, but for types."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if is_for_types_only(node):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, tuple(alias.name for alias in node.names)
        todo += ast.iter_child_nodes(node)


@pytest.fixture(scope="module")
def sources():
    """Syntax trees by module name."""
    return {
        module_name(path): ast.parse(path.read_text())
        for folder in ("keras_sspcab", "applications", "export")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


@pytest.fixture(scope="module")
def graph(sources):
    """By module, the modules of this package that it imports."""
    edges = defaultdict(set)
    for module, tree in sources.items():
        for target, names in imports_of(tree):
            if not target.startswith("keras_sspcab"):
                continue
            found = {f"{target}.{name}" for name in names} & set(sources)
            edges[module] |= found or {target}
    return edges


def package_of(module):
    """The package of a module, or the module itself at the top level."""
    return ".".join(module.split(".")[:2])


def part_of(module):
    """The part of the package that a module belongs to."""
    second = (*module.split("."), "")[1]
    return second if second in ORDER else "library"


def test_dependencies_point_one_way(graph):
    wrong = [
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in targets
        if ORDER.index(part_of(module)) > ORDER.index(part_of(target))
    ]
    assert not wrong


def test_benchmarks_do_not_import_the_command_line():
    wrong = []
    for path in (ROOT / "benchmarks").glob("*.py"):
        for target, _ in imports_of(ast.parse(path.read_text())):
            if target.startswith("keras_sspcab.cli"):
                wrong.append(f"{path.name} -> {target}")
    assert not wrong


def circles_of(graph):
    """Describes each circle in a graph, given the targets of each node."""
    done, path, circles = set(), [], []

    def visit(node):
        if node in path:
            circles.append(" -> ".join([*path[path.index(node) :], node]))
        elif node not in done:
            path.append(node)
            for target in sorted(graph.get(node, ())):
                visit(target)
            path.pop()
            done.add(node)

    for node in sorted(graph):
        visit(node)
    return circles


def test_no_modules_import_each_other_in_circles(graph):
    assert not circles_of(graph)


def test_no_packages_import_each_other_in_circles(graph):
    packages = defaultdict(set)
    for module, targets in graph.items():
        packages[package_of(module)] |= set(map(package_of, targets))
    for package, targets in packages.items():
        targets.discard(package)
    assert not circles_of(packages)


def test_private_names_stay_in_their_package(sources):
    wrong = []
    for module, tree in sources.items():
        for target, names in imports_of(tree):
            if not target.startswith("keras_sspcab"):
                continue
            parts = target.split(".")
            for position, part in enumerate([*parts, *names]):
                if not part.startswith("_") or part.startswith("__"):
                    continue
                home = parts[: min(position, len(parts))]
                if module.split(".")[: len(home)] != home:
                    wrong.append(f"{module}: {target} {names}")
    assert not wrong


def test_the_library_does_not_print(sources):
    wrong = [
        f"{module}, line {node.lineno}"
        for module, tree in sources.items()
        if part_of(module) != "cli"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not wrong
