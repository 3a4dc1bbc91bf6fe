#include "cli/run/output_merger.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

namespace sumac::cli {

void LineWriter::Emit(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written > 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {
      pollfd ready{fd_, POLLOUT, 0};
      poll(&ready, 1, 1000);
    } else if (errno != EINTR) {
      return;  // nobody reads any more
    }
  }
}

void LineWriter::Write(std::string_view bytes) {
  if (prefix_.empty()) {
    Emit(bytes);
    return;
  }
  std::string out;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) {
      partial_.append(bytes);
      if (partial_.size() > kLineBytesMax) {
        out += prefix_ + partial_ + "\n";
        partial_.clear();
      }
      break;
    }
    out += prefix_;
    out += partial_;
    out += bytes.substr(0, end + 1);
    partial_.clear();
    bytes.remove_prefix(end + 1);
  }
  Emit(out);
}

void LineWriter::Finish() {
  if (partial_.empty()) return;
  Emit(prefix_ + partial_ + "\n");
  partial_.clear();
}

}  // namespace sumac::cli
