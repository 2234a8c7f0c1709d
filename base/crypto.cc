// What base/hash.h and base/seal.h declare.
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <span>

#include "base/hash.h"
#include "base/seal.h"
#include "base/text.h"

namespace longhold {

namespace {

std::string Hex(std::span<const unsigned char> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const unsigned char byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

}  // namespace

uint64_t Hash64(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

struct Hash64Stream::State {
  XXH3_state_t* xxh = nullptr;
  ~State() { (void)XXH3_freeState(xxh); }
};

// xxHash fails here only without memory.
Hash64Stream::Hash64Stream() : state_(std::make_unique<State>()) {
  state_->xxh = XXH3_createState();
  LH_CHECK(state_->xxh != nullptr && XXH3_64bits_reset(state_->xxh) == XXH_OK);
}
Hash64Stream::~Hash64Stream() = default;

void Hash64Stream::Update(std::string_view bytes) { LH_CHECK(XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size()) == XXH_OK); }

uint64_t Hash64Stream::Digest() const { return XXH3_64bits_digest(state_->xxh); }

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
  return Hex({digest, size});
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

std::string RandomHex(size_t bytes) {
  const std::string random = RandomBytes(bytes);
  return Hex({reinterpret_cast<const unsigned char*>(random.data()), random.size()});
}

bool EqualInConstantTime(std::string_view a, std::string_view b) { return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

// --- base/seal.h ---

namespace {

constexpr size_t kNonceBytes = 12, kTagBytes = 16;
constexpr size_t kKeyFileBytesMax = 256;
static_assert(kNonceBytes + kTagBytes == kSealExtraBytes);

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

const unsigned char* Bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }
unsigned char* Bytes(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

}  // namespace

std::string RandomBytes(size_t bytes) {
  std::string out(bytes, '\0');
  LH_CHECK(RAND_bytes(Bytes(out), static_cast<int>(bytes)) == 1);  // without randomness there is no way forward
  return out;
}

Seal Seal::Derive(std::string_view master, std::string_view salt, std::string_view purpose) {
  LH_CHECK(master.size() == kSealKeyBytes);
  std::string key(kSealKeyBytes, '\0');
  size_t size = key.size();
  EVP_PKEY_CTX* const context = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr);
  LH_CHECK(context != nullptr && EVP_PKEY_derive_init(context) == 1 && EVP_PKEY_CTX_set_hkdf_md(context, EVP_sha256()) == 1 &&
           EVP_PKEY_CTX_set1_hkdf_key(context, Bytes(master), static_cast<int>(master.size())) == 1 &&
           EVP_PKEY_CTX_set1_hkdf_salt(context, Bytes(salt), static_cast<int>(salt.size())) == 1 &&
           EVP_PKEY_CTX_add1_hkdf_info(context, Bytes(purpose), static_cast<int>(purpose.size())) == 1 &&
           EVP_PKEY_derive(context, Bytes(key), &size) == 1 && size == key.size());
  EVP_PKEY_CTX_free(context);
  return Seal(std::move(key));
}

std::string Seal::Close(std::string_view plain, std::string_view context) const {
  std::string out = RandomBytes(kNonceBytes);
  out.resize(kNonceBytes + plain.size() + kTagBytes);
  const Cipher cipher(EVP_CIPHER_CTX_new());
  int n = 0;
  unsigned char* const text = Bytes(out) + kNonceBytes;
  LH_CHECK(cipher != nullptr && EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(key_), Bytes(out)) == 1 &&
           EVP_EncryptUpdate(cipher.get(), nullptr, &n, Bytes(context), static_cast<int>(context.size())) == 1 &&
           EVP_EncryptUpdate(cipher.get(), text, &n, Bytes(plain), static_cast<int>(plain.size())) == 1 &&
           EVP_EncryptFinal_ex(cipher.get(), text + plain.size(), &n) == 1 &&
           EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, text + plain.size()) == 1);
  return out;
}

Result<std::string> Seal::Open(std::string_view sealed, std::string_view context) const {
  if (sealed.size() < kSealExtraBytes) return DataLoss("sealed bytes are cut off");
  const size_t size = sealed.size() - kSealExtraBytes;
  std::string plain(size, '\0'), tag(sealed.substr(kNonceBytes + size));
  const Cipher cipher(EVP_CIPHER_CTX_new());
  int n = 0;
  LH_CHECK(cipher != nullptr && EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(key_), Bytes(sealed)) == 1 &&
           EVP_DecryptUpdate(cipher.get(), nullptr, &n, Bytes(context), static_cast<int>(context.size())) == 1 &&
           EVP_DecryptUpdate(cipher.get(), Bytes(plain), &n, Bytes(sealed.substr(kNonceBytes)), static_cast<int>(size)) == 1 &&
           EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1);
  unsigned char rest[16];
  if (EVP_DecryptFinal_ex(cipher.get(), rest, &n) != 1) return DataLoss("sealed bytes were changed, or another key sealed them");
  return plain;
}

Result<std::string> ReadSealKey(const std::string& path) {
  const std::string what = "encryption key " + path + ": ";
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string why = std::strerror(errno);
    return errno == ENOENT ? NotFound(what + why) : InvalidArgument(what + why);
  }
  struct stat state{};
  std::string text(kKeyFileBytesMax, '\0');
  const bool known = fstat(fd, &state) == 0;
  const ssize_t n = read(fd, text.data(), text.size());
  (void)close(fd);
  if (!known || !S_ISREG(state.st_mode)) return InvalidArgument(what + "is no regular file");
  if ((state.st_mode & 077) != 0) return InvalidArgument(what + "others may read it; take that from them with chmod 600");
  text.resize(n > 0 && state.st_size <= static_cast<off_t>(kKeyFileBytesMax) ? static_cast<size_t>(n) : 0);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  std::string key;
  for (size_t i = 0; i + 1 < text.size() && key.size() <= kSealKeyBytes; i += 2) {
    const int high = HexDigit(text[i]), low = HexDigit(text[i + 1]);
    if (high < 0 || low < 0) break;
    key += static_cast<char>(high * 16 + low);
  }
  if (text.size() != 2 * kSealKeyBytes || key.size() != kSealKeyBytes) {
    return InvalidArgument(what + "must be 64 hexadecimal digits; 'openssl rand -hex 32' makes some");
  }
  return key;
}

}  // namespace longhold
