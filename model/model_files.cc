#include "model/model_files.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

namespace longhold {

namespace fs = std::filesystem;

Status ModelFileError(const std::string& doing, int error) {
  if (error == ENOSPC || error == EDQUOT) {
    return ResourceExhausted(
        doing + ": the disk is full; free some space, or set LONGHOLD_CACHE to another directory");
  }
  return InvalidArgument(doing + ": " + std::strerror(error) +
                         "; make it writable, or set LONGHOLD_CACHE to another directory");
}

uint64_t SizeOf(const std::string& path) {
  std::error_code ec;
  const uint64_t size = fs::file_size(path, ec);
  return ec ? 0 : size;
}

std::string RecordPath(const std::string& path) { return path + ".sha256"; }

std::optional<ModelRecord> ReadRecord(const std::string& path) {
  std::ifstream file(RecordPath(path));
  std::string line;
  ModelRecord record;
  while (std::getline(file, line)) {
    constexpr std::string_view kBytes = "# bytes ";
    if (line.starts_with(kBytes)) {
      std::from_chars(line.data() + kBytes.size(), line.data() + line.size(), record.bytes);
    } else if (line.size() > 66 && line[64] == ' ') {
      record.sha256 = line.substr(0, 64);
    }
  }
  if (record.sha256.empty() || record.bytes == 0) return std::nullopt;
  return record;
}

Status WriteRecord(const std::string& path, const std::string& file_name,
                   const ModelRecord& record) {
  std::ofstream file(path, std::ios::trunc);
  file << "# bytes " << record.bytes << "\n" << record.sha256 << "  " << file_name << "\n";
  file.close();
  if (!file) return ModelFileError("write " + path, errno);
  return OkStatus();
}

bool RecordFits(const CatalogModel& model, const ModelRecord& record) {
  return model.finish != ModelFinish::kAsIs || record.sha256 == model.source_sha256;
}

}  // namespace longhold
