// Merges the output of several ranks line by line, each line behind its rank: "[2] text".
//
// Pure but for the descriptor that it writes to. Owned by the launcher; one thread. A line that
// grows past kLineBytesMax is written in parts, so that a rank can't make us hold its output for
// ever.
#pragma once

#include <string>
#include <string_view>

namespace sumac::cli {

class LineWriter {
 public:
  static constexpr size_t kLineBytesMax = 64 * 1024;

  // `prefix` may be empty: then bytes pass as they come.
  LineWriter(int fd, std::string prefix) : fd_(fd), prefix_(std::move(prefix)) {}
  void Write(std::string_view bytes);
  // The last line, if it has no end.
  void Finish();

 private:
  void Emit(std::string_view bytes);
  int fd_;
  std::string prefix_;
  std::string partial_;
};

}  // namespace sumac::cli
