#!/usr/bin/env python3
"""hit@k of a question file on an existing memory: runs `longhold recall` for each question, without answers.

A line of a question file has evidence labels (separated by commas, any one suffices), a question and accepted answers, separated
by tabs. Lines that begin with # are comments. A span is a hit if a line of its text begins with an evidence label.

  eval/questions.py bible eval/kjv_questions.tsv --model smollm2
  eval/questions.py bible eval/unanswerable_questions.tsv   "-" instead of labels: abstaining is correct
  ... --evidence                                            also prints rank, abstention, token gain and coverage per question
"""
import argparse
import json
import os
import statistics
import subprocess
import sys


def rank_of(spans, labels):
    for rank, span in enumerate(spans, 1):
        if any(line.startswith(label + " ") for line in span["text"].splitlines() for label in labels):
            return rank
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("memory")
    parser.add_argument("questions")
    parser.add_argument("--binary", default=os.path.join(root, "build/release/longhold"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--spans", default="8")
    parser.add_argument("--evidence", action="store_true", help="print rank, abstention, token gain and coverage per question")
    args = parser.parse_args()
    ranks, plan_ms = [], []
    abstained, unanswerable, abstained_wrongly = 0, 0, 0
    for line in open(args.questions, encoding="utf-8"):
        if line.startswith("#") or not line.strip():
            continue
        labels, question = line.rstrip("\n").split("\t")[:2]
        done = subprocess.run([args.binary, "recall", args.memory, question, "--model", args.model, "--spans", args.spans, "--json", "-q"],
                              capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"questions.py: {question}: exit {done.returncode}: {done.stderr.strip()}")
        reply = json.loads(done.stdout)
        rank = None
        if labels.strip() in ("", "-"):
            unanswerable += 1
            abstained += reply["abstained"]
        else:
            rank = rank_of(reply["spans"], labels.split(","))
            ranks.append(rank)
            abstained_wrongly += reply["abstained"]
        plan_ms.append(reply["timings"]["plan_ms"])
        if args.evidence:
            print(f"{rank or '-':>3}  {'abstained' if reply['abstained'] else '':<9}  {reply['token_gain']:.3f}  {reply['coverage'] or 0:.4f}  "
                  f"{question}", file=sys.stderr)
    hits = {f"hit@{k}": sum(r is not None and r <= k for r in ranks) for k in (1, 4, 8)}
    print(json.dumps({"questions": len(ranks), **hits, "abstained_wrongly": abstained_wrongly, "unanswerable": unanswerable,
                      "abstained": abstained, "plan_ms_median": round(statistics.median(plan_ms)),
                      "memory": args.memory, "model": args.model}))


if __name__ == "__main__":
    main()
