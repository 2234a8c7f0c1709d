"""Sizes: a guide, not a limit. Prints the largest file and function of each folder, and what is above the guide.

The lengths of C++ functions come from matching braces, so they are good to a line or two. The hard limit of a file's
length is LINES_MAX in tidy_test.py.
"""

import ast
import re

from tidy_tree import line_of, spaces, without_comments

FUNCTION_LINES_GUIDE = 80
FILE_LINES_GUIDE = 600

DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.M)
TYPE_HEAD = re.compile(r"^(?:template\s*<.*>\s*)?(?:typedef\s+)?(?:class|struct|union|enum)\b[^()=]*(?:alignas\s*\([^)]*\)[^()=]*)?$", re.S)
# Access labels and calls of macros that stand in front of a declaration.
NOT_OF_HEAD = re.compile(r"^(?:\s*(?:public|private|protected)\s*:(?!:)|\s*(?!TEST)[A-Z][A-Z0-9_]+\([^\n]*\)[ \t]*\n)*\s*")
SCOPE_HEAD = re.compile(r"^(?:inline\s+)?namespace\b|^extern\s*$")
CONSTRUCTOR_COLON = re.compile(r"\)\s*(?:noexcept\s*)?:(?!:)")


def function_name(head):
    """The name in front of a function's parameters; for a test "Suite.Name"."""
    test = re.match(r"TEST(?:_[FP])?\s*\(\s*(\w+)\s*,\s*(\w+)\s*\)", head)
    if test:
        return f"{test.group(1)}.{test.group(2)}"
    name = re.search(r"(operator\s*(?:\(\s*\)|[^\s(]+)|[\w~]+(?:<[^<>]*>)?(?:::[\w~]+)*)\s*\(", head)
    return name.group(1) if name else "?"


def cpp_functions(code):
    """(name, first line, lines) of each function that is defined in C++ code."""
    code = DIRECTIVE.sub(lambda m: spaces(m.group(0)), without_comments(code))
    scopes = []     # of each open brace: "scope" (namespace or type), "function" or "other"
    head_begin = 0  # offset at which the current declaration begins
    for match in re.finditer(r"[{};]", code):
        offset, sign = match.start(), match.group(0)
        declaring = all(kind == "scope" for kind, _, _ in scopes)
        if sign == "{":
            raw = code[head_begin:offset]
            head = NOT_OF_HEAD.sub("", raw)
            begin = offset - len(head)
            kind = "other"
            if declaring and (SCOPE_HEAD.match(head) or TYPE_HEAD.match(head.strip())):
                kind = "scope"
            elif declaring and "(" in head and head.count("(") == head.count(")"):
                ends = head.rstrip()[-1]
                member = CONSTRUCTOR_COLON.search(head) and ends not in ")}"  # the brace of a member's initialiser
                assigned = re.search(r"(?<![=!<>+\-*/%&|^])=(?!=)\s*(?:\w[\w:<>, ]*)?$", head) and "operator" not in head
                if not member and not assigned:
                    kind = "function"
            scopes.append((kind, function_name(head) if kind == "function" else "", begin))
            if kind == "scope":
                head_begin = match.end()
        elif sign == "}" and scopes:
            kind, name, begin = scopes.pop()
            if kind == "function":
                yield name, line_of(code, begin), code.count("\n", begin, offset) + 1
            if kind != "other" and all(kind == "scope" for kind, _, _ in scopes):
                head_begin = match.end()
        elif sign == ";" and declaring:
            head_begin = match.end()


def python_functions(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def print_sizes(tree):
    folders, functions, files = {}, [], []
    for path in tree.files:
        if path not in tree.code and path.suffix != ".py":
            continue
        text = tree.text(path)
        lines = text.count("\n")
        files.append((lines, str(path)))
        found = python_functions(text) if path.suffix == ".py" else cpp_functions(text)
        own = [(length, f"{path}:{line}", name) for name, line, length in found]
        functions += own
        folder = folders.setdefault(str(path.parent), [0, 0, (0, ""), (0, "", "")])
        folder[0] += 1
        folder[1] += lines
        folder[2] = max(folder[2], (lines, path.name))
        folder[3] = max([folder[3], *own])
    print(f"{'folder':<22} {'files':>5} {'lines':>6}  {'largest file':<36} largest function")
    for name, (count, lines, (file_lines, file), (length, _, function)) in sorted(folders.items()):
        print(f"{name:<22} {count:>5} {lines:>6}  {f'{file} ({file_lines})':<36} " + (f"{function} ({length})" if length else "-"))
    long_functions = sorted((f for f in functions if f[0] > FUNCTION_LINES_GUIDE), reverse=True)
    long_files = sorted((f for f in files if f[0] > FILE_LINES_GUIDE), reverse=True)
    print(f"\n{len(long_functions)} of {len(functions)} functions have more than {FUNCTION_LINES_GUIDE} lines:")
    for length, place, name in long_functions:
        print(f"{length:>6}  {place}  {name}")
    print(f"\n{len(long_files)} of {len(files)} files have more than {FILE_LINES_GUIDE} lines:")
    for lines, path in long_files:
        print(f"{lines:>6}  {path}")
