"""Layers: which folder may include which. docs/architecture.md explains the order."""

import re

# Folder -> the folders that it may include, besides itself.
LAYERS = {
    "base": [],
    "proto": [],
    "store": ["base", "proto"],
    "attention": ["base"],
    "memory": ["attention", "store", "base", "proto"],
    "model": ["memory", "attention", "store", "base", "proto"],
    "capi": ["model", "memory", "attention", "store", "base", "proto"],
    "eval": ["model", "memory", "attention", "store", "base", "proto"],
    "service": ["eval", "model", "memory", "attention", "store", "base", "proto"],
    "tests": ["service", "capi", "eval", "model", "memory", "attention", "store", "base", "proto"],
    # Benchmarks measure the same cases that the tests prove (attention_cases.h).
    "bench": ["tests", "service", "eval", "model", "memory", "attention", "store", "base", "proto"],
}

# Folder -> its subfolders, from low to high. A file may include its own subfolder and lower ones. "" stands for the
# files directly in the folder.
SUBFOLDERS = {
    "memory": ["text", "model", "record", "attend", "index", "core", "catalog", "ingest", "recall", "answer", "sidecar", ""],
    "service": ["common", "server", "wire", "resp", "attach", "cli"],
}

# Includes that break the order of subfolders: (file, header) -> why. An entry that is no longer needed is a finding.
EXCEPTIONS = {}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)


def includes(code):
    """(line, quote, header) of each include."""
    for match in INCLUDE.finditer(code):
        yield code.count("\n", 0, match.start()) + 1, match.group(1), match.group(2)


def subfolder(parts):
    """The subfolder of a file, given the parts of its path; "" for a file directly in its folder."""
    return parts[1] if len(parts) > 2 else ""


def check_layers(tree, third_party, exceptions=None):
    """`third_party` tells whether a header is one of another project."""
    exceptions = EXCEPTIONS if exceptions is None else exceptions
    unused = {pair: why for pair, why in exceptions.items() if (tree.root / pair[0]).exists()}
    for path in tree.code:
        folder = path.parts[0]
        for line, quote, header in includes(tree.text(path)):
            first = header.split("/")[0]
            if quote == '"' and "/" not in header and not third_party(header):
                tree.find(path, line, f'"{header}" has no folder; write the path from the root, like "base/status.h"')
            elif quote == '"' and header.startswith("."):
                tree.find(path, line, f'"{header}" is relative; write the path from the root, like "base/status.h"')
            elif first in LAYERS and first != folder and first not in LAYERS[folder] and "/" in header:
                below = ", ".join(LAYERS[folder]) or "nothing of ours"
                tree.find(path, line, f"{folder}/ includes {header}, but may only include {below}; "
                                      f"move the shared part down or pass it in from above")
            elif first == folder and "/" in header and folder in SUBFOLDERS:
                if (str(path), header) in exceptions:
                    unused.pop((str(path), header), None)
                else:
                    check_subfolder(tree, path, line, header)
    for path in tree.code:
        order = SUBFOLDERS.get(path.parts[0])
        if order and subfolder(path.parts) not in order:
            where = ", ".join(f"{path.parts[0]}/{name}" for name in order)
            tree.find(path, 1, f"{path.parent}/ has no place in the order; use one of {where}, or add it in tidy_layers.py")
    for path, header in unused:
        tree.find(path, 1, f"no longer includes {header}; remove this exception from tidy_layers.py")


def check_subfolder(tree, path, line, header):
    order = SUBFOLDERS[path.parts[0]]
    own, other = subfolder(path.parts), subfolder(header.split("/"))
    if own in order and other in order and order.index(other) > order.index(own):
        lower = ", ".join(order[:order.index(own)]) or "no other subfolder"
        tree.find(path, line, f"{path.parent}/ includes {header}, but may only include {lower}; "
                              f"move the shared part down or pass it in from above")
