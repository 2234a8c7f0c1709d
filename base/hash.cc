#include "base/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>

namespace longhold {

uint64_t Hash64(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

struct Sha256::Context {
  EVP_MD_CTX* md = nullptr;
  bool finished = false;
  ~Context() { EVP_MD_CTX_free(md); }
};

// OpenSSL fails here only without memory or without its own SHA-256: neither has a way forward.
Sha256::Sha256() : context_(std::make_unique<Context>()) {
  context_->md = EVP_MD_CTX_new();
  LH_CHECK(context_->md != nullptr);
  LH_CHECK(EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(std::string_view bytes) {
  LH_CHECK(!context_->finished);
  LH_CHECK(EVP_DigestUpdate(context_->md, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::HexDigest() {
  LH_CHECK(!context_->finished);
  context_->finished = true;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  LH_CHECK(EVP_DigestFinal_ex(context_->md, digest, &size) == 1 && size == 32);
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * size);
  for (unsigned int i = 0; i < size; ++i) {
    hex.push_back(kDigits[digest[i] >> 4]);
    hex.push_back(kDigits[digest[i] & 15]);
  }
  return hex;
}

std::string Sha256Hex(std::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.HexDigest();
}

Result<std::string> Sha256File(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string message = "hash " + path + ": " + std::strerror(errno);
    return errno == ENOENT || errno == ENOTDIR ? NotFound(message) : InvalidArgument(message);
  }
  Sha256 sha;
  std::string buffer(1 << 20, '\0');
  ssize_t n = 0;
  do {
    n = read(fd, buffer.data(), buffer.size());
    if (n > 0) sha.Update({buffer.data(), static_cast<size_t>(n)});
  } while (n > 0 || (n < 0 && errno == EINTR));
  const int error = errno;
  close(fd);
  if (n < 0) {
    const std::string message = "hash " + path + ": " + std::strerror(error);
    return error == EISDIR ? InvalidArgument(message) : DataLoss(message);
  }
  return sha.HexDigest();
}

}  // namespace longhold
