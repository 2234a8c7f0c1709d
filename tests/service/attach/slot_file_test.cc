// Slot files: composed bytes against the layout that docs/formats/llama-slot.md specifies (golden
// header bytes), and against the reader, for every combination of version, types, streams and
// transposed values. Hostile bytes are refused and never read past their end.
//
// Values are small integers, which fp16 holds exactly, so everything is compared for equality.
#include "service/attach/slot_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/half.h"

namespace longhold {
namespace {

using testing::HasSubstr;

constexpr TokenId kTokens[] = {1, 9690, 198};

SlotLayout Layout(uint32_t version = 3) { return {.version = version, .layers = 2, .kv_width = 4}; }

float KeyAt(uint32_t layer, uint32_t token, uint32_t c) {
  return static_cast<float>(layer * 100 + token * 10 + c);
}

// Keys count up; values are their negatives.
SlotPrefix Prefix(const SlotLayout& layout) {
  return {.tokens = kTokens, .copy = [layout](uint32_t layer, uint16_t* keys, uint16_t* values) {
            for (uint32_t t = 0; t < 3; ++t) {
              for (uint32_t c = 0; c < layout.kv_width; ++c) {
                *keys++ = ToHalf(KeyAt(layer, t, c));
                *values++ = ToHalf(-KeyAt(layer, t, c));
              }
            }
          }};
}

std::string Bytes(std::initializer_list<uint32_t> words) {
  std::string bytes;
  for (const uint32_t word : words) bytes.append(reinterpret_cast<const char*>(&word), 4);
  return bytes;
}

TEST(SlotFile, HeaderOfVersion3HasTheSpecifiedBytes) {
  const std::string bytes = ComposeSlotFile(Layout(), 0, Prefix(Layout()));
  const std::string header = Bytes({
      0x67677371, 3,                            // "ggsq", version
      3,          1, 9690, 198,                 // tokens
      1,                                        // streams
      3,                                        // cells: position, one sequence, slot
      0,          1, 0,    1,   1, 0, 2, 1, 0,  //
      0,          2,                            // values in rows, layers
      1,          8, 0,                         // keys of layer 0: f16, 8 bytes a row
  });
  EXPECT_EQ(bytes.substr(0, header.size()), header);
  EXPECT_EQ(bytes.size(), header.size() + 3 * 8 + 12 + 24 + 2 * (12 + 24));
}

TEST(SlotFile, HeaderOfVersion4WithPackedTokensAndOwnStreamHasTheSpecifiedBytes) {
  SlotLayout layout = Layout(4);
  layout.packed_tokens = true;
  layout.streams = 3;
  layout.values_transposed = true;
  layout.key_type = SlotType::kFp32;
  const std::string bytes = ComposeSlotFile(layout, 1, Prefix(layout));
  const std::string header = Bytes({
      0x67677371, 4,                         // "ggsq", version
      7, 0xFFFFFFFF, 1, 3, 1, 9690, 198, 0,  // packed tokens: mark, version, count, ...,
                                             // no media
      3, 0,                                  // streams; the first has no cells
      3,                                     // cells of the second
      0, 1, 1, 1, 1, 1, 2, 1, 1,             //
      1, 2, 0, 0,                            // values in columns, layers, no rotated dimensions
      0, 16, 0,                              // keys of layer 0: f32, 16 bytes a row
  });
  EXPECT_EQ(bytes.substr(0, header.size()), header);
  EXPECT_EQ(bytes.substr(bytes.size() - 4), Bytes({0}));  // the last stream has no cells
  // The last layer's values: f16, 2 bytes an element, 4 columns of 3 cells.
  const std::string columns = bytes.substr(bytes.size() - 4 - 24 - 12, 12);
  EXPECT_EQ(columns, Bytes({1, 2, 4}));
}

TEST(SlotFile, ReadingGivesBackWhatWasComposed) {
  for (const uint32_t version : {3u, 4u}) {
    for (const bool packed : {false, true}) {
      for (const bool transposed : {false, true}) {
        for (const SlotType type : {SlotType::kFp16, SlotType::kFp32}) {
          for (const uint32_t streams : {1u, 4u}) {
            SlotLayout layout = Layout(version);
            layout.packed_tokens = packed;
            layout.values_transposed = transposed;
            layout.key_type = type;
            layout.value_type = type == SlotType::kFp16 ? SlotType::kFp32 : SlotType::kFp16;
            layout.streams = streams;
            const std::string bytes = ComposeSlotFile(layout, 2, Prefix(layout));
            EXPECT_LE(bytes.size(), SlotFileBytes(layout, 3));
            const Result<SlotState> state = ParseSlotFile(bytes);
            ASSERT_TRUE(state.ok()) << state.status().ToString();
            EXPECT_EQ(state->layout, layout);
            EXPECT_THAT(state->tokens, testing::ElementsAreArray(kTokens));
            EXPECT_THAT(state->positions, testing::ElementsAre(0, 1, 2));
            for (uint32_t layer = 0; layer < 2; ++layer) {
              for (uint32_t t = 0; t < 3; ++t) {
                for (uint32_t c = 0; c < 4; ++c) {
                  ASSERT_EQ(state->keys[layer][t * 4 + c], KeyAt(layer, t, c));
                  ASSERT_EQ(state->values[layer][t * 4 + c], -KeyAt(layer, t, c));
                }
              }
            }
          }
        }
      }
    }
  }
}

// At each byte, so that every field is cut once.
TEST(SlotFile, ACutFileIsDataLoss) {
  SlotLayout layout = Layout(4);
  layout.packed_tokens = true;
  layout.values_transposed = true;
  const std::string bytes = ComposeSlotFile(layout, 0, Prefix(layout));
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Result<SlotState> state = ParseSlotFile(std::string_view(bytes).substr(0, size));
    ASSERT_FALSE(state.ok()) << size;
    ASSERT_EQ(state.status().code(), StatusCode::kDataLoss) << state.status().ToString();
  }
}

TEST(SlotFile, FlippedBitsNeverReadPastTheEnd) {
  const std::string bytes = ComposeSlotFile(Layout(4), 0, Prefix(Layout(4)));
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    (void)ParseSlotFile(damaged).ok();  // a sanitizer would speak
  }
}

