#!/usr/bin/env python3
"""Checks what no compiler checks: layers, where third-party headers may be used, headers that stand alone, banned names,
formatting, and that documentation names what exists.

Every finding is one line "file:line: what is wrong; the better way". The exit code is 1 when there is any.
Usage: tidy_test.py [--no-compile] [ROOT]   all checks; ROOT is the repository of this file unless given
       tidy_test.py --format [ROOT]         formats all C++ files in place
       tidy_test.py --sizes [ROOT]          prints the largest files and functions; a guide, never a failure

Only the Python standard library is used, and clang-format. Compiling the headers takes most of the time (about 15 s on
two cores).
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # leaves no __pycache__ in the source tree

from tidy_docs import check_docs
from tidy_layers import check_layers, includes
from tidy_sizes import print_sizes
from tidy_tree import Tree, line_of, matches, without_comments

# Third-party header (prefix of the include path), where it may be included, and the better way.
# "one" in place of the paths means: in any single .cc file of ours outside tests/ and bench/.
CONFINED = [
    (r"rocksdb/", ["store/rocks_store.cc", "tests/store/*"], "go through ColdStore"),
    (r"store/rocks_", ["store/*", "service/cli/main.cc", "tests/*", "bench/*"], "take a StoreProvider; only main.cc chooses the store"),
    (r"(llama|ggml|gguf)[\w-]*\.h$", ["model/*", "tests/model/*", "bench/*"], "go through LlamaHost"),
    (r"zstd", "one", "go through the codec that owns it"),
    (r"xxhash", "one", "use the checksum function of base/"),
    (r"openssl/", "one", "use the digest function of base/"),
    (r"CLI/", ["service/*"], "only service/ knows the command line"),
    (r"boost/(asio|beast)", ["service/*", "tests/service/*", "bench/service/*"], "only service/ knows the network"),
    (r"boost/json", ["memory/model/recall_profile.cc", "model/bert_gguf.cc", "service/*", "tests/*", "eval/*", "bench/*"],
     "pass our own types; JSON is read and written at the edge"),
    (r"toml\+\+/|toml\.hpp", ["service/*"], "only service/ knows the config file"),
    (r"faiss/", ["memory/index/ivf_build.cc", "memory/index/passage_index.cc", "eval/embed_retriever.cc", "bench/*"],
     "go through RelevanceIndex, PassageIndex or Retriever"),
    (r"prometheus/", ["service/server/metrics.cc"], "go through Metrics"),
    (r"(librsvg|cairo)", ["eval/chart_png.cc"], "hand over SVG text; go through RenderPng"),
    (r"(gtest|gmock)/", ["tests/*"], "test code belongs in tests/"),
    (r"benchmark/", ["bench/*"], "benchmarks belong in bench/"),
    (r"(avx\w*|immintrin|x86intrin|emmintrin)\.?\w*$", ["attention/*", "bench/*"], "use the KernelTable"),
]

# Regular expression, where it is allowed, the better way. Applied to code without comments and literals.
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

LINES_MAX = 1000
# The patterns are put together from parts, so that this file does not contain what it forbids. Paths of one machine and
# addresses of package hosts hold on that machine only.
FORBIDDEN_TEXT = [
    (re.compile(r"(?<![\w./$}~-])/" + r"(work|root|home/\w)(?=[/\s\"'`)]|$)"), "a path of one machine; use a relative path or an environment variable"),
    (re.compile("|".join(re.escape(a + b) for a, b in [
        ("pypi", ".org"), ("pythonhosted", ".org"), ("deb.debian", ".org"), ("security.debian", ".org"),
        ("registry.npmjs", ".org"), ("crates", ".io"), ("proxy.golang", ".org"), ("huggingface", ".co/"),
        ("repo1.maven", ".org")])), "a package host; leave the address to the package client's configuration"),
]

CLANG_FORMAT_VERSION = "14.0.6"  # the same as in scripts/lib.sh


def is_third_party(header):
    return any(re.match(pattern, header) for pattern, _, _ in CONFINED)


def check_confinement(tree):
    owners = {}
    for path in tree.code:
        for line, _, header in includes(tree.text(path)):
            for pattern, where, better in CONFINED:
                if not re.match(pattern, header):
                    continue
                if where == "one":
                    if path.parts[0] not in ("tests", "bench"):
                        owners.setdefault(pattern, []).append((path, line, header, better))
                elif not matches(path, where):
                    tree.find(path, line, f"<{header}> belongs in {' or '.join(where[:2])}; {better}")
    for uses in owners.values():
        for path, line, header, better in uses:
            others = sorted({str(use[0]) for use in uses} - {str(path)})
            if path.suffix == ".h":
                tree.find(path, line, f"<{header}> in a header; third-party types stop at one .cc file: {better}")
            elif others:
                tree.find(path, line, f"<{header}> is also included by {', '.join(others)}; keep it in one .cc file: {better}")


def check_banned(tree):
    for path in tree.code:
        code = without_comments(tree.text(path))
        for pattern, allowed, better in BANNED:
            if matches(path, allowed):
                continue
            for match in re.finditer(pattern, code):
                tree.find(path, line_of(code, match.start()), f"{match.group(0).strip()}...; {better}")


def check_headers(tree, compile_headers):
    headers = [path for path in tree.code if path.suffix == ".h"]
    for path in headers:
        if not re.search(r"^#pragma once$", tree.text(path), re.M) and not path.name.endswith("_impl.h"):
            tree.find(path, 1, "no #pragma once; put it above the includes")
    compiler = shutil.which("g++") or shutil.which("c++")
    if not compile_headers or not compiler:
        return
    # Several .cc files include X_impl.h, each after it has defined what the code is built from, such as the vector type
    # of an instruction set. It has no meaning alone.
    headers = [path for path in headers if not path.name.endswith("_impl.h")]
    # Generated headers (proto/) exist in a build directory only, so no header may need them.

    def compile_one(path):
        command = [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers",
                   "-I", str(tree.root), "-x", "c++", "-"]
        # The first include shows that the header stands alone, the second that it guards itself.
        source = f'#include "{path}"\n#include "{path}"\n'
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False,
                              env={**os.environ, "LC_ALL": "C"})
        return path, done.returncode, done.stderr

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for path, code, errors in pool.map(compile_one, headers):
            if code != 0:
                first = next((l for l in errors.splitlines() if "error:" in l), errors.strip()[:300])
                tree.find(path, 1, f"does not compile on its own; include what it uses ({first.strip()})")


def clang_format():
    """The pinned clang-format, or one of the same version in PATH; None when there is neither."""
    cache = os.environ.get("LONGHOLD_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or "/tmp", ".cache"), "longhold")
    pinned = os.path.join(cache, f"clang-format-{CLANG_FORMAT_VERSION}", "clang_format", "data", "bin", "clang-format")
    for program in (pinned, shutil.which("clang-format-14"), shutil.which("clang-format")):
        if not program or not os.access(program, os.X_OK):
            continue
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        if f"version {CLANG_FORMAT_VERSION}" in version:
            return program
    return None


def run_clang_format(tree, arguments):
    """The output of clang-format for all C++ files; None when it is missing, which is a finding."""
    settings = Path(".clang-format")
    program = clang_format()
    if not (tree.root / settings).exists():
        tree.find(settings, 1, "is missing; it holds the settings that all code is formatted with")
        return None
    if not program:
        tree.find(settings, 1, f"no clang-format {CLANG_FORMAT_VERSION} to check with; scripts/setup --tests fetches it")
        return None
    files = [str(path) for path in tree.code]
    groups = [files[i::os.cpu_count() or 2] for i in range(os.cpu_count() or 2)]

    def run(group):
        command = [program, "--style=file", *arguments, *group]
        return subprocess.run(command, cwd=tree.root, capture_output=True, text=True, check=False).stderr if group else ""

    with concurrent.futures.ThreadPoolExecutor(len(groups)) as pool:
        return "".join(pool.map(run, groups))


def check_format(tree):
    places = {}
    for line in (run_clang_format(tree, ["--dry-run", "-Werror"]) or "").splitlines():
        match = re.match(r"(.+?):(\d+):\d+: error: ", line)
        if match:
            places.setdefault(match.group(1), []).append(int(match.group(2)))
    for path, lines in places.items():
        tree.find(path, min(lines), f"not formatted as .clang-format says, in {len(lines)} places; tests/tidy/tidy_test.py --format does it")


def check_files(tree):
    for path in tree.files:
        text = tree.text(path)
        written = path.parts[0] != "tests" or "data" not in path.parts and "golden" not in path.parts
        lines = text.count("\n") + 1
        if lines > LINES_MAX and written:
            tree.find(path, lines, f"{lines} lines, the limit is {LINES_MAX}; ask which noun is missing and split it off")
        for pattern, what in FORBIDDEN_TEXT:
            for match in pattern.finditer(text):
                tree.find(path, line_of(text, match.start()), f"{match.group(0)}: {what}")


def check_names(tree):
    for path in tree.code:
        if path.suffix not in (".h", ".cc", ".c"):
            tree.find(path, 1, f"suffix {path.suffix}; headers are .h and sources .cc")
        if not re.fullmatch(r"[a-z0-9_]+\.(h|cc|c)", path.name):
            tree.find(path, 1, "file names are snake_case")


def main(arguments):
    roots = [argument for argument in arguments if not argument.startswith("--")]
    tree = Tree(Path(roots[0] if roots else Path(__file__).resolve().parents[2]))
    if "--sizes" in arguments:
        print_sizes(tree)
        return 0
    if "--format" in arguments:
        run_clang_format(tree, ["-i"])
    else:
        check_layers(tree, is_third_party)
        check_confinement(tree)
        check_banned(tree)
        check_names(tree)
        check_files(tree)
        check_docs(tree)
        check_format(tree)
        check_headers(tree, "--no-compile" not in arguments)
    for finding in sorted(set(tree.findings)):
        print(finding)
    print(f"tidy: {len(tree.files)} files, {len(tree.code)} of C and C++, {len(set(tree.findings))} findings")
    return 1 if tree.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
