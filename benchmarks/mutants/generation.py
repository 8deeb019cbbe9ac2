"""The mutants of a file: cosmic-ray's operators, and two of our own, which remove a statement or a method's call.

Of several ways to change one place (`+` to `-`, `*`, ...) one is taken. Annotations are left alone: nothing reads them.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any
from zlib import crc32

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Keyword

Position = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """A changed file: where, by which operator, the changed line before and after, and the whole text."""

    path: str
    function: str
    line: int
    operator: str
    before: str
    after: str
    number: int  # 1, but for the second of two equal lines of a function
    code: str


class RemoveStatement(Operator):
    """Replaces a call, a raise, or an assignment to an attribute or an element by `pass`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Position, Position]]:
        if node.type == "simple_stmt" and has_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        first = node.children[0]
        node.children[0] = Keyword("pass", first.start_pos, first.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class RemoveMethodCall(Operator):
    """Takes the last call off a chain: `x.to(dtype)` becomes `x`. Functions of a module stay."""

    def __init__(self, modules: set[str]) -> None:
        self.modules = modules

    def mutation_positions(self, node: Any) -> Iterator[tuple[Position, Position]]:
        if node.type != "atom_expr" or len(node.children) < 3:
            return
        *rest, name, call = node.children
        is_method = name.type == call.type == "trailer" and (name.children[0], call.children[0]) == (".", "(")
        is_function = rest[0].type == "name" and rest[0].value in self.modules and "(" not in rest[-1].get_code()
        if is_method and not is_function:
            yield name.start_pos, call.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        del node.children[-2:]
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


def has_effect(statement: Any) -> bool:
    if statement.type == "expr_stmt":
        return statement.children[0].type == "atom_expr"
    is_call = statement.type == "atom_expr" and statement.children[-1].children[0] == "("
    return is_call or statement.type == "raise_stmt"


def mutants(root: Path, path: str) -> list[Mutant]:
    """Every mutant of `root/path`, one for each place and kind of change, in the order of lines."""
    source = (root / path).read_text(encoding="utf-8")
    tree, nodes = ast.parse(source), list(ast_nodes(get_ast(source)))
    skipped = list(unread(tree))
    places: dict[tuple[Position, str], list[tuple[str, Operator, int]]] = defaultdict(list)
    for name, operator in operators(imported(tree)):
        positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(positions):
            if not any(first <= start < last for first, last in skipped):
                places[start, name.partition("_")[0]].append((name, operator, occurrence))
    found, alike = [], Counter[tuple[str, str, str]]()
    for (start, family), ways in sorted(places.items(), key=lambda place: place[0]):
        name, operator, occurrence = ways[crc32(f"{path}{start}{family}".encode()) % len(ways)]
        code = mutated(source, operator, occurrence)
        if code is not None and is_different(code, tree):
            text = (function_at(tree, start[0]), *changed_lines(source, code))
            alike[text] += 1
            found.append(Mutant(path, text[0], start[0], name, text[1], text[2], alike[text], code))
    return found


def mutated(source: str, operator: Operator, occurrence: int) -> str | None:
    try:
        return mutate_code(source, operator, occurrence)
    except AttributeError:  # cosmic-ray 8.7 cannot replace an exception with a dotted name
        return None


def imported(tree: ast.Module) -> set[str]:
    """The names that imports bind, modules for the most part."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names}


def function_at(tree: ast.Module, line: int) -> str:
    """The innermost function or class around a line, by name; decorators belong to theirs."""
    name, smallest = "", 0
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            length = (node.end_lineno or first) - first + 1
            if first <= line < first + length and (not smallest or length < smallest):
                name, smallest = node.name, length
    return name


def operators(modules: set[str]) -> Iterator[tuple[str, Operator]]:
    for name in operator_names():
        operator = get_operator(name)
        if not operator.arguments():
            yield name, operator()
    yield "RemoveStatement", RemoveStatement()
    yield "RemoveMethodCall", RemoveMethodCall(modules)


def unread(tree: ast.Module) -> Iterator[tuple[Position, Position]]:
    """The places of annotations, and of what only type checkers read."""
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            parts.append(node)
        for part in parts:
            if isinstance(part, ast.AST):
                located: Any = part
                yield (located.lineno, located.col_offset), (located.end_lineno, located.end_col_offset)


def is_different(code: str, tree: ast.Module) -> bool:
    """Whether it is Python, and another program."""
    try:
        return ast.dump(ast.parse(code)) != ast.dump(tree)
    except SyntaxError:
        return False


def changed_lines(source: str, code: str) -> tuple[str, str]:
    _, _, *lines = unified_diff(source.splitlines(), code.splitlines(), lineterm="", n=0)
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)).strip() for sign in "-+")
    return before, after
