#include "memory/model/recall_profile.h"

#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <set>

namespace longhold {
namespace {

namespace json = boost::json;

// The names that profile members had in earlier versions.
constexpr std::pair<std::string_view, std::string_view> kFormerKeys[] = {
    {"rerank_spans", "look_spans"},
    {"rerank_prior", "look_prior"},
    {"rerank_scale", "look_scale"},
    {"reencode_tokens", "reread_tokens"},
    {"hops_max", "follow_hops"},
    {"hop_spans", "follow_spans"},
    {"generation_spans", "follow_refreshes"}};

// Reads the members of one JSON object. It remembers which ones were asked for, so that Finish can
// refuse all others.
class Reader {
 public:
  Reader(const json::object& object, std::string where)
      : object_(object), where_(std::move(where)) {}

  void Number(const std::string& key, double* out, double low, double high) {
    const json::value* v = Find(key);
    if (v == nullptr) return;
    if (!v->is_number()) return Bad(key, "must be a number");
    const double value = v->to_number<double>();
    if (!(value >= low && value <= high)) {
      return Bad(key, "must be between " + std::to_string(low) + " and " + std::to_string(high));
    }
    *out = value;
  }
  void Count(const char* key, uint32_t* out, uint32_t low, uint32_t high) {
    double value = *out;
    Number(key, &value, low, high);
    if (value != std::floor(value)) return Bad(key, "must be a whole number");
    *out = static_cast<uint32_t>(value);
  }
  void String(const char* key, std::string* out) {
    const json::value* v = Find(key);
    if (v == nullptr) return;
    if (!v->is_string()) return Bad(key, "must be a string");
    *out = std::string(v->as_string());
  }
  // Serialised on one line.
  void Object(const char* key, std::string* out) {
    const json::value* v = Find(key);
    if (v == nullptr) return;
    if (!v->is_object()) return Bad(key, "must be an object");
    *out = json::serialize(*v);
  }
  const json::array* Array(const char* key) {
    const json::value* v = Find(key);
    if (v == nullptr) return nullptr;
    if (!v->is_array()) {
      Bad(key, "must be an array");
      return nullptr;
    }
    return &v->as_array();
  }
  const json::object* Members(const char* key) {
    const json::value* v = Find(key);
    if (v == nullptr) return nullptr;
    if (!v->is_object()) {
      Bad(key, "must be an object");
      return nullptr;
    }
    return &v->as_object();
  }
  void Bad(const std::string& key, const std::string& why) {
    if (status_.ok())
      status_ = InvalidArgument("recall profile " + where_ + ": \"" + key + "\" " + why);
  }
  Status Finish() {
    for (const auto& member : object_) {
      if (!known_.count(std::string(member.key())))
        Bad(std::string(member.key()), "is not a member of recall profiles");
    }
    return status_;
  }

 private:
  const json::value* Find(const std::string& key) {
    known_.insert(key);
    const json::value* found = object_.if_contains(key);
    for (const auto& [now, former] : kFormerKeys) {
      if (found != nullptr || key != now) continue;
      known_.insert(std::string(former));
      found = object_.if_contains(std::string(former));
    }
    return found;
  }
  const json::object& object_;
  std::string where_;
  std::set<std::string> known_;
  Status status_;
};

constexpr size_t kSignalsMax = 16;

Status ReadSignals(Reader& r, const std::string& where, RecallProfile* p) {
  // Weights of an earlier profile format: the weight of words applies to their expansions too.
  double heads = 1, words = 1, expansion = 1;
  r.Number("head_weight", &heads, 0, 1000);
  r.Number("lexical_weight", &words, 0, 1000);
  r.Number("related_weight", &expansion, 0, 1);
  p->signals = {{std::string(kHeadSignal), heads},
                {std::string(kWordSignal), words},
                {std::string(kExpansionSignal), words * expansion},
                {std::string(kDenseSignal), kDenseWeight}};
  const json::object* signals = r.Members("signals");
  if (signals == nullptr) return OkStatus();
  if (signals->size() > kSignalsMax) r.Bad("signals", "has more than 16 entries");
  p->signals.clear();
  Reader weights(*signals, where + " signals");
  for (const auto& member : *signals) {
    const std::string name(member.key());
    weights.Number(name, &p->signals[name], 0, 1000);
  }
  return weights.Finish();
}

}  // namespace

double RecallProfile::WeightOf(std::string_view signal) const {
  const auto found = signals.find(signal);
  return found == signals.end() ? 0 : found->second;
}

void RecallProfile::MatchOnly(const ModelInfo& m) {
  architecture = m.architecture;
  layer_count = m.layer_count;
  q_heads = m.geometry.q_heads;
  kv_heads = m.geometry.kv_heads;
  head_dim = m.geometry.head_dim;
  vocab_size = m.vocab_size;
}

bool RecallProfile::Matches(const ModelInfo& m) const {
  return architecture == m.architecture && layer_count == m.layer_count &&
         q_heads == m.geometry.q_heads && kv_heads == m.geometry.kv_heads &&
         head_dim == m.geometry.head_dim && vocab_size == m.vocab_size;
}

Result<RecallProfile> RecallProfile::Parse(std::string_view text, std::string_view file) {
  const std::string where(file);
  boost::system::error_code ec;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), ec);
  if (ec || !value.is_object())
    return InvalidArgument("recall profile " + where + ": not a JSON object");
  RecallProfile p;
  Reader r(value.as_object(), where);
  r.String("name", &p.name);
  r.String("architecture", &p.architecture);
  r.Count("layer_count", &p.layer_count, 1, 1024);
  r.Count("q_heads", &p.q_heads, 1, 1024);
  r.Count("kv_heads", &p.kv_heads, 1, 1024);
  r.Count("head_dim", &p.head_dim, 4, 256);
  r.Count("vocab_size", &p.vocab_size, 1, 1u << 24);
  LH_RETURN_IF_ERROR(ReadSignals(r, where, &p));
  r.Number("gate", &p.gate, 0, 100);
  r.Count("rerank_spans", &p.rerank_spans, 0, 64);
  r.Number("rerank_prior", &p.rerank_prior, 0, 1000);
  r.Number("rerank_scale", &p.rerank_scale, 0.01, 1000);
  r.Number("abstain_support", &p.abstain_support, 0, 1000);
  r.Number("abstain_found", &p.abstain_found, 0, 1);
  r.Number("abstain_similarity", &p.abstain_similarity, 0, 1);
  r.Count("reencode_tokens", &p.reencode_tokens, 0, 1024);
  r.Count("hops_max", &p.hops_max, 0, 8);
  r.Count("hop_spans", &p.hop_spans, 0, 16);
  r.Count("generation_spans", &p.generation_spans, 0, 8);
  r.Count("spans_max", &p.spans_max, 1, 64);
  r.Number("span_score_min", &p.span_score_min, 0, 1);
  r.Count("span_tokens", &p.span_tokens, 32, 1024);
  r.Count("window_tokens", &p.window_tokens, 64, kWindowTokensMax);
  r.Count("sink_tokens", &p.sink_tokens, 64, kSinkTokensMax);
  if (p.window_tokens % kBlockTokens != 0) r.Bad("window_tokens", "must be a multiple of 64");
  if (p.sink_tokens % kBlockTokens != 0) r.Bad("sink_tokens", "must be a multiple of 64");
  if (const json::array* heads = r.Array("heads")) {
    if (heads->size() > 8) r.Bad("heads", "has more than 8 entries");
    for (const json::value& v : *heads) {
      if (!v.is_object()) {
        r.Bad("heads", "must hold objects");
        break;
      }
      RecallHead head;
      Reader h(v.as_object(), where + " heads");
      h.Count("layer", &head.layer, 0, 1023);
      h.Count("kv_head", &head.kv_head, 0, 1023);
      h.Number("weight", &head.weight, 0, 1000);
      LH_RETURN_IF_ERROR(h.Finish());
      p.heads.push_back(head);
    }
  }
  r.Object("calibration", &p.calibration);
  LH_RETURN_IF_ERROR(r.Finish());
  return p;
}

