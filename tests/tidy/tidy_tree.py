"""The source tree as the checks see it: its files, their text, and code without comments."""

import os
import re
from pathlib import Path

# The folders that hold our C++ code.
FOLDERS = ["base", "proto", "store", "attention", "memory", "model", "eval", "service", "bench", "tests"]
CODE_SUFFIXES = {".h", ".cc", ".c", ".cpp", ".hpp"}
SKIPPED_FOLDERS = {".git", "build", "third_party", "__pycache__", "node_modules"}


class Tree:
    """All files below `root`, and the findings of the checks. Paths are relative to `root`."""

    def __init__(self, root):
        self.root = root
        self.findings = []
        self.files = sorted(self._list_files())
        # C++ files of our own folders.
        self.code = [path for path in self.files if path.suffix in CODE_SUFFIXES and path.parts[0] in FOLDERS]

    def _list_files(self):
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
            for name in names:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self.root)

    def find(self, path, line, what):
        """Adds a finding. `what` says what is wrong and, after a semicolon, the better way."""
        self.findings.append(f"{path}:{line}: {what}")

    def text(self, path):
        """The file's text; empty for a binary file."""
        data = (self.root / path).read_bytes()
        try:
            return "" if b"\0" in data else data.decode("utf-8")
        except UnicodeDecodeError:
            return ""


def line_of(text, offset):
    """The number, from 1, of the line that holds `offset`."""
    return text.count("\n", 0, offset) + 1


def spaces(text):
    """As many spaces; line breaks stay, so that line numbers stay."""
    return re.sub(r"[^\n]", " ", text)


CODE_TOKEN = re.compile(
    r'(?P<literal>R"(?P<mark>[^()\\\s]{0,16})\([\s\S]*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\')'
    r"|//[^\n]*|/\*[\s\S]*?\*/")


def without_comments(code, keep_literals=False):
    """C++ with spaces in place of comments and, unless `keep_literals`, of string and character literals."""
    return CODE_TOKEN.sub(lambda m: m.group(0) if keep_literals and m.group("literal") else spaces(m.group(0)), code)


def matches(path, patterns):
    """Whether one of the patterns fits. "folder/*" stands for everything below the folder."""
    return any(path.match(pattern) or str(path).startswith(pattern.rstrip("*")) and pattern.endswith("/*")
               for pattern in patterns)
