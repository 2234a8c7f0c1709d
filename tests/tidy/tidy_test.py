#!/usr/bin/env python3
"""Checks what no compiler checks: layers, third-party confinement, headers that stand alone, banned names, links.

Every finding is one line "file:line: what is wrong; the better way". Exit code 1 when there is any.
Usage: tidy_test.py [--no-compile] [ROOT]     (ROOT defaults to the repository this file is in)

Only the Python standard library is used. Compiling the headers takes most of the time (about 15 s on two cores).
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Which of our folders a folder may include, design section 4: only lower lines, and itself.
LAYERS = {
    "base": [],
    "proto": [],
    "store": ["base", "proto"],
    "attention": ["base"],
    "memory": ["attention", "store", "base", "proto"],
    "model": ["memory", "attention", "store", "base", "proto"],
    "eval": ["model", "memory", "attention", "store", "base", "proto"],
    "service": ["eval", "model", "memory", "attention", "store", "base", "proto"],
}
TOP_FOLDERS = ["clients", "bench", "tests"]  # may include everything
for top in TOP_FOLDERS:
    LAYERS[top] = ["service", "eval", "model", "memory", "attention", "store", "base", "proto", top]
LAYERS["bench"].append("tests")  # benchmarks measure the very cases that the tests prove (attention_cases.h)

# Third-party header (prefix of the include path) -> where it may be included, and why.
# A value is a list of path patterns; "one" means: any single .cc file of ours outside the tests.
CONFINED = [
    (r"rocksdb/", ["store/rocks_store.cc", "tests/store/*"], "go through ColdStore"),
    (r"(llama|ggml|gguf)[\w-]*\.h$", ["model/*", "tests/model/*", "bench/*"], "go through LlamaHost"),
    (r"zstd", "one", "go through the codec that owns it"),
    (r"xxhash", "one", "use the checksum function of base/"),
    (r"openssl/", "one", "use the digest function of base/"),
    (r"CLI/", ["service/*"], "only service/ knows the command line"),
    (r"boost/(asio|beast)", ["service/*", "tests/service/*", "bench/service/*"], "only service/ knows the network"),
    (r"boost/json", ["memory/model/recall_profile.cc", "model/bert_gguf.cc", "service/*", "tests/*", "eval/*", "bench/*"],
     "pass our own types; JSON is read and written at the edge"),
    (r"toml\+\+/|toml\.hpp", ["service/*"], "only service/ knows the config file"),
    (r"faiss/", ["memory/index/ivf_index.cc", "eval/embed_retriever.cc", "bench/*"], "go through RelevanceIndex or Retriever"),
    (r"prometheus/", ["service/server/metrics.cc"], "go through Metrics"),
    (r"(librsvg|cairo)", ["eval/chart_png.cc"], "hand over SVG text; go through RenderPng"),
    (r"(gtest|gmock)/", ["tests/*"], "test code belongs in tests/"),
    (r"benchmark/", ["bench/*"], "benchmarks belong in bench/"),
    (r"(avx\w*|immintrin|x86intrin|emmintrin)\.?\w*$", ["attention/*", "memory/*_kernels*.cc", "base/cpu*", "bench/*"],
     "use the KernelTable"),
]

# Regular expression, where it is allowed, the better way. Searched in code with comments and strings blanked.
BANNED = [
    (r"\bstd::j?thread\b(?!::)", ["base/*", "tests/*", "bench/*"], "use the pools of base/"),
    (r"\bstd::async\b", ["base/*"], "use the pools of base/"),
    (r"(?<![\w:.>])s?rand\s*\(|\bstd::s?rand\b", ["base/*"], "take an Rng argument, so that a failure replays from its seed"),
    (r"\brandom_device\b", ["base/*", "tests/*"], "take an Rng argument; only a test may draw a seed, and it prints it when it fails"),
    (r"(?<![\w.>])(std::)?printf\s*\(|\bstd::cout\b|(?<![\w.>])puts\s*\(|\bfprintf\s*\(\s*stdout\b",
     ["service/*", "tests/*", "bench/*", "eval/*"], "return the text; only service/ prints"),
    (r"\bsystem_clock::now\b|(?<![\w.>:])time\s*\(\s*(NULL|nullptr|0)\s*\)|\bgettimeofday\b", ["base/*"],
     "take a Clock argument"),
    (r"(?<![\w.>:])(std::)?(strcpy|strcat|sprintf|gets|atoi|atof|strtok)\s*\(", ["tests/*"], "use std::string, std::from_chars or snprintf"),
    (r"\busing\s+namespace\s+std\b", [], "name what you use"),
    (r"(?<![\w.>:])(std::)?system\s*\(|\bpopen\s*\(", [], "run programs with an argument vector, never through a shell"),
    (r"#\s*include\s*<(format|expected|ranges|bits/)", [], "GCC 12 and clang 14 must both accept it"),
]

CODE_SUFFIXES = {".h", ".cc", ".c", ".cpp", ".hpp"}
LINES_MAX = 1000
# Assembled, so that this file does not contain what it forbids. A machine's own paths and package hosts have no place
# in the tree: they hold on one machine only.
FORBIDDEN_TEXT = [
    (re.compile(r"(?<![\w./$}~-])/" + r"(work|root|home/\w)(?=[/\s\"'`)]|$)"), "a path of one machine; use a relative path or an environment variable"),
    (re.compile("|".join(re.escape(a + b) for a, b in [
        ("pypi", ".org"), ("pythonhosted", ".org"), ("deb.debian", ".org"), ("security.debian", ".org"),
        ("registry.npmjs", ".org"), ("crates", ".io"), ("proxy.golang", ".org"), ("huggingface", ".co/"),
        ("repo1.maven", ".org")])), "a package host; leave the address to the package client's configuration"),
]
SKIP_FOLDERS = {".git", "build", "third_party", "__pycache__", "node_modules"}


class Checker:
    def __init__(self, root):
        self.root = root
        self.findings = []
        self.files = sorted(self._list_files())

    def _list_files(self):
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if f not in SKIP_FOLDERS]
            for name in names:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self.root)

    def say(self, path, line, what):
        self.findings.append(f"{path}:{line}: {what}")

    def text(self, path):
        """The file's text, or None for a binary file."""
        data = (self.root / path).read_bytes()
        if b"\0" in data:
            return None
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return None


