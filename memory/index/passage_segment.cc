#include "memory/index/passage_segment.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "memory/index/segment_bytes.h"

namespace longhold {
namespace {

constexpr char kMagic[4] = {'L', 'H', 'P', 'V'};
constexpr uint32_t kFormatVersion = 1;

// See docs/formats/index.md. All supported machines are little-endian.
struct PassageHeader {
  char magic[4];
  uint32_t version;
  uint32_t document;
  uint32_t token_count;
  uint64_t token_begin;
  uint64_t embedder;
  uint32_t dim;
  uint32_t sentences;
  uint32_t passages;
  uint32_t rules;
};
static_assert(sizeof(PassageHeader) == 48);

// The end of a document's name, from a path's component on if that is possible.
std::string ContextOf(std::string_view name) {
  if (name.size() > kPassageContextBytesMax) {
    name.remove_prefix(name.size() - kPassageContextBytesMax);
    const size_t slash = name.find('/');
    if (slash != std::string_view::npos) name.remove_prefix(slash + 1);
    while (!name.empty() && (name.front() & 0xC0) == 0x80) name.remove_prefix(1);
  }
  return std::string(name) + "\n";
}

// Whether `begins` ascends from 0 and stays below `end`.
bool Ascends(const std::vector<uint16_t>& begins, size_t end) {
  for (size_t i = 1; i < begins.size(); ++i) {
    if (begins[i] <= begins[i - 1]) return false;
  }
  return !begins.empty() && begins.front() == 0 && begins.back() < end;
}

}  // namespace

void EncodeComponents(std::span<const float> components, uint8_t* codes) {
  for (size_t i = 0; i < components.size(); ++i) {
    const float unit = (components[i] + kPassageRange) / (2 * kPassageRange);  // 0..1
    codes[i] = static_cast<uint8_t>(std::clamp(unit * 255.0f, 0.0f, 255.0f));
  }
}

TokenSpan PassageSegment::Sentence(uint32_t sentence) const {
  const bool last = sentence + 1 == sentences.size();
  return {token_begin + sentences[sentence],
          last ? token_end() : token_begin + sentences[sentence + 1]};
}

TokenSpan PassageSegment::Passage(uint32_t passage) const {
  const bool last = passage + 1 == passages.size();
  return {token_begin + sentences[passages[passage]],
          last ? token_end() : token_begin + sentences[passages[passage + 1]]};
}

Result<PassageSegment> PassageSegment::Build(TextEmbedder& embedder, DocumentId document,
                                             std::string_view document_name, uint64_t token_begin,
                                             const TokenText& text) {
  PassageSegment segment{.document = document, .token_begin = token_begin};
  segment.token_count = static_cast<uint32_t>(text.token_bytes.size());
  LH_CHECK(token_begin % kBlockTokens == 0 && segment.token_count > 0 &&
           segment.token_count <= kPassageSegmentTokensMax);
  segment.embedder = embedder.fingerprint();
  segment.dim = embedder.dim();
  const PassageCuts cuts = CutPassagesAndSentences(text);
  std::vector<std::string_view> sentences;
  size_t byte = 0;
  for (size_t s = 0; s < cuts.sentences.size(); ++s) {
    const uint32_t end =
        s + 1 < cuts.sentences.size() ? cuts.sentences[s + 1] : segment.token_count;
    const size_t begin = byte;
    for (uint32_t t = cuts.sentences[s]; t < end; ++t) byte += text.token_bytes[t];
    sentences.push_back(std::string_view(text.text).substr(begin, byte - begin));
    segment.sentences.push_back(static_cast<uint16_t>(cuts.sentences[s]));
  }
  const std::string context = ContextOf(document_name);
  std::vector<TextParts> passages;
  for (size_t p = 0; p < cuts.passages.size(); ++p) {
    const size_t first = cuts.passages[p];
    const size_t end = p + 1 < cuts.passages.size() ? cuts.passages[p + 1] : sentences.size();
    passages.push_back({context, std::span(sentences).subspan(first, end - first)});
    segment.passages.push_back(static_cast<uint16_t>(first));
  }
  LH_ASSIGN_OR_RETURN(const std::vector<float> vectors, embedder.EmbedParts(passages));
  if (segment.dim == 0 || segment.dim > kPassageDimMax ||
      vectors.size() != sentences.size() * segment.dim)
    return Internal("embed " + std::string(document_name) + ": the embedding model gave " +
                    std::to_string(vectors.size()) + " components for " +
                    std::to_string(sentences.size()) + " sentences");
  segment.codes.resize(vectors.size());
  EncodeComponents(vectors, segment.codes.data());
  return segment;
}

const char* PassageSegment::Fault() const {
  if (token_begin % kBlockTokens != 0) return "token_begin is not a multiple of 64";
  if (token_begin / kBlockTokens > UINT32_MAX - kPassageSegmentTokensMax)
    return "token_begin is out of range";
  if (token_count == 0 || token_count > kPassageSegmentTokensMax)
    return "token_count is out of range";
  if (dim == 0 || dim > kPassageDimMax) return "dim is out of range";
  if (!Ascends(sentences, token_count)) return "sentences are out of order";
  if (!Ascends(passages, sentences.size())) return "passages are out of order";
  if (codes.size() != sentences.size() * dim) return "array sizes differ";
  return nullptr;
}

std::string PassageSegment::Encode() const {
  PassageHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kFormatVersion;
  header.document = static_cast<uint32_t>(document);
  header.token_count = token_count;
  header.token_begin = token_begin;
  header.embedder = embedder;
  header.dim = dim;
  header.sentences = static_cast<uint32_t>(sentences.size());
  header.passages = static_cast<uint32_t>(passages.size());
  header.rules = kPassageRules;
  std::string out;
  out.reserve(sizeof header + (sentences.size() + passages.size()) * sizeof(uint16_t) +
              codes.size() + 8);
  const auto append = [&](const void* data, size_t bytes) {
    out.append(static_cast<const char*>(data), bytes);
  };
  append(&header, sizeof header);
  append(sentences.data(), sentences.size() * sizeof(uint16_t));
  append(passages.data(), passages.size() * sizeof(uint16_t));
  append(codes.data(), codes.size());
  AppendChecksum(&out);
  return out;
}

Result<PassageSegment> PassageSegment::Decode(std::string_view bytes) {
  const auto loss = [](std::string_view why) {
    return DataLoss("decode passage segment: " + std::string(why));
  };
  PassageHeader header;
  LH_ASSIGN_OR_RETURN(const size_t body, ReadHeader(bytes, kMagic, "passage segment",
                                                    "not a passage segment", &header));
  if (header.version != kFormatVersion || header.rules != kPassageRules) {
    return FailedPrecondition("decode passage segment: format " + std::to_string(header.version) +
                              " with cutting rules " + std::to_string(header.rules) +
                              "; this version reads format " + std::to_string(kFormatVersion) +
                              " with rules " + std::to_string(kPassageRules));
  }
  // Each factor is checked before the multiplication, and the size before any allocation.
  if (header.dim == 0 || header.dim > kPassageDimMax || header.sentences == 0 ||
      header.sentences > kPassageSegmentTokensMax || header.passages == 0 ||
      header.passages > header.sentences) {
    return loss("a size is out of range");
  }
  const uint64_t codes = uint64_t{header.sentences} * header.dim;
  const uint64_t begins = (uint64_t{header.sentences} + header.passages) * sizeof(uint16_t);
  if (body - sizeof header != begins + codes) return loss("sizes do not fit the length");
  PassageSegment segment{.document = DocumentId{header.document},
                         .token_begin = header.token_begin};
  segment.token_count = header.token_count;
  segment.embedder = header.embedder;
  segment.dim = header.dim;
  const char* in = bytes.data() + sizeof header;
  const auto take = [&in](auto* values, size_t count) {
    values->resize(count);
    std::memcpy(values->data(), in, count * sizeof values->front());
    in += count * sizeof values->front();
  };
  take(&segment.sentences, header.sentences);
  take(&segment.passages, header.passages);
  take(&segment.codes, codes);
  if (const char* fault = segment.Fault()) return loss(fault);
  return segment;
}

}  // namespace longhold
