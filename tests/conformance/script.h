// Scripts of the conformance tests, as text: files, cases, lines, words (README.md has the
// grammar).
//
// A script holds cases; a case holds lines; what the words of a line mean is the player's business
// (player.h). Everything that is wrong with a script is a ScriptError that names its line. One
// thread; no state.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sumac::conformance {

// A script that can't be understood: the script's fault, not the device's.
class ScriptError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One line without its comment.
struct Line {
  int number = 0;
  std::vector<std::string> words;
};

struct Case {
  std::string file;
  std::string name;
  int line = 0;
  std::vector<std::string> covers;   // clauses of the specification
  std::vector<std::string> differs;  // exceptions that it pins down (clauses.txt)
  std::vector<Line> lines;           // those of the file's head first
};

// The cases of a file. Throws ScriptError.
std::vector<Case> ReadScript(const std::string& file);
std::vector<Case> ParseScript(const std::string& file, std::string_view text);

// "0x10", "16".
uint64_t ParseNumber(const std::string& word);
// "10us", "1.28ms", "4096ns", "2s".
std::chrono::nanoseconds ParseDuration(const std::string& word);
std::string ToText(std::chrono::nanoseconds duration);

// "0+64": 64 bytes from offset 0; "0+8,16+8": two pieces.
struct Range {
  uint64_t offset = 0;
  uint32_t length = 0;
};
std::vector<Range> ParseRanges(const std::string& word);

// The words of a line, taken one by one or by name. Finish() complains about what nobody took, so
// that a misspelt word never goes unnoticed.
class Words {
 public:
  explicit Words(std::vector<std::string> words) : words_(std::move(words)) {}

  bool empty() const { return words_.empty(); }
  const std::string& first() const { return words_.front(); }
  // The next word; `what` says what was to stand there.
  std::string Next(const char* what);
  // True when the next word is `word`, which is then taken.
  bool NextIs(std::string_view word);
  // True when `word` stands anywhere; takes it.
  bool Flag(std::string_view word);
  // The word after `name`, anywhere; takes both.
  std::optional<std::string> Value(std::string_view name);
  std::optional<uint64_t> Number(std::string_view name);
  std::optional<std::chrono::nanoseconds> Time(std::string_view name);
  void Finish() const;

 private:
  std::vector<std::string> words_;
};

}  // namespace sumac::conformance