def matches(path, patterns):
    return any(path.match(pattern) or str(path).startswith(pattern.rstrip("*")) and pattern.endswith("/*")
               for pattern in patterns)


def blank(text):
    """Code with comments and literals replaced by spaces, lines kept."""
    def spaces(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    pattern = re.compile(
        r'R"([^()\\\s]{0,16})\([\s\S]*?\)\1"|//[^\n]*|/\*[\s\S]*?\*/|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'')
    return pattern.sub(spaces, text)


INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)


def includes(text):
    for match in INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2)


def code_files(checker):
    for path in checker.files:
        if path.suffix in CODE_SUFFIXES and path.parts[0] in LAYERS:
            yield path


def check_layers(checker):
    for path in code_files(checker):
        folder = path.parts[0]
        allowed = LAYERS[folder] + [folder]
        for line, quote, target in includes(checker.text(path) or ""):
            first = target.split("/")[0]
            third_party = any(re.match(pattern, target) for pattern, _, _ in CONFINED)
            if quote == '"' and "/" not in target and not third_party:
                checker.say(path, line, f'"{target}" has no folder; write the path from the root, like "base/status.h"')
            elif quote == '"' and target.startswith("."):
                checker.say(path, line, f'"{target}" is relative; write the path from the root, like "base/status.h"')
            elif first in LAYERS and first not in allowed and "/" in target:
                below = ", ".join(LAYERS[folder]) or "nothing of ours"
                checker.say(path, line, f"{folder}/ includes {target}, but may only include {below}; "
                                        f"move the shared part down or pass it in from above")


def check_confinement(checker):
    owners = {}
    for path in code_files(checker):
        for line, _, target in includes(checker.text(path) or ""):
            for pattern, where, better in CONFINED:
                if not re.match(pattern, target):
                    continue
                if where == "one":
                    if path.parts[0] not in TOP_FOLDERS:
                        owners.setdefault(pattern, []).append((path, line, target, better))
                elif not matches(path, where):
                    checker.say(path, line, f"<{target}> belongs in {' or '.join(where[:2])}; {better}")
    for uses in owners.values():
        for path, line, target, better in uses:
            others = sorted({str(use[0]) for use in uses} - {str(path)})
            if path.suffix == ".h":
                checker.say(path, line, f"<{target}> in a header; third-party types stop at one .cc file: {better}")
            elif others:
                checker.say(path, line, f"<{target}> is also included by {', '.join(others)}; keep it in one .cc file: {better}")


