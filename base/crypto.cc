// Implements base/hash.h, base/secret.h and base/seal.h.
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <memory_resource>
#include <span>

#include "base/file_descriptor.h"
#include "base/hash.h"
#include "base/seal.h"
#include "base/secret.h"
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

// xxHash fails here only if memory is exhausted.
Hash64Stream::Hash64Stream() : state_(std::make_unique<State>()) {
  state_->xxh = XXH3_createState();
  LH_CHECK(state_->xxh != nullptr && XXH3_64bits_reset(state_->xxh) == XXH_OK);
}
Hash64Stream::~Hash64Stream() = default;

void Hash64Stream::Update(std::string_view bytes) {
  LH_CHECK(XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size()) == XXH_OK);
}

uint64_t Hash64Stream::Digest() const { return XXH3_64bits_digest(state_->xxh); }

struct Sha256::Context {
  EVP_MD_CTX* md = nullptr;
  bool finished = false;
  ~Context() { EVP_MD_CTX_free(md); }
};

// OpenSSL fails here only if memory is exhausted or its SHA-256 is missing. Neither can
// be recovered from.
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
  std::string random = RandomBytes(bytes);
  std::string hex = Hex({reinterpret_cast<const unsigned char*>(random.data()), random.size()});
  Wipe(&random);  // may be a key
  return hex;
}

bool EqualInConstantTime(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

// --- base/secret.h ---

class Secret::Bytes {
 public:
  explicit Bytes(std::string_view bytes)
      : size_(bytes.size()), data_(static_cast<char*>(resource_->allocate(size_, 1))) {
    bytes.copy(data_, size_);
  }
  ~Bytes() {
    Wipe({data_, size_});
    resource_->deallocate(data_, size_, 1);
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  std::string_view view() const { return {data_, size_}; }

 private:
  std::pmr::memory_resource* const resource_ = std::pmr::get_default_resource();
  const size_t size_;
  char* const data_;
};

Secret::Secret(std::string_view bytes)
    : bytes_(bytes.empty() ? nullptr : std::make_shared<const Bytes>(bytes)) {}

std::string_view Secret::view() const {
  return bytes_ == nullptr ? std::string_view() : bytes_->view();
}

void Wipe(std::span<char> bytes) { OPENSSL_cleanse(bytes.data(), bytes.size()); }

void Wipe(std::string* text) {
  text->resize(text->capacity());  // the bytes past the end belonged to the string, too
  Wipe(*text);
  text->clear();
}

// --- base/seal.h ---

namespace {

constexpr size_t kNonceBytes = 12, kTagBytes = 16;
constexpr size_t kKeyFileBytesMax = 256;
static_assert(kNonceBytes + kTagBytes == kSealExtraBytes);
// OpenSSL counts bytes in an int. The size of a piece is a multiple of the cipher's 16 bytes.
constexpr size_t kPieceBytes = 1 << 20;

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* Bytes(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

// Encrypts or decrypts `in` to `out`. If `out` is null, authenticates `in` without encrypting it.
// Must hold: in.size() <= kSealBytesMax, so that OpenSSL cannot fail.
void Update(EVP_CIPHER_CTX* cipher, std::string_view in, unsigned char* out) {
  while (!in.empty()) {
    const std::string_view piece = in.substr(0, kPieceBytes);
    int n = 0;
    LH_CHECK(EVP_CipherUpdate(cipher, out, &n, Bytes(piece), static_cast<int>(piece.size())) == 1);
    if (out != nullptr) out += piece.size();
    in.remove_prefix(piece.size());
  }
}

}  // namespace

std::string RandomBytes(size_t bytes) {
  std::string out(bytes, '\0');
  // There is no safe way to go on without randomness.
  LH_CHECK(RAND_bytes(Bytes(out), static_cast<int>(bytes)) == 1);
  return out;
}

Seal Seal::Derive(const Secret& master, std::string_view salt, std::string_view purpose) {
  const std::string_view from = master.view();
  LH_CHECK(from.size() == kSealKeyBytes);
  std::array<char, kSealKeyBytes> key{};
  size_t size = key.size();
  EVP_PKEY_CTX* const context = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr);
  LH_CHECK(context != nullptr && EVP_PKEY_derive_init(context) == 1 &&
           EVP_PKEY_CTX_set_hkdf_md(context, EVP_sha256()) == 1 &&
           EVP_PKEY_CTX_set1_hkdf_key(context, Bytes(from), static_cast<int>(from.size())) == 1 &&
           EVP_PKEY_CTX_set1_hkdf_salt(context, Bytes(salt), static_cast<int>(salt.size())) == 1 &&
           EVP_PKEY_CTX_add1_hkdf_info(context, Bytes(purpose), static_cast<int>(purpose.size())) ==
               1 &&
           EVP_PKEY_derive(context, reinterpret_cast<unsigned char*>(key.data()), &size) == 1 &&
           size == key.size());
  EVP_PKEY_CTX_free(context);
  Seal seal{Secret(std::string_view(key.data(), key.size()))};
  Wipe(key);
  return seal;
}

Result<std::string> Seal::Close(std::string_view plain, std::string_view context) const {
  if (plain.size() > kSealBytesMax || context.size() > kSealBytesMax) {
    return InvalidArgument("a value of " + std::to_string(plain.size()) +
                           " bytes cannot be encrypted; the limit is " +
                           std::to_string(kSealBytesMax));
  }
  std::string out = RandomBytes(kNonceBytes);
  out.resize(kNonceBytes + plain.size() + kTagBytes);
  const Cipher cipher(EVP_CIPHER_CTX_new());
  unsigned char* const text = Bytes(out) + kNonceBytes;
  LH_CHECK(cipher != nullptr && EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr,
                                                   Bytes(key_.view()), Bytes(out)) == 1);
  Update(cipher.get(), context, nullptr);
  Update(cipher.get(), plain, text);
  int n = 0;
  LH_CHECK(
      EVP_EncryptFinal_ex(cipher.get(), text + plain.size(), &n) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, text + plain.size()) == 1);
  return out;
}

