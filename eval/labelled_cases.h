// Labelled cases: texts of one kind, and questions with the places that answer them. What
// `longhold calibrate --cases DIR` reads; `eval/evidence_recall.py --write-cases` writes it.
//
// The questions are lines of two or three columns, separated by tabs:
//   evidence <tab> question <tab> answers
//   db/log.cc:12-15 <tab> Who may ...?            the answer is in these lines
//   a.txt:3,a.txt:90-91 <tab> ...                 any one of these places suffices
//   a.txt:3&b.txt:7 <tab> ...                     all of these places are needed
//   - <tab> ...                                   the texts do not answer the question
// A path is that of a text below texts/, with '/' between folders. It has neither ',' nor '&'.
// Lines are counted from 1. Answers are for human readers. Empty lines and lines that begin with
// '#' are skipped.
//
// Thread use: value types and a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

struct CaseDocument {
  std::string name;  // its path below texts/
  std::string text;  // valid UTF-8, not empty
};

// A place of evidence: whole lines, without the last one's line break. Not empty.
struct EvidencePlace {
  uint32_t document = 0;  // index into LabelledKind::documents
  ByteSpan bytes;
};

struct LabelledCase {
  std::string question;
  std::vector<EvidencePlace> places;  // empty: the texts do not answer the question
  bool all_needed = false;            // else any one place suffices
};

// One kind of text: a book, source code, conversations.
struct LabelledKind {
  std::string name;
  // Each text once. Where two files hold the same bytes, a memory keeps them as one document.
  std::vector<CaseDocument> documents;
  std::vector<LabelledCase> cases;  // at least one has a place of evidence

  size_t answerable() const;
};

inline constexpr size_t kCasesMax = 100'000;
inline constexpr size_t kPlacesMax = 1000;             // of one question
inline constexpr size_t kCaseQuestionBytesMax = 4096;  // a model reads it beside its template

// Parses `questions`, the text of `file`. Errors: invalid_argument, which names file and line, what
// is wrong with it, and what to write instead.
Result<LabelledKind> ParseLabelledCases(std::string name, std::vector<CaseDocument> documents,
                                        std::string_view questions, const std::string& file);

}  // namespace longhold
