#!/usr/bin/env python3
"""A conversation of LoCoMo as one text, a turn a line, and its questions with the lines that hold their evidence.

  eval/locomo_text.py GITDIR_OR_ZIP 26          prints the text of conversation 26
  ... 26 --questions                            prints its questions: lines, category, question, answer

The source is data/locomo10.zip of the public repository snap-research/locomo (CC BY-NC 4.0), or a git directory of that
repository. A session begins with a line `Session 1, 1:56 pm on 8 May, 2023`; each turn is a line `Speaker: text`, with
the caption of its image, if any, in brackets at the end. Questions of category 5 are adversarial: the conversation does
not answer them, and their evidence is only the place that misleads.
"""
import argparse
import io
import json
import os
import re
import subprocess
import sys
import zipfile

ARCHIVE = "data/locomo10.zip"
MEMBER = "data/multimodal_dialog/locomo10_v2/{}.json"
ADVERSARIAL = 5


def archive(source):
    if os.path.isfile(source):
        return zipfile.ZipFile(source)
    command = ["git", "-C", source, "cat-file", "blob", f"HEAD:{ARCHIVE}"]
    return zipfile.ZipFile(io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout))


def load(source, number):
    """Reads this conversation only, so that the others stay unseen."""
    with archive(source) as opened:
        return json.loads(opened.read(MEMBER.format(number)))


def squeeze(text):
    return " ".join(str(text).split())


def turn_line(turn):
    caption = squeeze(turn.get("blip_caption", ""))
    return f"{turn['speaker']}: {squeeze(turn['text'])}" + (f" [{caption}]" if caption else "")


def is_header(line):
    return re.match(r"Session \d+, ", line) is not None


def text_lines(conversation):
    """The lines of the text, and the line number, from 1, of each turn's id."""
    lines, places = [], {}
    sessions = sorted(int(key[8:]) for key in conversation if re.fullmatch(r"session_\d+", key))
    for session in sessions:
        lines.append(f"Session {session}, {squeeze(conversation[f'session_{session}_date_time'])}")
        for turn in conversation[f"session_{session}"]:
            lines.append(turn_line(turn))
            places[turn["dia_id"]] = len(lines)
    return lines, places


def questions(conversation, places):
    """Dicts with question, answer, category, and lines: all that are needed, or None if there is no answer. Questions
    whose evidence is not known are left out."""
    out = []
    for asked in conversation["qa"]:
        # Some questions have several ids in one string.
        ids = re.findall(r"D\d+:\d+", " ".join(asked.get("evidence", [])))
        lines = sorted({places[i] for i in ids if i in places})
        adversarial = asked["category"] == ADVERSARIAL
        if lines or adversarial:
            out.append({"question": squeeze(asked["question"]), "answer": squeeze(asked.get("answer", "")),
                        "category": asked["category"], "lines": None if adversarial else lines})
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a git directory, or the zip file")
    parser.add_argument("number", type=int, help="number of the conversation")
    parser.add_argument("--questions", action="store_true")
    args = parser.parse_args()
    conversation = load(args.source, args.number)
    lines, places = text_lines(conversation)
    if args.questions:
        for q in questions(conversation, places):
            shown = ",".join(map(str, q["lines"])) if q["lines"] else "-"
            print(f"{shown}\t{q['category']}\t{q['question']}\t{q['answer']}")
    else:
        sys.stdout.write("".join(line + "\n" for line in lines))


if __name__ == "__main__":
    main()