std::string RecallProfile::ToJson() const {
  std::string out = "{\n";
  const auto member = [&](const std::string& key, const std::string& value) {
    out += "  \"" + key + "\": " + value + ",\n";
  };
  const auto number = [](double value) {
    char text[40];
    std::snprintf(text, sizeof text, "%.6g", value);
    return std::string(text);
  };
  member("name", json::serialize(json::string(name)));
  member("architecture", json::serialize(json::string(architecture)));
  member("layer_count", std::to_string(layer_count));
  member("q_heads", std::to_string(q_heads));
  member("kv_heads", std::to_string(kv_heads));
  member("head_dim", std::to_string(head_dim));
  member("vocab_size", std::to_string(vocab_size));
  std::string list = "[";
  for (const RecallHead& head : heads) {
    list += std::string(list.size() > 1 ? "," : "") +
            "\n    {\"layer\": " + std::to_string(head.layer) +
            ", \"kv_head\": " + std::to_string(head.kv_head) +
            ", \"weight\": " + number(head.weight) + "}";
  }
  member("heads", list + (heads.empty() ? "]" : "\n  ]"));
  std::string weights;
  for (const auto& [signal, weight] : signals) {
    weights += (weights.empty() ? "" : ", ") + json::serialize(json::string(signal)) + ": " +
               number(weight);
  }
  member("signals", "{" + weights + "}");
  member("gate", number(gate));
  member("rerank_spans", std::to_string(rerank_spans));
  member("rerank_prior", number(rerank_prior));
  member("rerank_scale", number(rerank_scale));
  member("abstain_support", number(abstain_support));
  member("abstain_found", number(abstain_found));
  member("abstain_similarity", number(abstain_similarity));
  member("reencode_tokens", std::to_string(reencode_tokens));
  member("hops_max", std::to_string(hops_max));
  member("hop_spans", std::to_string(hop_spans));
  member("generation_spans", std::to_string(generation_spans));
  member("spans_max", std::to_string(spans_max));
  member("span_score_min", number(span_score_min));
  member("span_tokens", std::to_string(span_tokens));
  member("window_tokens", std::to_string(window_tokens));
  member("sink_tokens", std::to_string(sink_tokens));
  if (!calibration.empty()) member("calibration", calibration);
  out.resize(out.size() - 2);
  return out + "\n}\n";
}

RecallProfile RecallProfile::For(const ModelInfo& model) {
  for (std::string_view text : BuiltinProfileTexts()) {
    const Result<RecallProfile> profile = Parse(text, "(built in)");
    LH_CHECK(profile.ok());  // tests parse every shipped file
    if (profile->Matches(model)) return *profile;
  }
  RecallProfile generic;
  generic.name = kGenericProfile;
  // Reranking is off because its cost grows with the model: half a minute with a model of 8B, for a
  // gain of a few points. Calibration turns it on where it pays (docs/decisions/0029).
  generic.rerank_spans = 0;
  generic.reencode_tokens = 0;
  generic.abstain_found = kAbstainFound;
  return generic;
}

}  // namespace longhold