// The word at `index` of a file of version 4 is set to `value`.
Status ParseWith(size_t index, uint32_t value) {
  std::string bytes = ComposeSlotFile(Layout(4), 0, Prefix(Layout(4)));
  std::memcpy(bytes.data() + index * 4, &value, 4);
  return ParseSlotFile(bytes).status();
}

TEST(SlotFile, WhatIsNotSupportedIsRefusedByNameWithTheNextStep) {
  const Status version = ParseWith(1, 5);
  EXPECT_EQ(version.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(version.message(), HasSubstr("version 5"));
  const Status rotated = ParseWith(19, 64);
  EXPECT_EQ(rotated.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(rotated.message(), HasSubstr("--cache-type-k f16"));
  const Status type = ParseWith(21, 8);
  EXPECT_EQ(type.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(type.message(), HasSubstr("ggml type 8"));
  EXPECT_THAT(type.message(), HasSubstr("--cache-type-k f16"));
  EXPECT_EQ(ParseWith(0, 0x12345678).code(), StatusCode::kDataLoss);
  EXPECT_EQ(ParseWith(9, 2).code(), StatusCode::kUnimplemented);  // sequences of the first cell

  const std::string bytes = ComposeSlotFile(Layout(), 0, Prefix(Layout())) + std::string(4, '\0');
  const Status more = ParseSlotFile(bytes).status();
  EXPECT_EQ(more.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(more.message(), HasSubstr("sliding windows"));
}

}  // namespace
}  // namespace longhold
