// The members of a request that say how an answer attends to the memory. The one place where JSON
// becomes AttendOptions; their defaults are those of the option types.
#pragma once

#include <boost/json/fwd.hpp>

#include "base/status.h"
#include "memory/answer/ask_types.h"

namespace longhold {

// Parses "attend" ("focused" or "faithful"), and of a focused answer "spans", "abstain", "rerank"
// and "reencode", of a faithful one "attend_share". Members of the other kind are checked, too, and
// then ignored. Errors: invalid_argument, with the name of the member.
Result<AttendOptions> AttendFields(const boost::json::object& body);
// The same members of a request that only recalls: "spans", "abstain" and "rerank".
Result<RecallOptions> RecallFields(const boost::json::object& body);

}  // namespace longhold
