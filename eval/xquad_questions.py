#!/usr/bin/env python3
"""Questions of XQuAD on given paragraphs, as a question file for `longhold eval --questions`.

  eval/xquad_questions.py xquad.en.json PARAGRAPHS.txt [--but KNOWN.tsv] [--count N] [--seed N] > QUESTIONS.tsv

PARAGRAPHS.txt has a paragraph a line, after its label. Questions on other paragraphs, and those that KNOWN.tsv has,
are left out, so that a choice made on KNOWN.tsv can be judged by questions that had no part in it. xquad.en.json is
in the public repository google-deepmind/xquad (CC BY-SA 4.0).
"""
import argparse
import json
import random


def squeeze(text):
    return " ".join(text.split())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xquad")
    parser.add_argument("paragraphs")
    parser.add_argument("--but", metavar="KNOWN.tsv")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()

    labels = {}
    for line in open(args.paragraphs, encoding="utf-8"):
        label, _, text = line.rstrip("\n").partition(" ")
        labels[squeeze(text)] = label
    known = set()
    if args.but:
        known = {squeeze(line.split("\t")[1]) for line in open(args.but, encoding="utf-8") if "\t" in line}
    rows = []
    for article in json.load(open(args.xquad, encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            label = labels.get(squeeze(paragraph["context"]))
            for asked in paragraph["qas"] if label else []:
                question = squeeze(asked["question"])
                if question not in known:
                    rows.append((label, question, "|".join(sorted({a["text"] for a in asked["answers"]}))))
    random.Random(args.seed).shuffle(rows)
    for row in rows[: args.count]:
        print("\t".join(row))


if __name__ == "__main__":
    main()
