#include "store/value_index.h"

#include <utility>

#include "base/hash.h"

namespace longhold {
namespace {

// A node of the map, of three lists, and what the allocator adds to each.
constexpr uint64_t kEntryBytes = sizeof(ValueIndex::Entry) + sizeof(std::string) + 16 + 3 * 32 + 32;

}  // namespace

size_t ValueIndex::KeyHash::operator()(std::string_view key) const { return Hash64(key); }

void ValueIndex::Count(const Entry& entry, int sign) {
  const auto add = [sign](uint64_t& sum, uint64_t bytes) { sum += sign > 0 ? bytes : 0 - bytes; };
  add(live_bytes_, entry.place.record_bytes);
  add(value_bytes_, entry.place.value_bytes);
  add(index_bytes_, kEntryBytes + entry.key->capacity());
  if (entry.place.expires_ms != 0) add(keys_expiring_, 1);
}

ValueIndex::Entry* ValueIndex::Find(std::string_view key) {
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : &found->second;
}

void ValueIndex::Touch(Entry* entry) {
  used_.splice(used_.begin(), used_, entry->used);
  if (entry->ram != nullptr) in_ram_.splice(in_ram_.begin(), in_ram_, entry->in_ram);
}

void ValueIndex::Put(std::string_view key, const LogPlace& place, Value ram) {
  Entry* entry = Find(key);
  if (entry == nullptr) {
    const auto [added, is_new] = entries_.emplace(key, Entry{});
    entry = &added->second;
    entry->key = &added->first;
    entry->place = place;
    entry->used = used_.insert(used_.begin(), entry);
    std::list<Entry*>& file = files_[place.file];
    entry->in_file = file.insert(file.end(), entry);
    Count(*entry, +1);
  } else {
    DropRam(entry);
    Move(entry, place);
    Touch(entry);
  }
  if (ram != nullptr) KeepInRam(entry, std::move(ram));
}

void ValueIndex::Move(Entry* entry, const LogPlace& place) {
  Count(*entry, -1);
  std::list<Entry*>& to = files_[place.file];
  const auto from = files_.find(entry->place.file);
  to.splice(to.end(), from->second, entry->in_file);
  if (from->second.empty()) files_.erase(from);
  entry->place = place;
  Count(*entry, +1);
}

void ValueIndex::KeepInRam(Entry* entry, Value value) {
  DropRam(entry);
  ram_value_bytes_ += value->size();
  entry->ram = std::move(value);
  entry->in_ram = in_ram_.insert(in_ram_.begin(), entry);
}

void ValueIndex::DropRam(Entry* entry) {
  if (entry->ram == nullptr) return;
  ram_value_bytes_ -= entry->ram->size();
  entry->ram = nullptr;
  in_ram_.erase(entry->in_ram);
}

void ValueIndex::Erase(Entry* entry) {
  DropRam(entry);
  Count(*entry, -1);
  used_.erase(entry->used);
  const auto file = files_.find(entry->place.file);
  file->second.erase(entry->in_file);
  if (file->second.empty()) files_.erase(file);
  entries_.erase(entries_.find(*entry->key));
}

ValueIndex::Entry* ValueIndex::First(uint64_t file) {
  const auto found = files_.find(file);
  return found == files_.end() ? nullptr : found->second.front();
}

void ValueIndex::ShrinkRam(uint64_t bytes_max) {
  while (!in_ram_.empty() && ram_bytes() > bytes_max) DropRam(in_ram_.back());
}

}  // namespace longhold
