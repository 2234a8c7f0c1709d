#include "service/server/http_tls.h"

#include <boost/asio/ssl.hpp>
#include <string>
#include <system_error>

namespace longhold::asio_http {

using boost::system::error_code;

Result<std::shared_ptr<ssl::context>> LoadTls(const TlsFiles& files) {
  const auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  error_code ec;
  const auto bad = [&](const std::string& flag, const std::string& file) {
    return InvalidArgument(flag + " " + file + ": " + ec.message() +
                           "; name a PEM file that this user can read");
  };
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context->native_handle(),
                   SSL_MODE_RELEASE_BUFFERS);  // saves memory for idle connections
  // OpenSSL would ask for the password of a key on the terminal.
  context->set_password_callback(
      [](size_t, ssl::context::password_purpose) { return std::string(); }, ec);
  if (!ec) context->use_certificate_chain_file(files.certificate, ec);
  if (ec) return bad("--tls-certificate", files.certificate);
  context->use_private_key_file(files.key, ssl::context::pem, ec);
  if (ec) return bad("--tls-key", files.key);
  if (SSL_CTX_check_private_key(context->native_handle()) != 1) {
    return InvalidArgument("--tls-key " + files.key + ": does not belong to " + files.certificate +
                           "; name a certificate and its own key");
  }
  if (!files.client_ca.empty()) {
    context->load_verify_file(files.client_ca, ec);
    if (!ec) context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, ec);
    if (ec) return bad("--tls-client-ca", files.client_ca);
  }
  return context;
}

TlsStamp StampOf(const TlsFiles& files) {
  TlsStamp stamp;
  for (const std::string* file : {&files.certificate, &files.key, &files.client_ca}) {
    std::error_code ec;
    stamp.emplace_back(std::filesystem::last_write_time(*file, ec),
                       std::filesystem::file_size(*file, ec));
  }
  return stamp;
}

}  // namespace longhold::asio_http
