#include "memory/ingest/disk_allowance.h"

#include <utility>

#include "store/block_codec.h"

namespace longhold {

StoredShare StoredShareOf(std::string_view codec) {
  if (codec == ExactCodec().name()) return {};
  if (codec == kArchiveCodec) return {0.08, 0.2};
  return {0.22, 0.35};
}

DiskAllowance::DiskAllowance(DiskBytesMax bytes_max, std::string document, const Memory& memory)
    : ask_(std::move(bytes_max)),
      document_(std::move(document)),
      memory_(memory),
      begun_bytes_(memory.disk_bytes()),
      exact_token_bytes_(
          static_cast<double>(memory.block_shape().Elements() / kBlockTokens * sizeof(uint16_t))) {}

Status DiskAllowance::Ask() {
  if (!ask_) return OkStatus();
  LH_ASSIGN_OR_RETURN(bytes_max_, ask_());
  return OkStatus();
}

Status DiskAllowance::Admit(uint64_t tokens, bool all) const {
  if (bytes_max_ == UINT64_MAX) return OkStatus();
  const StoredShare share = StoredShareOf(memory_.codec().name());
  double each = exact_token_bytes_ * (all ? share.least : share.most);
  if (written_ > 0)
    each = static_cast<double>(memory_.disk_bytes() - begun_bytes_) / static_cast<double>(written_);
  const double wanted =
      static_cast<double>(memory_.disk_bytes()) + each * static_cast<double>(tokens);
  if (wanted <= static_cast<double>(bytes_max_)) return OkStatus();
  return FailedPrecondition("document " + document_ + ": the memory would exceed the limit of " +
                            std::to_string(bytes_max_) +
                            " bytes that its owner may have on the disk for it; forget some "
                            "documents, or ask the operator for more");
}

}  // namespace longhold
