// Stores that outlive the memory over them, and a store's whole contents as one comparable value.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "store/cold_store.h"
#include "store/faulty_store.h"

namespace longhold {

// A store to pass to a Memory while the test keeps `base`.
inline std::unique_ptr<ColdStore> Borrow(ColdStore& base) { return NewFaultyStore(&base, {}); }

// (table, key) -> value of all tables.
using StoreContents = std::map<std::pair<int, std::string>, std::string>;

inline StoreContents Contents(ColdStore& store) {
  StoreContents contents;
  for (int table = 0; table < kTableCount; ++table) {
    const Status status = store.Scan(static_cast<Table>(table), "", std::string(16, '\xff'),
                                     [&](std::string_view key, std::string_view value) {
                                       contents[{table, std::string(key)}] = std::string(value);
                                       return true;
                                     });
    if (!status.ok()) contents[{-1, "scan failed"}] = status.ToString();
  }
  return contents;
}

// Describes the first difference; empty if there is none. (Printing two stores of a megabyte helps
// nobody.)
inline std::string Difference(const StoreContents& expected, const StoreContents& got) {
  const auto name = [](const std::pair<int, std::string>& key) {
    std::string text = "table " + std::to_string(key.first) + " key ";
    for (const char c : key.second) {
      const auto byte = static_cast<unsigned char>(c);
      text += byte >= 0x20 && byte < 0x7f ? std::string(1, c) : "." + std::to_string(byte);
    }
    return text;
  };
  for (const auto& [key, value] : expected) {
    const auto it = got.find(key);
    if (it == got.end()) return name(key) + " is missing";
    if (it->second != value) return name(key) + " differs";
  }
  for (const auto& [key, value] : got) {
    if (!expected.contains(key)) return name(key) + " should not be there";
  }
  return "";
}

inline Status PutValue(ColdStore& store, Table table, std::string_view key, std::string value) {
  WriteBatch batch;
  batch.Put(table, key, std::move(value));
  return store.Write(std::move(batch), Durability::kBuffered);
}

inline Status DeleteValue(ColdStore& store, Table table, std::string_view key) {
  WriteBatch batch;
  batch.Delete(table, key);
  return store.Write(std::move(batch), Durability::kBuffered);
}

}  // namespace longhold