Result<std::string> Seal::Open(std::string_view sealed, std::string_view context) const {
  if (sealed.size() < kSealExtraBytes) return DataLoss("sealed bytes are truncated");
  const size_t size = sealed.size() - kSealExtraBytes;
  if (size > kSealBytesMax || context.size() > kSealBytesMax)
    return DataLoss("sealed bytes exceed the limit");
  std::string plain(size, '\0'), tag(sealed.substr(kNonceBytes + size));
  const Cipher cipher(EVP_CIPHER_CTX_new());
  LH_CHECK(cipher != nullptr && EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr,
                                                   Bytes(key_.view()), Bytes(sealed)) == 1);
  Update(cipher.get(), context, nullptr);
  Update(cipher.get(), sealed.substr(kNonceBytes, size), Bytes(plain));
  LH_CHECK(EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1);
  unsigned char rest[16];
  int n = 0;
  if (EVP_DecryptFinal_ex(cipher.get(), rest, &n) != 1)
    return DataLoss("sealed bytes were changed, or another key sealed them");
  return plain;
}

Result<Secret> ReadSealKey(const std::string& path) {
  const std::string what = "encryption key " + path + ": ";
  // O_NONBLOCK: opening a FIFO would otherwise wait for a writer.
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    const std::string why = std::strerror(errno);
    return errno == ENOENT ? NotFound(what + why) : InvalidArgument(what + why);
  }
  struct stat state {};
  if (fstat(file.get(), &state) != 0 || !S_ISREG(state.st_mode))
    return InvalidArgument(what + "is not a regular file");
  if ((state.st_mode & 077) != 0)
    return InvalidArgument(what + "other users have access to it; run 'chmod 600' on it");

  std::array<char, kKeyFileBytesMax + 1> buffer{};
  const ssize_t n = read(file.get(), buffer.data(), buffer.size());
  std::string_view text(buffer.data(), n > 0 && static_cast<size_t>(n) <= kKeyFileBytesMax
                                           ? static_cast<size_t>(n)
                                           : 0);
  while (text.ends_with('\n') || text.ends_with('\r') || text.ends_with(' ')) text.remove_suffix(1);
  std::array<char, kSealKeyBytes> key{};
  bool good = text.size() == 2 * key.size();
  for (size_t i = 0; good && i < key.size(); ++i) {
    const int high = HexDigit(text[2 * i]), low = HexDigit(text[2 * i + 1]);
    good = high >= 0 && low >= 0;
    key[i] = static_cast<char>(high * 16 + low);
  }
  Secret secret(std::string_view(key.data(), good ? key.size() : 0));
  Wipe(key);
  Wipe(buffer);
  if (!good)
    return InvalidArgument(
        what + "must hold 64 hexadecimal digits; 'openssl rand -hex 32' generates a key");
  return secret;
}

}  // namespace longhold
