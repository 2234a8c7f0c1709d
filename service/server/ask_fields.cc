#include "service/server/ask_fields.h"

#include <boost/json.hpp>
#include <string>

#include "service/common/json_text.h"

namespace longhold {

namespace json = boost::json;

Result<RecallOptions> RecallFields(const json::object& body) {
  RecallOptions recall;
  LH_ASSIGN_OR_RETURN(const int64_t spans, IntegerField(body, "spans", 0, 1024, recall.spans_max));
  recall.spans_max = static_cast<uint32_t>(spans);
  LH_ASSIGN_OR_RETURN(recall.abstain, FlagField(body, "abstain", recall.abstain));
  LH_ASSIGN_OR_RETURN(recall.rerank_spans, CountField(body, "rerank", kRerankSpansMax));
  return recall;
}

Result<AttendOptions> AttendFields(const json::object& body) {
  LH_ASSIGN_OR_RETURN(const std::string name, StringField(body, "attend"));
  const std::optional<AttendOptions> attend = name.empty() ? FocusedOptions{} : FindAttend(name);
  if (!attend.has_value())
    return BadField("attend", "'" + name + "' is not known; use focused or faithful");
  FocusedOptions focused;
  LH_ASSIGN_OR_RETURN(focused.recall, RecallFields(body));
  LH_ASSIGN_OR_RETURN(focused.reencode_tokens, CountField(body, "reencode", kReencodeTokensMax));
  FaithfulOptions faithful;
  LH_ASSIGN_OR_RETURN(faithful.share, NumberField(body, "attend_share", 0, 1, faithful.share));
  if (std::holds_alternative<FaithfulOptions>(*attend)) return AttendOptions(faithful);
  return AttendOptions(focused);
}

}  // namespace longhold
