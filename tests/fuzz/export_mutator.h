// How libFuzzer mutates an export: one value at a time, and within a record one field at a time, to
// boundary values. It also changes bytes anywhere. The harness makes the checksums valid. Only in
// libFuzzer's build; elsewhere this header is empty.
#pragma once

#ifdef LONGHOLD_LIBFUZZER
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "memory/record/records.h"
#include "store/compress.h"
#include "tests/fuzz/export_stream.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace longhold {

class ExportMutator {
 public:
  explicit ExportMutator(unsigned seed) : rng_(seed) {}

  void Change(ExportedMemory* stream) {
    std::vector<ExportedMemory::Value>& values = stream->values;
    if (values.empty()) return;
    ExportedMemory::Value& v = values[rng_() % values.size()];
    const ExportedMemory::Value& other = values[rng_() % values.size()];
    switch (rng_() % 16) {
      case 0: std::swap(v, values.back()); return values.pop_back();
      case 1: return values.push_back({v.kind, v.table, other.key, v.value});
      case 2: v.value = std::string(other.value); return;
      case 3: Bytes(&v.key, 32); return;
      case 4: std::swap(v.table, values.front().table); return;
      case 5:
        values.push_back({v.kind, v.table, v.key, v.value});
        Bytes(&values.back().key, 32);
        return;
      default: return Value(&v.value);
    }
  }

 private:
  uint64_t Number(uint64_t now) {
    static constexpr uint64_t kEnds[] = {0,
                                         1,
                                         2,
                                         3,
                                         4,
                                         63,
                                         64,
                                         65,
                                         127,
                                         128,
                                         255,
                                         256,
                                         4095,
                                         4096,
                                         4097,
                                         65535,
                                         65536,
                                         1u << 20,
                                         (1u << 20) + 1,
                                         1u << 24,
                                         INT32_MAX,
                                         uint64_t{INT32_MAX} + 1,
                                         UINT32_MAX,
                                         uint64_t{1} << 32,
                                         uint64_t{1} << 40,
                                         INT64_MAX,
                                         uint64_t{INT64_MAX} + 1,
                                         UINT64_MAX - 63,
                                         UINT64_MAX};
    switch (rng_() % 6) {
      case 0: return now + 1;
      case 1: return now - 1;
      case 2: return now + 64;
      case 3: return now * 2;
      default: return kEnds[rng_() % std::size(kEnds)];
    }
  }
  template <typename T>
  void One(T* field) {
    *field = static_cast<T>(Number(static_cast<uint64_t>(*field)));
  }
  template <typename T>
  void Many(std::vector<T>* field) {
    switch (rng_() % 4) {
      case 0:
        field->push_back(
            static_cast<T>(Number(field->empty() ? 0 : static_cast<uint64_t>(field->back()))));
        return;
      case 1:
        if (!field->empty()) field->pop_back();
        return;
      default:
        if (!field->empty()) One(&(*field)[rng_() % field->size()]);
        return;
    }
  }
  void Bytes(std::string* bytes, size_t more) {
    const size_t size = bytes->size();
    bytes->resize(size + more);
    bytes->resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes->data()), size, bytes->size()));
  }

  void Change(Manifest* m) {
    switch (rng_() % 13) {
      case 0: return Many(&m->layers);
      case 1: return One(&m->q_heads);
      case 2: return One(&m->kv_heads);
      case 3: return One(&m->head_dim);
      case 4: return Many(&m->scan_layers);
      case 5: return Many(&m->scan_kv_heads);
      case 6: return One(&m->sink_tokens);
      case 7: return One(&m->window_tokens);
      case 8: return One(&m->next_document);
      case 9: return One(&m->index_generation);
      case 10: return Bytes(&m->name, 16);
      case 11: {
        static constexpr const char* kCodecs[] = {"exact", "k5v4", "k4v4", "archive"};
        m->codec = kCodecs[rng_() % 4];
        return;
      }
      default:
        m->scan_layers.push_back(m->scan_layers.empty() ? 0 : m->scan_layers[0]);
        m->scan_kv_heads.push_back(0);
        return;
    }
  }
  void Change(DocumentRecord* d) {
    switch (rng_() % 10) {
      case 0: {
        auto id = static_cast<uint32_t>(d->id);
        One(&id);
        d->id = DocumentId{id};
        return;
      }
      case 1: return Bytes(&d->name, 16);
      case 2: d->aliases.push_back(d->name); return;
      case 3: return One(&d->version);
      case 4: return One(&d->bytes);
      case 5: return One(&d->tokens);
      case 6: return One(&d->committed_tokens);
      case 7: return Many(&d->chunk_tokens);
      case 8: return One(&d->pass_tokens);
      default: return One(&d->assistant_begin);
    }
  }
  void Change(TextChunk* c) {
    switch (rng_() % 7) {
      case 0: return One(&c->byte_begin);
      case 1: return One(&c->line_begin);
      case 2: return One(&c->token_begin);
      case 3: return Bytes(&c->text, 16);
      case 4: return Many(&c->tokens);
      case 5: return Many(&c->token_bytes);
      default:  // moves bytes from one token to another: the sum stays the same
        if (c->token_bytes.size() < 2) return;
        std::swap(c->token_bytes[rng_() % c->token_bytes.size()],
                  c->token_bytes[rng_() % c->token_bytes.size()]);
        return;
    }
  }
  void Change(ResumeRecord* r) {
    switch (rng_() % 4) {
      case 0: return One(&r->tokens);
      case 1: return Bytes(&r->native, 64);
      case 2: return Bytes(&r->window, 64);
      default: return Bytes(&r->keys, 64);
    }
  }
  template <typename Record>
  bool Fields(const Result<Record>& decoded, std::string* value) {
    if (!decoded.ok()) return false;
    Record record = *decoded;
    for (uint64_t n = 1 + rng_() % 2; n > 0; --n) Change(&record);
    *value = Encode(record);
    return true;
  }

  void Value(std::string* value) {
    MendValue(value, 0);
    constexpr size_t kRecordHeader = 12, kSegmentHeader = 40;
    if (value->starts_with("LHR")) {
      const bool fields =
          rng_() % 4 != 0 &&
          (Fields(DecodeManifest(*value), value) || Fields(DecodeDocument(*value), value) ||
           Fields(DecodeTextChunk(*value), value) || Fields(DecodeResume(*value), value));
      if (fields || value->size() < kRecordHeader) return;
      const bool compressed = (*value)[3] == '1';
      Result<std::string> body =
          compressed ? Decompress(std::string_view(*value).substr(kRecordHeader), 1u << 20)
                     : Result<std::string>(value->substr(kRecordHeader));
      if (!body.ok()) return;
      Bytes(&*body, 16);
      *value = value->substr(0, kRecordHeader) + (compressed ? Compress(*body) : *body);
      return;
    }
    // Headers are the smallest part and carry the most meaning.
    if (rng_() % 3 == 0 && value->size() > kSegmentHeader) {
      LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(value->data()), kSegmentHeader, kSegmentHeader);
    } else {
      Bytes(value, 64);
    }
  }

  std::minstd_rand rng_;
};

}  // namespace longhold

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  longhold::ExportedMemory stream =
      longhold::ParseExport({reinterpret_cast<const char*>(data), size});
  if (stream.values.empty() || seed % 16 == 0) return LLVMFuzzerMutate(data, size, max_size);
  longhold::ExportMutator mutator(seed);
  for (unsigned n = 1 + seed / 16 % 3; n > 0; --n) mutator.Change(&stream);
  const std::string out = longhold::MendedExport(std::move(stream));
  if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}
#endif
