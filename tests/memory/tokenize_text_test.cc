// Compares the output of TokenizeText with its input: nothing may be lost, duplicated or moved.
//
// What must hold for any tokenizer: chunks are contiguous in bytes, lines and tokens; each token
// has a byte count, and the counts sum to the chunk's bytes; no chunk ends inside a character. If
// the tokenizer reproduces the text, each token's bytes are its piece. If it drops spaces, they are
// its piece and the spaces around it. Sizes: texts of up to five chunks (32 KiB each), with lines,
// with spaces but no lines, and with neither.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/ingest/ingest.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

bool ContinuesCharacter(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

void ExpectFollow(const ToyModel& model, const std::string& text,
                  const std::vector<TextChunk>& chunks) {
  uint64_t bytes = 0, lines = 0, tokens = 0;
  for (const TextChunk& chunk : chunks) {
    ASSERT_EQ(chunk.byte_begin, bytes);
    ASSERT_EQ(chunk.line_begin, lines);
    ASSERT_EQ(chunk.token_begin, tokens);
    ASSERT_EQ(chunk.text, text.substr(bytes, chunk.text.size()));
    ASSERT_FALSE(chunk.text.empty());
    ASSERT_LE(chunk.text.size(), kChunkBytesMax);
    ASSERT_FALSE(ContinuesCharacter(chunk.text[0]))
        << "chunk at byte " << bytes << " splits a character";
    ASSERT_EQ(chunk.tokens.size(), chunk.token_bytes.size());
    size_t sum = 0;
    for (uint16_t n : chunk.token_bytes) sum += n;
    ASSERT_EQ(sum, chunk.text.size());
    bytes += chunk.text.size();
    lines += static_cast<uint64_t>(std::count(chunk.text.begin(), chunk.text.end(), '\n'));
    tokens += chunk.tokens.size();
  }
  ASSERT_EQ(bytes, text.size());
  ASSERT_FALSE(chunks.empty());
  ASSERT_EQ(chunks[0].tokens[0] == ToyModel::kBos, model.Bos() >= 0);
  for (size_t i = 1; i < chunks.size(); ++i) ASSERT_NE(chunks[i].tokens[0], ToyModel::kBos);
}

TEST(TokenizeText, TokensOfALosslessTokenizerCoverTheirPieces) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const ToyModel model({.bos = seed % 2 == 0});
    const std::string text = RandomText(seed <= 17 ? seed * 37 : seed * 7919, seed);
    const Result<std::vector<TextChunk>> chunks = TokenizeText(model, text);
    ASSERT_TRUE(chunks.ok()) << chunks.status().ToString();
    ExpectFollow(model, text, *chunks);
    for (const TextChunk& chunk : *chunks) {
      size_t at = 0;
      for (size_t i = 0; i < chunk.tokens.size(); ++i) {
        ASSERT_EQ(chunk.text.substr(at, chunk.token_bytes[i]), model.Piece(chunk.tokens[i]))
            << "token " << i;
        at += chunk.token_bytes[i];
      }
    }
  }
}

TEST(TokenizeText, TokensOfATokenizerThatDropsSpacesStayInPlace) {
  const ToyModel model({.collapse_spaces = true});
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const std::string text = RandomText(seed * 2000, seed);
    const Result<std::vector<TextChunk>> chunks = TokenizeText(model, text);
    ASSERT_TRUE(chunks.ok()) << chunks.status().ToString();
    ExpectFollow(model, text, *chunks);
    for (const TextChunk& chunk : *chunks) {
      size_t at = 0;
      for (size_t i = 0; i < chunk.tokens.size(); ++i) {
        // Without the spaces that the tokenizer dropped, the token's bytes are its piece.
        std::string held = chunk.text.substr(at, chunk.token_bytes[i]),
                    piece = model.Piece(chunk.tokens[i]);
        std::erase(held, ' ');
        std::erase(piece, ' ');
        ASSERT_EQ(held, piece) << "token " << i << " at byte " << chunk.byte_begin + at;
        at += chunk.token_bytes[i];
      }
    }
  }
}

