#!/usr/bin/env python3
"""Shows that tidy_test.py finds what it says: one small tree per rule with one fault each, and a clean one with none."""

import subprocess
import sys
import tempfile
from pathlib import Path

TIDY = Path(__file__).resolve().parent / "tidy_test.py"
OK = "#pragma once\nnamespace longhold {}\n"
MACHINE_PATH = "/" + "work/main"
HOST = "pypi" + ".org"

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
    "RocksOutsideItsFile": ({"memory/a.cc": "#include <rocksdb/db.h>\n"}, ("memory/a.cc:1", "ColdStore")),
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
    "BrokenLink": ({"README.md": "[a](docs/none.md)\n"}, ("README.md:1", "not there")),
    "BrokenAnchor": ({"README.md": "[a](docs/x.md#three)\n", "docs/x.md": "# Two\n"}, ("README.md:1", "no such heading")),
    "LongFile": ({"base/a.cc": "\n" * 1000}, ("base/a.cc:1001", "1001 lines")),
    "MachinePath": ({"scripts/a": f"cd {MACHINE_PATH}\n"}, ("scripts/a:1", "one machine")),
    "PackageHost": ({"docs/a.md": f"see https://{HOST}/simple\n"}, ("docs/a.md:1", "package host")),
}


def main():
    failed = 0
    for name, (files, expected) in CASES.items():
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                file = Path(root, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            compiled = [] if name in ("Clean", "HeaderNeedsOthers") else ["--no-compile"]
            done = subprocess.run([sys.executable, str(TIDY), *compiled, root], capture_output=True, text=True, check=False)
        findings = done.stdout.splitlines()[:-1]
        if expected is None:
            good = done.returncode == 0 and not findings
        else:
            good = done.returncode == 1 and any(f.startswith(expected[0] + ":") and expected[1] in f for f in findings)
        if not good:
            failed += 1
            print(f"{name}: exit code {done.returncode}, findings {findings}, stderr {done.stderr[-300:]!r}")
    print(f"tidy_selftest: {len(CASES) - failed} of {len(CASES)} cases")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
