#include <algorithm>
#include <cstring>
#include <utility>

#include "base/hash.h"
#include "memory/index/lexical_index.h"
#include "memory/index/segment_bytes.h"

namespace longhold {

LexicalSegment LexicalSegment::Build(const LexicalVocabulary& vocabulary, DocumentId document,
                                     uint64_t token_begin, std::span<const TokenId> preceding,
                                     std::span<const TokenId> tokens) {
  LH_CHECK(token_begin % kBlockTokens == 0);
  LH_CHECK(!tokens.empty() && tokens.size() <= kLexicalSegmentTokensMax);
  LH_CHECK(preceding.size() <= token_begin);
  std::vector<TokenId> all(preceding.begin(), preceding.end());
  all.insert(all.end(), tokens.begin(), tokens.end());

  LexicalSegment segment{.document = document, .token_begin = token_begin};
  segment.token_count = static_cast<uint32_t>(tokens.size());
  const auto edge = static_cast<uint32_t>(preceding.size());
  for (const LexicalWord& word : vocabulary.Words(all)) {
    if (word.end <= edge) continue;
    if (word.begin < edge) segment.continues = true;
    const uint32_t begin = std::max(word.begin, edge);
    segment.words.push_back(word.id);
    segment.begins.push_back(static_cast<uint16_t>(begin - edge));
    segment.lengths.push_back(static_cast<uint8_t>(std::min<uint32_t>(word.end - begin, 255)));
  }
  return segment;
}

namespace {

constexpr char kMagic[4] = {'L', 'H', 'L', 'X'};
constexpr uint32_t kFormatVersion = 1;

// See docs/formats/index.md. All supported machines are little-endian.
struct SegmentHeader {
  char magic[4];
  uint32_t version;
  uint32_t rules;
  uint32_t document;
  uint64_t token_begin;
  uint32_t token_count;
  uint32_t continues;  // 0 or 1
  uint32_t word_count;
  uint32_t reserved;  // 0
};
static_assert(sizeof(SegmentHeader) == 40);

template <typename T>
void AppendBytes(std::string& out, const std::vector<T>& values) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename T>
const char* TakeBytes(const char* in, size_t count, std::vector<T>& values) {
  values.resize(count);
  if (count > 0) std::memcpy(values.data(), in, count * sizeof(T));
  return in + count * sizeof(T);
}

}  // namespace

const char* LexicalSegment::Fault() const {
  if (token_begin % kBlockTokens != 0) return "token_begin is not a multiple of 64";
  if (token_begin / kBlockTokens > UINT32_MAX - kLexicalSegmentTokensMax)
    return "token_begin is out of range";
  if (token_count == 0 || token_count > kLexicalSegmentTokensMax)
    return "token_count is out of range";
  if (begins.size() != words.size() || lengths.size() != words.size()) return "array sizes differ";
  uint32_t begin = 0;
  for (size_t w = 0; w < words.size(); ++w) {
    if (begins[w] < begin) return "words are out of order";
    begin = begins[w];
    if (lengths[w] == 0 || begin + lengths[w] > token_count)
      return "a word reaches beyond the segment";
  }
  return nullptr;
}

std::string LexicalSegment::Encode() const {
  SegmentHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kFormatVersion;
  header.rules = kLexicalRules;
  header.document = static_cast<uint32_t>(document);
  header.token_begin = token_begin;
  header.token_count = token_count;
  header.continues = continues ? 1 : 0;
  header.word_count = static_cast<uint32_t>(words.size());
  std::string out;
  out.reserve(sizeof header + words.size() * 7 + 8);
  out.append(reinterpret_cast<const char*>(&header), sizeof header);
  AppendBytes(out, words);
  AppendBytes(out, begins);
  AppendBytes(out, lengths);
  AppendChecksum(&out);
  return out;
}

Result<LexicalSegment> LexicalSegment::Decode(std::string_view bytes) {
  const auto loss = [](std::string_view why) {
    return DataLoss("decode lexical segment: " + std::string(why));
  };
  SegmentHeader header;
  LH_ASSIGN_OR_RETURN(const size_t body, ReadHeader(bytes, kMagic, "lexical segment",
                                                    "not a lexical segment", &header));
  if (header.version != kFormatVersion || header.rules != kLexicalRules) {
    return FailedPrecondition("decode lexical segment: format " + std::to_string(header.version) +
                              " with word rules " + std::to_string(header.rules) +
                              "; this version reads format " + std::to_string(kFormatVersion) +
                              " with rules " + std::to_string(kLexicalRules) +
                              ": rebuild the index from the document's tokens");
  }
  if (header.continues > 1 || header.reserved != 0) return loss("unknown flags");
  if (body - sizeof header != uint64_t{header.word_count} * 7)
    return loss("word count does not fit the size");

  LexicalSegment segment{.document = DocumentId{header.document},
                         .token_begin = header.token_begin};
  segment.token_count = header.token_count;
  segment.continues = header.continues == 1;
  const char* in = bytes.data() + sizeof header;
  in = TakeBytes(in, header.word_count, segment.words);
  in = TakeBytes(in, header.word_count, segment.begins);
  TakeBytes(in, header.word_count, segment.lengths);
  if (const char* fault = segment.Fault()) return loss(fault);
  return segment;
}

}  // namespace longhold
