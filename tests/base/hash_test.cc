// Compares Hash64 with the vectors of xxHash's own sanity test (its buffer generator, seed 0). The
// lengths cover each of XXH3's code paths: 0, 1-3, 4-8, 9-16, 17-128, 129-240, long. Compares
// Sha256 with the examples of FIPS 180-4.
#include "base/hash.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

namespace longhold {
namespace {

std::string SanityBuffer(size_t size) {
  std::string buffer(size, '\0');
  uint64_t generator = 2654435761u;
  for (char& byte : buffer) {
    byte = static_cast<char>(generator >> 56);
    generator *= 11400714785074694797u;
  }
  return buffer;
}

TEST(Hash64, EqualsTheVectorsOfXxHash) {
  const struct {
    size_t size;
    uint64_t hash;
  } vectors[] = {{0, 0x2D06800538D394C2},   {1, 0xC44BDFF4074EECDB},   {6, 0x27B56A84CD2D7325},
                 {12, 0xA713DAF0DFBB77E7},  {24, 0xA3FE70BF9D3510EB},  {48, 0x397DA259ECBA1F11},
                 {80, 0xBCDEFBBB2C47C90A},  {195, 0xCD94217EE362EC3A}, {403, 0xCDEB804D65C6DEA4},
                 {512, 0x617E49599013CB6B}, {2048, 0xDD59E2C3A5F038E0}};
  for (const auto& v : vectors)
    EXPECT_EQ(Hash64(SanityBuffer(v.size)), v.hash) << v.size << " bytes";
}

TEST(Hash64, DependsOnEveryBit) {
  std::string bytes = SanityBuffer(300);
  const uint64_t hash = Hash64(bytes);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    EXPECT_NE(Hash64(bytes), hash) << "bit " << bit;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

constexpr char kEmpty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kTwoBlocks[] = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
constexpr char kMillionA[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, EqualsTheExamplesOfTheStandard) {
  EXPECT_EQ(Sha256Hex(""), kEmpty);
  EXPECT_EQ(Sha256Hex("abc"), kAbc);
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), kTwoBlocks);
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')), kMillionA);
}

TEST(Sha256, DoesNotDependOnHowUpdatesAreSplit) {
  Sha256 sha;
  for (int i = 0; i < 1000; ++i) {
    sha.Update("");
    sha.Update(std::string(i, 'a'));
    sha.Update(std::string(1000 - i, 'a'));
  }
  EXPECT_EQ(sha.HexDigest(), kMillionA);
}

TEST(Sha256, HashesFilesLargerThanItsBuffer) {
  char directory[] = "/tmp/longhold_hash_XXXXXX";
  ASSERT_NE(mkdtemp(directory), nullptr);
  const std::string path = std::string(directory) + "/file";
  const std::string bytes = SanityBuffer((3 << 20) + 17);
  std::ofstream(path, std::ios::binary) << bytes;
  const auto hash = Sha256File(path);
  ASSERT_TRUE(hash.ok()) << hash.status().ToString();
  EXPECT_EQ(*hash, Sha256Hex(bytes));
  unlink(path.c_str());
  rmdir(directory);
}

TEST(Sha256, NamesTheFileItCannotRead) {
  const auto missing = Sha256File("/nonexistent/file");
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("/nonexistent/file"), std::string::npos);
  EXPECT_EQ(Sha256File("/tmp").status().code(), StatusCode::kInvalidArgument);
}

TEST(RandomHex, DiffersOnEveryCall) {
  EXPECT_EQ(RandomHex(0), "");
  EXPECT_EQ(RandomHex(16).size(), 32u);
  EXPECT_EQ(RandomHex(16).find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(RandomHex(16), RandomHex(16));
}

TEST(EqualInConstantTime, AgreesWithOrdinaryEquality) {
  EXPECT_TRUE(EqualInConstantTime("", ""));
  EXPECT_TRUE(EqualInConstantTime("abc", "abc"));
  EXPECT_FALSE(EqualInConstantTime("abc", "abd"));
  EXPECT_FALSE(EqualInConstantTime("abc", "ab"));
}

}  // namespace
}  // namespace longhold