TEST(TokenizeText, ASpaceThatTheTokenizerPrependsHasNoBytes) {
  const ToyModel model({.bos = false, .space_prefix = true});
  // The first piece becomes " the", which also occurs later in the text.
  for (const std::string& text :
       {std::string("the river and the stone and the well"), std::string("a stone a well"),
        std::string("x"), std::string(" x")}) {
    const std::vector<TextChunk> chunks = *TokenizeText(model, text);
    ExpectFollow(model, text, chunks);
    size_t at = 0;
    for (size_t i = 0; i < chunks[0].tokens.size(); ++i) {
      std::string held = text.substr(at, chunks[0].token_bytes[i]),
                  piece = model.Piece(chunks[0].tokens[i]);
      std::erase(held, ' ');
      std::erase(piece, ' ');
      EXPECT_EQ(held, piece) << text << ", token " << i;
      at += chunks[0].token_bytes[i];
    }
  }
}

// The text may lack a piece, or contain it only later. Then tokens may be misplaced by some such
// characters in a row (20 bytes here), but no further.
TEST(TokenizeText, TokensOfATokenizerThatComposesCharactersStayNear) {
  const ToyModel model({.bos = false, .compose = true});
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const std::string text = RandomText(seed * 1000, seed);
    const std::vector<TextChunk> chunks = *TokenizeText(model, text);
    ExpectFollow(model, text, chunks);
    for (const TextChunk& chunk : chunks) {
      size_t at = 0, want = 0;  // the token's assigned and true position
      for (size_t i = 0; i < chunk.tokens.size(); ++i) {
        const std::string piece = model.Piece(chunk.tokens[i]);
        const bool composed = piece == "é" && chunk.text.substr(want).starts_with("e\u0301");
        ASSERT_LE(at > want ? at - want : want - at, 20u) << "token " << i << " at byte " << want;
        want += composed ? 3 : piece.size();
        at += chunk.token_bytes[i];
      }
    }
  }
}

TEST(TokenizeText, LongTextIsCutAtLinesThenSpacesThenCharacters) {
  const ToyModel model;
  const auto cut = [&](const std::string& text) {
    const std::vector<TextChunk> chunks = *TokenizeText(model, text);
    ExpectFollow(model, text, chunks);
    return chunks;
  };
  for (const TextChunk& c : cut(PlainText(150000, 1)))
    EXPECT_TRUE(c.text.ends_with('\n') || c.byte_begin + c.text.size() == 150000);

  std::string words;
  while (words.size() < 100000) words += "word " + std::to_string(words.size()) + " ";
  for (const TextChunk& c : cut(words)) EXPECT_TRUE(c.byte_begin == 0 || c.text.starts_with(' '));

  // Characters of 2, 3 and 4 bytes at every offset to the limit.
  for (const std::string& character : {std::string("é"), std::string("語"), std::string("😀")}) {
    for (size_t offset = 0; offset < character.size(); ++offset) {
      std::string text(offset, 'x');
      while (text.size() < 2 * kChunkBytesMax + 100) text += character;
      const std::vector<TextChunk> chunks = cut(text);
      EXPECT_EQ(chunks.size(), 3u);
      EXPECT_GT(chunks[0].text.size(), kChunkBytesMax - 4);
    }
  }
}

TEST(TokenizeText, TextsAroundTheChunkLimitAreWhole) {
  const ToyModel model;
  for (const size_t bytes : {kChunkBytesMax - 1, kChunkBytesMax, kChunkBytesMax + 1}) {
    const std::string text = PlainText(bytes, 3);
    const std::vector<TextChunk> chunks = *TokenizeText(model, text);
    ExpectFollow(model, text, chunks);
    EXPECT_EQ(chunks.size(), bytes > kChunkBytesMax ? 2u : 1u);
  }
  for (const std::string& text :
       {std::string("x"), std::string("\n"), std::string(" "),
        std::string("\n") + std::string(40000, 'x'), std::string(" ") + std::string(40000, 'x'),
        std::string(70000, '\n'), std::string(70000, ' ')}) {
    ExpectFollow(model, text, *TokenizeText(model, text));
  }
}

}  // namespace
}  // namespace longhold
