#!/usr/bin/env python3
"""Shows that tidy_test.py finds what it says: small trees with one fault each, and trees without a fault."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

from tidy_layers import check_layers
from tidy_sizes import cpp_functions
from tidy_test import CLANG_FORMAT_VERSION, is_third_party
from tidy_tree import Tree

TIDY = Path(__file__).resolve().parent / "tidy_test.py"
OK = "#pragma once\nnamespace longhold {}\n"
MACHINE_PATH = "/" + "work/main"
HOST = "pypi" + ".org"
OLD_PHRASE = "design, " + "section"

# name: (files, the finding's beginning and a part of its text; None: clean)
CASES = {
    "Clean": ({"base/a.h": OK, "store/b.h": '#pragma once\n#include "base/a.h"\n', "model/m.cc": '#include "llama.h"\n',
               "base/c.cc": '// printf("x") is named here only\nconst char* s = "std::cout";\n',
               "README.md": "[a](docs/x.md#two-words) `[not](a-link)`\n", "docs/x.md": "# Two words\n"}, None),
    "UpwardInclude": ({"base/a.h": OK, "memory/m.h": OK, "base/b.h": '#pragma once\n#include "memory/m.h"\n'},
                      ("base/b.h:2", "may only include")),
    "AttentionMustNotSeeStore": ({"store/a.h": OK, "attention/b.cc": '#include "store/a.h"\n'},
                                 ("attention/b.cc:1", "attention/ includes")),
    "RelativeInclude": ({"base/a.h": OK, "base/b.cc": '#include "a.h"\n'}, ("base/b.cc:1", "from the root")),
    "SubfoldersInOrder": ({"memory/text/a.h": OK, "memory/recall/r.h": OK, "service/common/c.h": OK,
                           "memory/recall/b.cc": '#include <memory>\n\n#include "memory/recall/r.h"\n#include "memory/text/a.h"\n',
                           "memory/engine.cc": '#include "memory/recall/r.h"\n',
                           "service/cli/b.cc": '#include "service/common/c.h"\n'}, None),
    "UpwardSubfolder": ({"memory/recall/r.h": OK, "memory/text/b.cc": '#include "memory/recall/r.h"\n'},
                        ("memory/text/b.cc:1", "memory/text/ includes")),
    "SubfolderMustNotSeeTheEngine": ({"memory/engine.h": OK, "memory/answer/b.cc": '#include "memory/engine.h"\n'},
                                     ("memory/answer/b.cc:1", "memory/answer/ includes")),
    "ServerMustNotSeeCli": ({"service/cli/c.h": OK, "service/server/b.cc": '#include "service/cli/c.h"\n'},
                            ("service/server/b.cc:1", "may only include common")),
    "UnknownSubfolder": ({"memory/misc/a.h": OK}, ("memory/misc/a.h:1", "no place in the order")),
    "ServiceHasNoFilesOfItsOwn": ({"service/a.h": OK}, ("service/a.h:1", "no place in the order")),
    "RocksOutsideItsFile": ({"memory/a.cc": "#include <rocksdb/db.h>\n"}, ("memory/a.cc:1", "ColdStore")),
    "RocksProviderOutsideMain": ({"store/rocks_provider.h": OK, "memory/a.cc": '#include "store/rocks_provider.h"\n'}, ("memory/a.cc:1", "StoreProvider")),
    "LlamaOutsideModel": ({"service/a.cc": '#include "llama.h"\n'}, ("service/a.cc:1", "LlamaHost")),
    "JsonInModel": ({"model/a.cc": "#include <boost/json.hpp>\n"}, ("model/a.cc:1", "at the edge")),
    "ZstdInTwoFiles": ({"store/a.cc": "#include <zstd.h>\n", "memory/b.cc": "#include <zstd.h>\n"},
                       ("memory/b.cc:1", "one .cc file")),
    "XxhashInHeader": ({"base/a.h": "#pragma once\n#include <xxhash.h>\n"}, ("base/a.h:2", "in a header")),
    "NoPragmaOnce": ({"base/a.h": "namespace longhold {}\n"}, ("base/a.h:1", "#pragma once")),
    "HeaderNeedsOthers": ({"base/a.h": "#pragma once\nstd::string f();\n"}, ("base/a.h:1", "on its own")),
    "BareThread": ({"memory/a.cc": "std::thread t;\n"}, ("memory/a.cc:1", "pools")),
    "Printf": ({"memory/a.cc": '\nvoid f() { printf("x"); }\n'}, ("memory/a.cc:2", "only service/ prints")),
    "WallClock": ({"memory/a.cc": "auto t = std::chrono::system_clock::now();\n"}, ("memory/a.cc:1", "Clock")),
    "Rand": ({"memory/a.cc": "int f() { return rand(); }\n"}, ("memory/a.cc:1", "Rng")),
    "Unformatted": ({"base/a.cc": "\nint  x;\n"}, ("base/a.cc:2", "not formatted")),
    "NoFormatSettings": ({".clang-format": None, "base/a.cc": "int x;\n"}, (".clang-format:1", "is missing")),
    "BrokenLink": ({"README.md": "[a](docs/none.md)\n"}, ("README.md:1", "not there")),
    "BrokenAnchor": ({"README.md": "[a](docs/x.md#three)\n", "docs/x.md": "# Two\n"}, ("README.md:1", "no such heading")),
    "BrokenLinkInHistory": ({"CHANGELOG.md": "[a](docs/none.md)\n"}, ("CHANGELOG.md:1", "not there")),
    "NamesThatExist": ({"base/a.cc": "namespace longhold {\nclass HotWindow {\n  int Size(int key_count);\n  int size_;\n};\n"
                                     "constexpr int kBlockTokens = 64;\n}  // namespace longhold\n",
                        "docs/a.md": "`HotWindow::Size(3)`, `size_`, `kBlockTokens`, `key_count`, `base/a.cc:1`, `base/*.cc`, `a.cc`,\n"
                                     "`../base/a.cc`, `base/a --flag`, `GET /v1`, `some words`.\n\n```\nGoneType base/gone.cc\n```\n"}, None),
    "GoneType": ({"docs/a.md": "\n`HotWindow` is gone\n"}, ("docs/a.md:2", "`HotWindow`")),
    "TypeInACommentOnly": ({"base/a.cc": "// HotWindow was here\n", "docs/a.md": "`HotWindow`\n"}, ("docs/a.md:1", "`HotWindow`")),
    "GoneMember": ({"base/a.cc": "struct Plan {};\n", "base/b.cc": "int Size();\n", "docs/a.md": "`Plan::Size`\n"},
                   ("docs/a.md:1", "`Plan::Size`")),
    "GoneConstant": ({"docs/a.md": "`kBlockTokens`\n"}, ("docs/a.md:1", "`kBlockTokens`")),
    "GoneVariable": ({"docs/a.md": "`size_`\n"}, ("docs/a.md:1", "`size_`")),
    "GoneField": ({"docs/a.md": "`spans_max`\n"}, ("docs/a.md:1", "`spans_max`")),
    "HistoryMayNameWhatIsGone": ({"CHANGELOG.md": "`GoneType`\n", "docs/decisions/0001-a.md": "`GoneType`\n",
                                  "docs/figures.md": "# Figures\n\n## Appendix: before\n\n`GoneType`\n"}, None),
    "FiguresBeforeTheAppendix": ({"docs/figures.md": "`GoneType`\n\n## Appendix: before\n"}, ("docs/figures.md:1", "`GoneType`")),
    "GonePath": ({"docs/a.md": "`memory/gone.cc`\n"}, ("docs/a.md:1", "`memory/gone.cc`")),
    "GoneFile": ({"docs/a.md": "`gone.h`\n"}, ("docs/a.md:1", "`gone.h`")),
    "GonePathInACommand": ({"docs/a.md": "`python3 tests/gone.py --all`\n"}, ("docs/a.md:1", "`tests/gone.py`")),
    "GonePathInACommandOverTwoLines": ({"docs/a.md": "`python3\ntests/gone.py` and `base`\n"}, ("docs/a.md:1", "`tests/gone.py`")),
    "OldDesignDocument": ({"base/a.cc": f"// See {OLD_PHRASE} 4.\n"}, ("base/a.cc:1", "document that is gone")),
    "OldDesignDocumentOverTwoLines": ({"base/a.cc": f"// See {OLD_PHRASE} 4.\n".replace(", ", ",\n// ")},
                                      ("base/a.cc:1", "document that is gone")),
    "LongFile": ({"base/a.cc": "\n" * 1000}, ("base/a.cc:1001", "1001 lines")),
    "MachinePath": ({"scripts/a": f"cd {MACHINE_PATH}\n"}, ("scripts/a:1", "one machine")),
    "PackageHost": ({"docs/a.md": f"see https://{HOST}/simple\n"}, ("docs/a.md:1", "package host")),
}


def write_tree(root, files):
    for path, text in {".clang-format": "BasedOnStyle: Google\nColumnLimit: 100\n", **files}.items():
        if text is not None:
            file = Path(root, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


def run_tidy(root, *arguments, **environment):
    return subprocess.run([sys.executable, str(TIDY), *arguments, root], capture_output=True, text=True, check=False,
                          env={**os.environ, **environment})


def run_case(name, files, expected):
    """An empty string, or what is wrong."""
    with tempfile.TemporaryDirectory() as root:
        write_tree(root, files)
        compiled = [] if name in ("Clean", "HeaderNeedsOthers") else ["--no-compile"]
        done = run_tidy(root, *compiled)
    findings = done.stdout.splitlines()[:-1]
    if expected is None:
        good = done.returncode == 0 and not findings
    else:
        good = done.returncode == 1 and any(f.startswith(expected[0] + ":") and expected[1] in f for f in findings)
    return "" if good else f"exit code {done.returncode}, findings {findings}, stderr {done.stderr[-300:]!r}"


def without_clang_format():
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as empty:
        write_tree(root, {"base/a.cc": "int x;\n"})
        done = run_tidy(root, "--no-compile", PATH=empty, LONGHOLD_CACHE=empty)
    return "" if done.returncode == 1 and "scripts/setup --tests fetches it" in done.stdout else done.stdout + done.stderr


def format_in_place():
    with tempfile.TemporaryDirectory() as root:
        write_tree(root, {"base/a.cc": "int  x;\n"})
        done = run_tidy(root, "--format")
        text = Path(root, "base/a.cc").read_text(encoding="utf-8")
    return "" if done.returncode == 0 and text == "int x;\n" else f"{text!r} {done.stdout} {done.stderr}"


def exceptions_of_layers():
    """A listed exception is allowed, and is a finding when nothing needs it any more."""
    with tempfile.TemporaryDirectory() as root:
        write_tree(root, {"memory/recall/r.h": OK, "memory/text/b.cc": '#include "memory/recall/r.h"\n', "memory/text/c.cc": "\n"})
        tree = Tree(Path(root))
        check_layers(tree, is_third_party, {("memory/text/b.cc", "memory/recall/r.h"): "", ("memory/text/c.cc", "memory/recall/r.h"): ""})
    return "" if [f.split(":")[0] for f in tree.findings] == ["memory/text/c.cc"] else str(tree.findings)


def lengths_of_functions():
    code = """#define BODY(x) \\
  { x }
