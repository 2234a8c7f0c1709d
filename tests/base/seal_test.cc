// Sealed bytes (authenticated encryption): the right key and context open them, and nothing else
// does. The cipher is OpenSSL's; one known answer fixes how we use it.
#include "base/seal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "base/text.h"

namespace longhold {
namespace {

using testing::HasSubstr;

const Secret kMaster(std::string(kSealKeyBytes, 'm'));

TEST(Seal, OpensWhatItSealedAndNothingElse) {
  const Seal seal = Seal::Derive(kMaster, "salt", "test");
  for (const std::string& plain :
       {std::string(), std::string("x"), std::string(100000, 'y'), std::string("\0\xff", 2)}) {
    const std::string sealed = *seal.Close(plain, "context");
    EXPECT_EQ(sealed.size(), plain.size() + kSealExtraBytes);
    const Result<std::string> opened = seal.Open(sealed, "context");
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    EXPECT_EQ(*opened, plain);
    EXPECT_EQ(seal.Open(sealed, "context2").status().code(), StatusCode::kDataLoss);
    EXPECT_EQ(seal.Open(sealed + "x", "context").status().code(), StatusCode::kDataLoss);
    for (const Seal& other :
         {Seal::Derive(kMaster, "salt2", "test"), Seal::Derive(kMaster, "salt", "test2"),
          Seal::Derive(Secret(std::string(kSealKeyBytes, 'n')), "salt", "test")}) {
      EXPECT_EQ(other.Open(sealed, "context").status().code(), StatusCode::kDataLoss);
    }
  }
  const std::string sealed = *seal.Close("a short text", "");
  for (size_t i = 0; i < sealed.size(); ++i) {
    EXPECT_FALSE(seal.Open(sealed.substr(0, i), "").ok()) << i;
    std::string changed = sealed;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_FALSE(seal.Open(changed, "").ok()) << i;
  }
  std::set<std::string> nonces;
  for (int i = 0; i < 1000; ++i) nonces.insert(seal.Close("same", "")->substr(0, 12));
  EXPECT_EQ(nonces.size(), 1000u);
}

// OpenSSL counts in int, so a long plaintext passes through it in pieces of 1 MiB.
TEST(Seal, SealsPlaintextsOfManyPieces) {
  const Seal seal = Seal::Derive(kMaster, "salt", "test");
  constexpr size_t kPiece = 1 << 20;
  for (const size_t size : {kPiece - 1, kPiece, kPiece + 1, 3 * kPiece + 5}) {
    std::string plain(size, '\0');
    for (size_t i = 0; i < size; ++i) plain[i] = static_cast<char>(i * 7 + i / 4096);
    const std::string context(size / 2, 'c');
    const std::string sealed = *seal.Close(plain, context);
    EXPECT_EQ(sealed.size(), size + kSealExtraBytes);
    const Result<std::string> opened = seal.Open(sealed, context);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    EXPECT_TRUE(*opened == plain);
    for (size_t at = 20; at < sealed.size(); at += kPiece / 2) {
      std::string changed = sealed;
      changed[at] = static_cast<char>(changed[at] ^ 1);
      EXPECT_FALSE(seal.Open(changed, context).ok()) << at;
    }
    std::string other = context;
    other.back() = 'd';
    EXPECT_FALSE(seal.Open(sealed, other).ok());
  }
}

// A longer plaintext would make the cipher reuse a block of its key stream. The test only reserves
// the address space: none of it may be read.
TEST(Seal, RefusesPlaintextsAboveTheCiphersLimit) {
  const size_t size = kSealBytesMax + 1 + kSealExtraBytes;
  void* const reserved =
      mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(reserved, MAP_FAILED);
  const std::string_view bytes(static_cast<const char*>(reserved), size);
  const Seal seal = Seal::Derive(kMaster, "salt", "test");
  EXPECT_EQ(seal.Close(bytes.substr(0, kSealBytesMax + 1), "").status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(seal.Close("", bytes).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(seal.Open(bytes, "").status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(munmap(reserved, size), 0);
}

// Run by hand: it takes 7 GB of RAM.
TEST(Seal, DISABLED_SealsMoreThanTwoGibibytes) {
  const Seal seal = Seal::Derive(kMaster, "salt", "test");
  std::string plain(2254857830, 'x');  // 2.1 GiB
  Result<std::string> sealed = seal.Close(plain, "context");
  ASSERT_TRUE(sealed.ok());
  const Result<std::string> opened = seal.Open(*sealed, "context");
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(*opened == plain);
  (*sealed)[sealed->size() - 100] ^= 1;
  EXPECT_FALSE(seal.Open(*sealed, "context").ok());
}

// Expected bytes made with Python's cryptography package: HKDF(SHA256, 32, salt,
// info).derive(master), then AESGCM(key).encrypt(nonce, plain, context).
TEST(Seal, MatchesHkdfAndAesGcm) {
  const std::string hex =
      "000102030405060708090a0b4ceb95f8352211226f1a5325c3a221453a776db1e751f71edf7021ff2710af";
  std::string sealed;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    sealed += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  const Result<std::string> plain =
      Seal::Derive(kMaster, "0123456789abcdef", "longhold store").Open(sealed, "context");
  ASSERT_TRUE(plain.ok()) << plain.status().ToString();
  EXPECT_EQ(*plain, "forgets nothing");
}

TEST(SealKey, IsReadFromItsOwnersFile) {
  const std::string path = testing::TempDir() + "seal.key";
  const auto read = [&](const std::string& text, unsigned mode) {
    std::ofstream(path) << text;
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return ReadSealKey(path);
  };
  std::string digits;
  for (int i = 0; i < 32; ++i) digits += "4B";
  EXPECT_EQ(read(digits + "\n", 0600)->view(), std::string(32, 'K'));
  EXPECT_EQ(read(digits, 0400)->view(), std::string(32, 'K'));
  EXPECT_THAT(read(digits, 0640).status().message(), HasSubstr("chmod 600"));
  for (const std::string& bad : {std::string(), digits + "4B", digits.substr(2),
                                 digits.substr(1) + "x", digits + std::string(300, ' ') + "4"}) {
    EXPECT_EQ(read(bad, 0600).status().code(), StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(ReadSealKey("/nowhere.key").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadSealKey(testing::TempDir()).status().code(), StatusCode::kInvalidArgument);
  const std::string fifo = testing::TempDir() + "seal.fifo";
  (void)unlink(fifo.c_str());
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(ReadSealKey(fifo).status().code(), StatusCode::kInvalidArgument)
      << "and nobody waits for a writer";
  EXPECT_EQ(unlink(fifo.c_str()), 0);
}

TEST(Base64, MatchesRfc4648) {
  const std::pair<const char*, const char*> known[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : known) EXPECT_EQ(Base64(plain), coded);
  EXPECT_EQ(Base64("\xff\xfe\xfd"), "//79");
}

}  // namespace
}  // namespace longhold
