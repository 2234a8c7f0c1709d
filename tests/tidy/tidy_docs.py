"""Documentation: what a Markdown page names must exist.

- Relative links lead to files of the repository, and their anchors to headings.
- Paths in backticks exist, from the root or from the page's folder. `*` stands for any characters of a name. A program
  may be named by its source without the suffix.
- Identifiers in backticks occur in the sources, outside of comments. The check covers what looks like C++:
  `CamelCase`, `Type::Member`, `kConstant`, `member_`, and names with an underscore inside.

Code blocks are not checked. Pages of history may use identifiers that are gone; their links and paths must exist.
"""

import os
import re

from tidy_tree import CODE_SUFFIXES, FOLDERS, line_of, spaces, without_comments

# Pages of history.
HISTORY = [r"CHANGELOG\.md$", r"docs/decisions/"]
# Where a page's history begins: from there to its end it counts as history.
HISTORY_BEGINS = {"docs/figures.md": re.compile(r"^#+ .*\bappendix\b", re.I | re.M)}

# A phrase that pointed to a design document which no longer exists. Put together here, so that this file has none.
BANNED_PHRASE = re.compile(r"\bdesign,?[\s/#*]+" + r"section\b", re.I)

LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]\n]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)`(?!`)((?:[^`\n]|\n(?!\s*\n))+)`(?!`)")  # within a paragraph
IDENTIFIER = re.compile(r"""
    (?P<qualified> [A-Za-z_]\w*(?:::~?[A-Za-z_]\w*)+ )
  | k[A-Z]\w*
  | [A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*          # CamelCase
  | [a-z][a-z0-9]*(?:_[a-z0-9]+)+_?             # snake_case
  | [a-z][a-z0-9]*_                             # member_
""", re.X)
TEST_NAME = re.compile(r"\bTEST(?:_[FP])?\(\s*\w+,\s*\w+\s*\)")
# A path from the root, or from a page in docs/; and the name of a source file.
PATH = re.compile(rf"(?:\.\./)*(?:{'|'.join([*FOLDERS, 'docs', 'scripts', 'packaging', 'clients', 'formats', 'decisions', 'design'])})/[\w./*-]*")
SOURCE_NAME = re.compile(r"[\w.*-]+\.(?:h|cc|py|fbs|cmake)")


def blocks_blanked(text):
    """Markdown with its code blocks blanked: between fences, and indented after an empty line."""
    text = re.sub(r"^```[\s\S]*?^```", lambda m: spaces(m.group(0)), text, flags=re.M)
    return re.sub(r"(?<=\n\n)(?:(?:    |\t)[^\n]*\n)+", lambda m: spaces(m.group(0)), text)


def anchors(text):
    """The anchors that a Markdown page offers, as the common renderers make them."""
    found = set()
    for match in re.finditer(r"^#{1,6}\s+(.+?)\s*#*$", re.sub(r"```[\s\S]*?```", "", text), re.M):
        title = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", match.group(1)).lower()
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title)))
    return found


def pages(tree):
    for path in tree.files:
        if path.suffix == ".md":
            yield path, tree.text(path)


def check_links(tree):
    for path, text in pages(tree):
        prose = re.sub(r"```[\s\S]*?```|`[^`\n]*`", lambda m: spaces(m.group(0)), text)
        for match in LINK.finditer(prose):
            target = match.group(1) or match.group(2)
            line = line_of(prose, match.start())
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            goal = (tree.root / path.parent / name).resolve() if name else tree.root / path
            if not goal.exists():
                tree.find(path, line, f"link to {target}, which is not there; correct it or write the page")
            elif tree.root.resolve() not in [goal.resolve(), *goal.resolve().parents]:
                tree.find(path, line, f"link to {target} leaves the repository; quote what matters instead")
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text(encoding="utf-8")):
                tree.find(path, line, f"link to {target}: that page has no such heading; correct the anchor")


def source_words(tree):
    """All words of the sources without C++ comments; and for each type or namespace, the words of each source that
    declares or uses it."""
    words, owners = {path.stem for path in tree.files}, {}  # a test or program is named like its file
    for path in tree.files:
        # Inputs of the fuzzers keep old names, as our own checks do.
        if path.suffix == ".md" or path.parts[:2] == ("tests", "tidy") or path.parts[:3] == ("tests", "fuzz", "corpus"):
            continue
        text = tree.text(path)
        if path.suffix in CODE_SUFFIXES:
            text = TEST_NAME.sub("", without_comments(text, keep_literals=True))
        own = set(re.findall(r"\w+", text))
        words |= own
        if path.suffix in CODE_SUFFIXES:
            for match in re.finditer(r"\b(?:class|struct|enum(?:\s+class)?|union|namespace)\s+(?:\[\[\w+\]\]\s+)?(\w+)|\b(\w+)::", text):
                owners.setdefault(match.group(1) or match.group(2), []).append(own)
    return words, owners


def known(name, words, owners):
    """Whether the sources hold this identifier; of `Type::Member` some source must hold both."""
    parts = re.split(r"::~?", name)
    if len(parts) == 1:
        return name in words
    return any(parts[-1] in own for own in owners.get(parts[-2], []))


def history_begin(path, text):
    """The offset in a page at which its history begins."""
    if any(re.match(pattern, str(path)) for pattern in HISTORY):
        return 0
    heading = HISTORY_BEGINS[str(path)].search(text) if str(path) in HISTORY_BEGINS else None
    return heading.start() if heading else len(text)


def check_names(tree):
    words, owners = source_words(tree)
    for path, text in pages(tree):
        prose = blocks_blanked(text)[:history_begin(path, text)]
        for match in SPAN.finditer(prose):
            name = re.sub(r"\(.*\)$", "", match.group(1))
            if IDENTIFIER.fullmatch(name) and not known(name, words, owners):
                tree.find(path, line_of(prose, match.start()), f"`{name}` is not in the sources; name what is there today")


def check_paths(tree):
    files = [str(path) for path in tree.files]
    names = {path.name for path in tree.files}
    everything = {*files, *(str(parent) for path in tree.files for parent in path.parents)}

    def exists(word, page):
        word = word.rstrip("/")
        if "*" in word:
            pattern = re.compile("(?:.*/)?" + re.escape(word).replace(r"\*", "[^/]*"))
            return any(pattern.fullmatch(path) for path in everything)
        return "/" not in word and word in names or not everything.isdisjoint(
            [word, f"{word}.cc", os.path.normpath(f"{page.parent}/{word}")])

    for path, text in pages(tree):
        prose = blocks_blanked(text)
        for match in SPAN.finditer(prose):
            for word in match.group(1).split():
                word = re.sub(r":\d+$", "", word.rstrip(",;:"))
                if (PATH.fullmatch(word) or SOURCE_NAME.fullmatch(word)) and not exists(word, path):
                    tree.find(path, line_of(prose, match.start()), f"`{word}` is not there; name the file as it is called today")


def check_phrase(tree):
    for path in tree.files:
        text = tree.text(path)
        for match in BANNED_PHRASE.finditer(text):
            tree.find(path, line_of(text, match.start()),
                      f"\"{' '.join(match.group(0).split())}\" names a document that is gone; link the page that says it today")


def check_docs(tree):
    check_links(tree)
    check_names(tree)
    check_paths(tree)
    check_phrase(tree)
