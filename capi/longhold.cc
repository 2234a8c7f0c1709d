#include "capi/longhold.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/user_directories.h"
#include "base/utf8.h"
#include "memory/sidecar/sidecar.h"
#include "model/embedder.h"
#include "model/llama_host.h"
#include "store/rocks_provider.h"

using namespace longhold;

struct lh_home {
  std::unique_ptr<StoreProvider> stores;
  std::unique_ptr<TextEmbedder> embedder;
  std::unique_ptr<Sidecar> sidecar;
  bool read_only = false;
};

struct lh_writer {
  lh_home* home = nullptr;
  std::unique_ptr<Sidecar::Writer> writer;
};

struct lh_plan {
  RecallReply reply;
};

namespace {

thread_local std::string message;

lh_status CodeOf(StatusCode code) { return static_cast<lh_status>(code); }
static_assert(static_cast<int>(StatusCode::kOk) == LH_OK);
static_assert(static_cast<int>(StatusCode::kInvalidArgument) == LH_INVALID_ARGUMENT);
static_assert(static_cast<int>(StatusCode::kNotFound) == LH_NOT_FOUND);
static_assert(static_cast<int>(StatusCode::kAlreadyExists) == LH_ALREADY_EXISTS);
static_assert(static_cast<int>(StatusCode::kFailedPrecondition) == LH_FAILED_PRECONDITION);
static_assert(static_cast<int>(StatusCode::kResourceExhausted) == LH_RESOURCE_EXHAUSTED);
static_assert(static_cast<int>(StatusCode::kDeadlineExceeded) == LH_DEADLINE_EXCEEDED);
static_assert(static_cast<int>(StatusCode::kCancelled) == LH_CANCELLED);
static_assert(static_cast<int>(StatusCode::kUnavailable) == LH_UNAVAILABLE);
static_assert(static_cast<int>(StatusCode::kDataLoss) == LH_DATA_LOSS);
static_assert(static_cast<int>(StatusCode::kUnimplemented) == LH_UNIMPLEMENTED);
static_assert(static_cast<int>(StatusCode::kInternal) == LH_INTERNAL);

// Runs a call: no exception leaves the library, and a failure's message is kept for the thread.
template <typename Call>
lh_status Guarded(const Call& call) noexcept {
  // What the handlers assign is short enough for the string's own buffer, so that it cannot throw.
  try {
    const Status status = call();
    if (!status.ok()) message = status.message();
    return CodeOf(status.code());
  } catch (const std::bad_alloc&) {
    message = "out of memory";
    return LH_RESOURCE_EXHAUSTED;
  } catch (...) {
    message = "internal error";
    return LH_INTERNAL;
  }
}

Status Missing(const char* what) { return InvalidArgument(std::string(what) + " is NULL"); }

// The caller's structure, as this version knows it: members that an older caller does not have are
// 0. Errors: invalid_argument (NULL, or no size), unimplemented (members of a newer version).
template <typename T>
Result<T> Read(const T* given, const char* what) {
  constexpr size_t kSizeMax = 4096;
  if (given == nullptr) return Missing(what);
  if (given->size < sizeof(size_t) || given->size > kSizeMax)
    return InvalidArgument(std::string(what) + ": its member size is not set to its sizeof");
  for (size_t i = sizeof(T); i < given->size; ++i) {
    if (reinterpret_cast<const char*>(given)[i] != 0)
      return Unimplemented(std::string(what) + ": has members of a newer version of longhold.h");
  }
  T out{};
  std::memcpy(&out, given, std::min(sizeof(T), given->size));
  return out;
}

Result<RopeSpec> RopeOf(const lh_rope& rope) {
  RopeSpec spec;
  spec.neox = rope.halves != 0;
  spec.rotary_dims = rope.rotary_dims;
  spec.freq_base = rope.rotary_dims == 0 && rope.freq_base == 0 ? 10000.0f : rope.freq_base;
  spec.freq_scale = rope.freq_scale == 0 ? 1 : rope.freq_scale;
  spec.attn_factor = rope.attn_factor == 0 ? 1 : rope.attn_factor;
  if (rope.rotary_dims > kMaxHeadDim)
    return InvalidArgument("lh_rope: rotary_dims is above " + std::to_string(kMaxHeadDim));
  if (rope.freq_factors != nullptr)
    spec.freq_factors.assign(rope.freq_factors, rope.freq_factors + rope.rotary_dims / 2);
  return spec;
}

Result<ModelDescription> DescriptionOf(const lh_model* given) {
  LH_ASSIGN_OR_RETURN(const lh_model model, Read(given, "lh_model"));
  if (model.name == nullptr || model.fingerprint == nullptr) return Missing("lh_model.name");
  if (model.rope == nullptr || model.rope_count == 0) return Missing("lh_model.rope");
  if (model.pieces == nullptr || model.piece_bytes == nullptr) return Missing("lh_model.pieces");
  if (model.vocab_size > (1u << 22) || model.layer_count > 1024 || model.layers_count > 1024)
    return InvalidArgument("lh_model: more than 4,194,304 tokens or 1,024 layers");
  ModelDescription out;
  out.name = model.name;
  out.fingerprint = model.fingerprint;
  out.layer_count = model.layer_count;
  out.context_length = model.context_length;
  out.bos = model.bos;
  KvGeometry& g = out.geometry;
  if (model.layers != nullptr) {
    g.layers.assign(model.layers, model.layers + model.layers_count);
  } else {
    for (uint32_t l = 0; l < model.layer_count; ++l) g.layers.push_back(l);
  }
  g.q_heads = model.q_heads;
  g.kv_heads = model.kv_heads;
  g.head_dim = model.head_dim;
  g.scale = model.scale != 0      ? model.scale
            : model.head_dim == 0 ? 1
                                  : 1 / std::sqrt(static_cast<float>(model.head_dim));
  if (model.rope_count != 1 && model.rope_count != g.layers.size()) {
    return InvalidArgument("lh_model: has " + std::to_string(model.rope_count) +
                           " position embeddings for " + std::to_string(g.layers.size()) +
                           " layers; give one, or one for each");
  }
  for (size_t l = 0; l < g.layers.size(); ++l) {
    if (model.rope_count == 1 && l > 0) {
      g.rope.push_back(g.rope.front());
      continue;
    }
    // The array's stride is the caller's idea of the structure.
    const auto* bytes = reinterpret_cast<const char*>(model.rope) + l * model.rope->size;
    LH_ASSIGN_OR_RETURN(const lh_rope rope,
                        Read(reinterpret_cast<const lh_rope*>(bytes), "lh_rope"));
    LH_ASSIGN_OR_RETURN(RopeSpec spec, RopeOf(rope));
    g.rope.push_back(std::move(spec));
  }
  out.pieces.reserve(model.vocab_size);
  for (uint32_t t = 0; t < model.vocab_size; ++t) {
    if (model.pieces[t] == nullptr && model.piece_bytes[t] > 0) return Missing("a piece");
    out.pieces.emplace_back(model.pieces[t] == nullptr ? "" : model.pieces[t],
                            model.piece_bytes[t]);
  }
  return out;
}

Result<std::vector<RecallHead>> HeadsOf(const lh_model* given) {
  LH_ASSIGN_OR_RETURN(const lh_model model, Read(given, "lh_model"));
  std::vector<RecallHead> heads;
  if (model.recall_heads_count == 0) return heads;
  if (model.recall_heads == nullptr) return Missing("lh_model.recall_heads");
  if (model.recall_heads_count > kScanHeadsMax)
    return InvalidArgument("lh_model: a memory has at most " + std::to_string(kScanHeadsMax) +
                           " recall heads");
  for (uint32_t h = 0; h < model.recall_heads_count; ++h)
    heads.push_back(
        {.layer = model.recall_heads[h].layer, .kv_head = model.recall_heads[h].kv_head});
  return heads;
}

// That of the program `longhold`, but for its settings file.
Result<std::string> HomeOf(const char* given) {
  if (given != nullptr) return std::string(given);
  const std::string user = HomeDirectory();
  if (const auto home = GetEnvironment("LONGHOLD_HOME")) return ExpandHome(*home, user);
  if (const auto home = DefaultMemoryHome(GetEnvironment, user)) return *home;
  return FailedPrecondition(
      "this user has no home directory; set lh_options.home or LONGHOLD_HOME");
}

// What lh_rows says of the arrays of `model`, whose pointers become `Data`.
template <typename Data>
struct Rows {
  std::vector<Data*> keys, values;
  KvLayout layout;
  size_t tokens = 0;
  int64_t position = 0;
  KvArrays<Data> arrays() const { return {keys, values, layout}; }
};

template <typename Data>
Result<Rows<Data>> RowsOf(const ModelInfo& model, const lh_rows* given) {
  LH_ASSIGN_OR_RETURN(const lh_rows rows, Read(given, "lh_rows"));
  const KvGeometry& g = model.geometry;
  Rows<Data> out;
  if (rows.keys == nullptr || rows.values == nullptr) return Missing("lh_rows.keys or values");
  for (size_t l = 0; l < g.layers.size(); ++l) {
    if (rows.keys[l] == nullptr || rows.values[l] == nullptr)
      return Missing("the keys or values of a layer");
    out.keys.push_back(rows.keys[l]);
    out.values.push_back(rows.values[l]);
  }
  out.layout = {.token_stride = rows.token_stride == 0 ? g.kv_width() : rows.token_stride,
                .head_stride = rows.head_stride == 0 ? g.head_dim : rows.head_stride,
                .float32 = rows.float32 != 0,
                .rotated = rows.rotated != 0};
  out.tokens = rows.tokens;
  out.position = rows.position;
  return out;
}

Result<std::string> NameOf(const char* name, const char* what) {
  if (name == nullptr) return Missing(what);
  return std::string(name);
}

}  // namespace

