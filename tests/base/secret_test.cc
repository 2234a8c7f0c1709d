// Secret bytes are overwritten before their memory is freed. A memory resource receives the freed
// memory and inspects it.
#include "base/secret.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <string>
#include <type_traits>
#include <vector>

#include "base/seal.h"

namespace longhold {
namespace {

// A memory resource that frees nothing until its end, so that the test can inspect the memory.
class Watched final : public std::pmr::memory_resource {
 public:
  Watched() : before_(std::pmr::set_default_resource(this)) {}
  ~Watched() override { std::pmr::set_default_resource(before_); }
  // The contents of each block at the moment it was freed.
  const std::vector<std::string>& given_back() const { return given_back_; }

 private:
  void* do_allocate(size_t bytes, size_t) override {
    used_ += bytes;
    return memory_ + used_ - bytes;
  }
  void do_deallocate(void* p, size_t bytes, size_t) override {
    given_back_.emplace_back(static_cast<const char*>(p), bytes);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  std::pmr::memory_resource* const before_;
  char memory_[4096] = {};
  size_t used_ = 0;
  std::vector<std::string> given_back_;
};

TEST(Secret, IsOverwrittenByItsLastOwner) {
  Watched watched;
  const std::string bytes(32, 'k');
  Secret first(bytes);
  Secret second = first;
  EXPECT_EQ(first.view().data(), second.view().data()) << "copies share it";
  first = Secret();
  EXPECT_TRUE(first.empty());
  EXPECT_TRUE(watched.given_back().empty());
  EXPECT_EQ(second.view(), bytes);
  second = Secret();
  EXPECT_EQ(watched.given_back(), std::vector<std::string>{std::string(32, '\0')});
}

TEST(Secret, SealsOverwriteTheirKeys) {
  Watched watched;
  {
    const Secret master(std::string(kSealKeyBytes, 'm'));
    const Seal seal = Seal::Derive(master, "salt", "test"), copy = seal;
    EXPECT_TRUE(copy.Open(*seal.Close("x", ""), "").ok());
  }
  EXPECT_EQ(watched.given_back(), std::vector<std::string>(2, std::string(kSealKeyBytes, '\0')))
      << "the master key and the seal's";
}

TEST(Secret, CanBeEmptyAndIsNotAString) {
  EXPECT_TRUE(Secret().empty());
  EXPECT_TRUE(Secret("").empty());
  EXPECT_EQ(Secret().view(), "");
  static_assert(!std::is_convertible_v<Secret, std::string> &&
                !std::is_convertible_v<Secret, std::string_view>);
  static_assert(!std::is_convertible_v<std::string, Secret>,
                "a string becomes one where somebody says so");
}

TEST(Wipe, OverwritesBytesAndStringsInPlace) {
  char bytes[] = "secret";
  Wipe(bytes);
  EXPECT_TRUE(std::all_of(std::begin(bytes), std::end(bytes), [](char c) { return c == 0; }));
  for (const size_t size : {5u, 1000u}) {  // within the object, and on the heap
    std::string text(size, 's');
    const char* const data = text.data();
    Wipe(&text);
    EXPECT_TRUE(text.empty());
    EXPECT_EQ(text.data(), data);
  }
}

}  // namespace
}  // namespace longhold