namespace longhold {
struct Point { int x = 0; int Sum() const { return x; } };
const std::vector<int> kNumbers = {Two(), 3};
Engine::Engine(Store& store)
    : store_{store},
      budget_(3) {
  if (store) { Run({1, 2}); }
}
bool operator==(const Point& a, const Point& b) {
  return a.x == b.x;
}
template <typename T>
T Twice(T x) {
  return 2 * x;
}
}  // namespace longhold
TEST(Engine, Starts) {
}
"""
    found = list(cpp_functions(code))
    wanted = [("Sum", 4, 1), ("Engine::Engine", 6, 5), ("operator==", 11, 3), ("Twice", 14, 4), ("Engine.Starts", 19, 2)]
    return "" if found == wanted else str(found)


def sizes_never_fail():
    with tempfile.TemporaryDirectory() as root:
        write_tree(root, {"base/a.cc": "int F() {\n" + "  x();\n" * 700 + "}\n", "base/b.py": "def g():\n    return 1\n"})
        done = run_tidy(root, "--sizes")
    good = done.returncode == 0 and "base/a.cc:1  F" in done.stdout and "   702  base/a.cc\n" in done.stdout
    return "" if good else done.stdout + done.stderr


def same_clang_format_as_setup():
    lib = (TIDY.parents[2] / "scripts" / "lib.sh").read_text(encoding="utf-8")
    return "" if f"CLANG_FORMAT_VERSION={CLANG_FORMAT_VERSION}\n" in lib else "scripts/lib.sh pins another version"


OTHERS = [without_clang_format, same_clang_format_as_setup, format_in_place, exceptions_of_layers, lengths_of_functions, sizes_never_fail]


def main():
    results = {name: run_case(name, files, expected) for name, (files, expected) in CASES.items()}
    results |= {case.__name__: case() for case in OTHERS}
    for name, wrong in results.items():
        if wrong:
            print(f"{name}: {wrong}")
    failed = sum(bool(wrong) for wrong in results.values())
    print(f"tidy_selftest: {len(results) - failed} of {len(results)} cases")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
