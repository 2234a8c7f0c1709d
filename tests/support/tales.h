// The memory "tales" of a toy model over a store that the test owns.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "memory/core/memory.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"

namespace longhold {

struct Tales {
  ToyModel model{ToyOptions{.geometry = TinyGeometry()}};
  LexicalVocabulary vocabulary{model.pieces()};

  std::unique_ptr<Memory> Open(std::unique_ptr<ColdStore> store) {
    Result<std::unique_ptr<Memory>> memory = Memory::Open(std::move(store), "tales", &model.info());
    EXPECT_TRUE(memory.ok()) << memory.status().ToString();
    (*memory)->UseVocabulary(&vocabulary);
    return std::move(*memory);
  }
  std::unique_ptr<Memory> Open(ColdStore& store) { return Open(Borrow(store)); }
};

}  // namespace longhold