def check_banned(checker):
    for path in code_files(checker):
        code = blank(checker.text(path) or "")
        for pattern, allowed, better in BANNED:
            if matches(path, allowed):
                continue
            for match in re.finditer(pattern, code):
                line = code.count("\n", 0, match.start()) + 1
                checker.say(path, line, f"{match.group(0).strip()}...; {better}")


def check_headers(checker, compile_headers):
    headers = [path for path in code_files(checker) if path.suffix == ".h"]
    for path in headers:
        if not re.search(r"^#pragma once$", checker.text(path) or "", re.M) and not path.name.endswith("_impl.h"):
            checker.say(path, 1, "no #pragma once; put it above the includes")
    compiler = shutil.which("g++") or shutil.which("c++")
    if not compile_headers or not compiler:
        return
    # X_impl.h is a template in the old sense: several .cc files include it, each after defining what it is built from
    # (the vector type of an instruction set). It has no meaning alone.
    headers = [path for path in headers if not path.name.endswith("_impl.h")]
    # Generated headers (proto/) exist in a build directory only; headers must not need them (style 28).

    def compile_one(path):
        command = [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers",
                   "-I", str(checker.root), "-x", "c++", "-"]
        # Included twice: once shows that it stands alone, twice that it guards itself.
        source = f'#include "{path}"\n#include "{path}"\n'
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False,
                              env={**os.environ, "LC_ALL": "C"})
        return path, done.returncode, done.stderr

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for path, code, errors in pool.map(compile_one, headers):
            if code != 0:
                first = next((l for l in errors.splitlines() if "error:" in l), errors.strip()[:300])
                checker.say(path, 1, f"does not compile on its own; include what it uses ({first.strip()})")


LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]\n]*\]\(([^)\s]+)\)")


def anchors(text):
    """The anchors that a Markdown page offers, as the common renderers make them."""
    found = set()
    for match in re.finditer(r"^#{1,6}\s+(.+?)\s*#*$", re.sub(r"```[\s\S]*?```", "", text), re.M):
        title = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", match.group(1)).lower()
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title)))
    return found


def check_links(checker):
    for path in checker.files:
        if path.suffix != ".md":
            continue
        text = checker.text(path) or ""
        prose = re.sub(r"```[\s\S]*?```|`[^`\n]*`", lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)
        for match in LINK.finditer(prose):
            target = match.group(1) or match.group(2)
            line = prose.count("\n", 0, match.start()) + 1
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            goal = (checker.root / path.parent / name).resolve() if name else checker.root / path
            if not goal.exists():
                checker.say(path, line, f"link to {target}, which is not there; correct it or write the page")
            elif checker.root.resolve() not in [goal.resolve(), *goal.resolve().parents]:
                checker.say(path, line, f"link to {target} leaves the repository; quote what matters instead")
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text(encoding="utf-8")):
                checker.say(path, line, f"link to {target}: that page has no such heading; correct the anchor")


def check_files(checker):
    for path in checker.files:
        text = checker.text(path)
        if text is None:
            continue
        written = path.parts[0] not in ("tests",) or "data" not in path.parts and "golden" not in path.parts
        lines = text.count("\n") + 1
        if lines > LINES_MAX and written:
            checker.say(path, lines, f"{lines} lines, the limit is {LINES_MAX}; ask which noun is missing and split it off")
        for pattern, what in FORBIDDEN_TEXT:
            for match in pattern.finditer(text):
                checker.say(path, text.count("\n", 0, match.start()) + 1, f"{match.group(0)}: {what}")


def check_names(checker):
    for path in code_files(checker):
        if path.suffix not in (".h", ".cc", ".c"):
            checker.say(path, 1, f"suffix {path.suffix}; headers are .h and sources .cc")
        if not re.fullmatch(r"[a-z0-9_]+\.(h|cc|c)", path.name):
            checker.say(path, 1, "file names are snake_case")


def main(arguments):
    compile_headers = "--no-compile" not in arguments
    roots = [a for a in arguments if not a.startswith("--")]
    checker = Checker(Path(roots[0] if roots else Path(__file__).resolve().parents[2]))
    check_layers(checker)
    check_confinement(checker)
    check_banned(checker)
    check_names(checker)
    check_links(checker)
    check_files(checker)
    check_headers(checker, compile_headers)
    for finding in sorted(set(checker.findings)):
        print(finding)
    code = list(code_files(checker))
    print(f"tidy: {len(checker.files)} files, {len(code)} of C and C++, {len(set(checker.findings))} findings")
    return 1 if checker.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