extern "C" {

const char* lh_message(void) { return message.c_str(); }
int lh_version(void) { return LH_VERSION; }

lh_status lh_open(const lh_options* given, const lh_model* model, lh_home** home) {
  return Guarded([&]() -> Status {
    if (home == nullptr) return Missing("home");
    LH_ASSIGN_OR_RETURN(const lh_options options, Read(given, "lh_options"));
    if ((model == nullptr) == (options.gguf == nullptr))
      return InvalidArgument("lh_open: give a model, or lh_options.gguf, and not both");
    auto opened = std::make_unique<lh_home>();
    opened->read_only = options.read_only != 0;
    if (options.embedder != nullptr) {
      LH_ASSIGN_OR_RETURN(opened->embedder, LoadEmbedder({.path = options.embedder}));
    }
    SidecarOptions with;
    if (options.budget_bytes > 0) with.memory_budget_bytes = options.budget_bytes;
    if (options.codec != nullptr) with.codec = options.codec;
    LH_ASSIGN_OR_RETURN(const std::string directory, HomeOf(options.home));
    opened->stores = NewRocksProvider(directory);
    StoreProvider* const stores = opened->stores.get();
    if (options.gguf != nullptr) {
      LH_ASSIGN_OR_RETURN(
          std::unique_ptr<LanguageModel> loaded,
          LoadLlama({.path = options.gguf,
                     .threads = options.threads != 0
                                    ? options.threads
                                    : std::max(1u, std::thread::hardware_concurrency())}));
      LH_ASSIGN_OR_RETURN(opened->sidecar, Sidecar::Open(stores, std::move(loaded),
                                                         opened->embedder.get(), std::move(with)));
    } else {
      LH_ASSIGN_OR_RETURN(with.heads, HeadsOf(model));
      LH_ASSIGN_OR_RETURN(ModelDescription description, DescriptionOf(model));
      LH_ASSIGN_OR_RETURN(opened->sidecar, Sidecar::Open(stores, std::move(description),
                                                         opened->embedder.get(), std::move(with)));
    }
    *home = opened.release();
    return OkStatus();
  });
}

void lh_close(lh_home* home) { delete home; }

lh_status lh_put_begin(lh_home* home, const char* memory, const lh_document* given,
                       lh_writer** writer) {
  return Guarded([&]() -> Status {
    if (home == nullptr || writer == nullptr) return Missing("home or writer");
    if (home->read_only)
      return FailedPrecondition("the home was opened with read_only; open it without");
    LH_ASSIGN_OR_RETURN(const std::string name, NameOf(memory, "memory"));
    LH_ASSIGN_OR_RETURN(const lh_document document, Read(given, "lh_document"));
    if (document.name == nullptr || document.text == nullptr || document.tokens == nullptr)
      return Missing("lh_document.name, text or tokens");
    GivenDocument put{.name = document.name,
                      .text = {document.text, document.text_bytes},
                      .tokens = {document.tokens, document.tokens_count},
                      .token_bytes = {}};
    if (document.token_bytes != nullptr)
      put.token_bytes = {document.token_bytes, document.tokens_count};
    auto made = std::make_unique<lh_writer>();
    made->home = home;
    LH_ASSIGN_OR_RETURN(made->writer, home->sidecar->Put(name, put));
    *writer = made.release();
    return OkStatus();
  });
}

uint64_t lh_put_position(const lh_writer* writer) {
  return writer == nullptr ? 0 : writer->writer->position();
}

uint32_t lh_put_document(const lh_writer* writer) {
  return writer == nullptr ? 0 : static_cast<uint32_t>(writer->writer->document());
}

lh_status lh_put_rows(lh_writer* writer, const lh_rows* given) {
  return Guarded([&]() -> Status {
    if (writer == nullptr) return Missing("writer");
    LH_ASSIGN_OR_RETURN(const Rows<const void> rows,
                        RowsOf<const void>(writer->home->sidecar->model(), given));
    return writer->writer->Append(rows.arrays(), rows.tokens, rows.position);
  });
}

lh_status lh_put_finish(lh_writer* writer) {
  return Guarded([&]() -> Status {
    if (writer == nullptr) return Missing("writer");
    const std::unique_ptr<lh_writer> ended(writer);
    return ended->writer->Finish();
  });
}

lh_status lh_ingest(lh_home* home, const char* memory, const char* name, const char* text,
                    size_t text_bytes) {
  return Guarded([&]() -> Status {
    if (home == nullptr || name == nullptr || text == nullptr) return Missing("home, name or text");
    if (home->read_only)
      return FailedPrecondition("the home was opened with read_only; open it without");
    LH_ASSIGN_OR_RETURN(const std::string into, NameOf(memory, "memory"));
    IngestInput input;
    input.name = name;
    input.text.assign(text, text_bytes);
    if (const auto bad = FirstInvalidUtf8(input.text))
      return InvalidArgument("document " + input.name + ": byte " + std::to_string(*bad) +
                             " is not UTF-8");
    return home->sidecar->Ingest(into, input, nullptr).status();
  });
}

lh_status lh_plan_make(lh_home* home, const char* memory, const lh_question* given,
                       lh_plan** plan) {
  return Guarded([&]() -> Status {
    if (home == nullptr || plan == nullptr) return Missing("home or plan");
    LH_ASSIGN_OR_RETURN(const std::string name, NameOf(memory, "memory"));
    LH_ASSIGN_OR_RETURN(const lh_question question, Read(given, "lh_question"));
    PlanRequest request;
    if (question.text != nullptr) request.question = question.text;
    request.spans_max = question.spans_max;
    request.tokens_max = question.tokens_max;
    if (question.queries != nullptr) {
      LH_ASSIGN_OR_RETURN(const lh_queries queries, Read(question.queries, "lh_queries"));
      const size_t heads = home->sidecar->head_count();
      if (queries.queries == nullptr && heads > 0) return Missing("lh_queries.queries");
      for (size_t h = 0; h < heads; ++h) {
        if (queries.queries[h] == nullptr) return Missing("the queries of a head");
        request.queries.heads.push_back(queries.queries[h]);
      }
      request.queries.tokens = queries.tokens;
      request.queries.rotated = queries.rotated != 0;
      request.queries.position = queries.position;
    }
    auto made = std::make_unique<lh_plan>();
    LH_ASSIGN_OR_RETURN(made->reply, home->sidecar->Plan(name, request));
    *plan = made.release();
    return OkStatus();
  });
}

void lh_plan_free(lh_plan* plan) { delete plan; }

size_t lh_plan_count(const lh_plan* plan) { return plan == nullptr ? 0 : plan->reply.spans.size(); }

void lh_plan_span(const lh_plan* plan, size_t i, lh_span* span) {
  if (plan == nullptr || span == nullptr || i >= plan->reply.spans.size()) return;
  const RecalledSpan& from = plan->reply.spans[i];
  lh_span out{};
  out.size = span->size;
  out.document = static_cast<uint32_t>(from.document_id);
  out.begin = from.tokens.begin;
  out.end = from.tokens.end;
  out.date_begin = from.date_tokens.begin;
  out.date_end = from.date_tokens.end;
  out.byte_begin = from.bytes.begin;
  out.byte_end = from.bytes.end;
  out.line_begin = from.line_begin;
  out.line_end = from.line_end;
  out.score = from.score;
  out.document_name = from.document.c_str();
  out.text = from.text.c_str();
  out.date_line = from.date_line.c_str();
  std::memcpy(span, &out, std::min(span->size, sizeof(out)));
}

lh_evidence lh_plan_evidence(const lh_plan* plan) {
  return plan == nullptr ? LH_EVIDENCE_NONE : static_cast<lh_evidence>(plan->reply.evidence.level);
}

double lh_plan_coverage(const lh_plan* plan) {
  return plan == nullptr ? -1 : plan->reply.coverage.value_or(-1);
}

lh_status lh_fetch(lh_home* home, const char* memory, const lh_place* places, size_t places_count,
                   const lh_rows* given) {
  return Guarded([&]() -> Status {
    if (home == nullptr || (places == nullptr && places_count > 0))
      return Missing("home or places");
    LH_ASSIGN_OR_RETURN(const std::string name, NameOf(memory, "memory"));
    LH_ASSIGN_OR_RETURN(const Rows<void> rows, RowsOf<void>(home->sidecar->model(), given));
    std::vector<PlacedSpan> spans;
    uint64_t tokens = 0;
    for (size_t i = 0; i < places_count; ++i) {
      const auto* bytes = reinterpret_cast<const char*>(places) + i * places->size;
      LH_ASSIGN_OR_RETURN(const lh_place place,
                          Read(reinterpret_cast<const lh_place*>(bytes), "lh_place"));
      spans.push_back({DocumentId{place.document}, {place.begin, place.end}, place.position});
      tokens += spans.back().tokens.empty() ? 0 : spans.back().tokens.size();
    }
    if (tokens != rows.tokens)
      return InvalidArgument("the places have " + std::to_string(tokens) +
                             " tokens, and lh_rows.tokens is " + std::to_string(rows.tokens));
    return home->sidecar->Fetch(name, spans, rows.arrays());
  });
}

lh_status lh_tokens(lh_home* home, const char* memory, const lh_place* given, int32_t* tokens) {
  return Guarded([&]() -> Status {
    if (home == nullptr || tokens == nullptr) return Missing("home or tokens");
    LH_ASSIGN_OR_RETURN(const std::string name, NameOf(memory, "memory"));
    LH_ASSIGN_OR_RETURN(const lh_place place, Read(given, "lh_place"));
    LH_ASSIGN_OR_RETURN(
        const std::vector<TokenId> found,
        home->sidecar->Tokens(name, DocumentId{place.document}, {place.begin, place.end}));
    std::copy(found.begin(), found.end(), tokens);
    return OkStatus();
  });
}

lh_status lh_prefix(lh_home* home, const char* memory, const int32_t* tokens, size_t count,
                    uint32_t* document, uint64_t* length) {
  return Guarded([&]() -> Status {
    if (home == nullptr || (tokens == nullptr && count > 0) || document == nullptr ||
        length == nullptr)
      return Missing("home, tokens, document or length");
    LH_ASSIGN_OR_RETURN(const std::string name, NameOf(memory, "memory"));
    LH_ASSIGN_OR_RETURN(const StoredPrefix prefix,
                        home->sidecar->LongestPrefix(name, {tokens, count}));
    *document = static_cast<uint32_t>(prefix.document);
    *length = prefix.tokens;
    return OkStatus();
  });
}

lh_status lh_forget(lh_home* home, const char* memory, const char* document) {
  return Guarded([&]() -> Status {
    if (home == nullptr) return Missing("home");
    if (home->read_only)
      return FailedPrecondition("the home was opened with read_only; open it without");
    LH_ASSIGN_OR_RETURN(const std::string name, NameOf(memory, "memory"));
    return home->sidecar->Forget(name, document == nullptr ? "" : document);
  });
}

lh_status lh_stat(lh_home* home, const char* memory, lh_stats* stats) {
  return Guarded([&]() -> Status {
    if (home == nullptr || stats == nullptr) return Missing("home or stats");
    LH_ASSIGN_OR_RETURN(const std::string name, NameOf(memory, "memory"));
    LH_ASSIGN_OR_RETURN(const MemoryInfo info, home->sidecar->Show(name));
    lh_stats out{};
    out.size = stats->size;
    out.documents = info.documents.size();
    out.tokens = info.tokens;
    out.disk_bytes = info.disk_bytes;
    out.sink_tokens = home->sidecar->sink_tokens();
    out.window_tokens = home->sidecar->window_tokens();
    std::memcpy(stats, &out, std::min(stats->size, sizeof(out)));
    return OkStatus();
  });
}

}  // extern "C"
