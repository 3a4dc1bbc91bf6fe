#include "tests/conformance/script.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <sstream>

namespace sumac::conformance {
namespace {

std::vector<std::string> SplitWords(std::string_view line) {
  std::istringstream in{std::string(line.substr(0, line.find('#')))};
  return {std::istream_iterator<std::string>(in), {}};
}

std::string TextAfter(std::string_view line, std::string_view word) {
  const size_t from = line.find_first_not_of(' ', line.find(word) + word.size());
  return from == std::string_view::npos ? std::string() : std::string(line.substr(from));
}

}  // namespace

std::vector<Case> ParseScript(const std::string& file, std::string_view text) {
  std::vector<Case> cases;
  std::vector<Line> head;  // before the first case: holds for each
  std::istringstream in{std::string(text)};
  std::string raw;
  for (int number = 1; std::getline(in, raw); ++number) {
    Line line{number, SplitWords(raw)};
    if (line.words.empty()) continue;
    const std::string verb = line.words.front();
    const std::string where = file + ":" + std::to_string(number) + ": ";
    if (verb == "case") {
      // The name is the rest of the line, as it stands.
      cases.push_back({file, TextAfter(raw, "case"), number, {}, {}, head});
      if (cases.back().name.empty()) {
        throw ScriptError(where + "a case without a name");
      }
      continue;
    }
    if (verb == "covers" || verb == "differs") {
      if (cases.empty()) throw ScriptError(where + verb + " before a case");
      auto& list = verb == "covers" ? cases.back().covers : cases.back().differs;
      list.insert(list.end(), line.words.begin() + 1, line.words.end());
      continue;
    }
    (cases.empty() ? head : cases.back().lines).push_back(std::move(line));
  }
  if (cases.empty()) throw ScriptError(file + ": no case");
  for (const Case& each : cases) {
    const std::string where = file + ":" + std::to_string(each.line) + ": ";
    if (each.covers.empty()) throw ScriptError(where + "a case says which clauses it covers");
    const auto same = [&each](const Case& other) { return other.name == each.name; };
    if (std::count_if(cases.begin(), cases.end(), same) != 1) {
      throw ScriptError(where + "two cases of this name");
    }
  }
  return cases;
}

std::vector<Case> ReadScript(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw ScriptError("can't open " + file);
  return ParseScript(file, std::string{std::istreambuf_iterator<char>(in), {}});
}

uint64_t ParseNumber(const std::string& word) {
  size_t used = 0;
  try {
    const uint64_t value = std::stoull(word, &used, 0);
    if (used == word.size() && word[0] != '-') return value;
  } catch (const std::logic_error&) {
  }
  throw ScriptError("'" + word + "' is not a number");
}

std::chrono::nanoseconds ParseDuration(const std::string& word) {
  struct Unit {
    std::string_view name;
    double ns;
  };
  constexpr std::array<Unit, 4> kUnits = {{{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}}};
  size_t used = 0;
  try {
    const double value = std::stod(word, &used);
    for (const Unit& unit : kUnits) {
      if (word.substr(used) == unit.name && value >= 0) {
        return std::chrono::nanoseconds(std::llround(value * unit.ns));
      }
    }
  } catch (const std::logic_error&) {
  }
  throw ScriptError("'" + word + "' is not a time (10us, 1.28ms)");
}

std::string ToText(std::chrono::nanoseconds duration) {
  std::ostringstream out;
  out.precision(12);
  const auto ns = static_cast<double>(duration.count());
  if (ns >= 1e6 || ns == 0) {
    out << ns / 1e6 << "ms";
  } else {
    out << ns / 1e3 << "us";
  }
  return out.str();
}

std::vector<Range> ParseRanges(const std::string& word) {
  std::vector<Range> ranges;
  std::istringstream in(word);
  for (std::string piece; std::getline(in, piece, ',');) {
    const size_t plus = piece.find('+');
    if (plus == std::string::npos) {
      throw ScriptError("'" + piece + "' is not a range (offset+length)");
    }
    ranges.push_back({ParseNumber(piece.substr(0, plus)),
                      static_cast<uint32_t>(ParseNumber(piece.substr(plus + 1)))});
  }
  return ranges;
}

std::string Words::Next(const char* what) {
  if (words_.empty())
    throw ScriptError(std::string("the line ends where ") + what + " was to stand");
  std::string word = words_.front();
  words_.erase(words_.begin());
  return word;
}

bool Words::NextIs(std::string_view word) {
  if (words_.empty() || words_.front() != word) return false;
  words_.erase(words_.begin());
  return true;
}

bool Words::Flag(std::string_view word) {
  const auto at = std::find(words_.begin(), words_.end(), word);
  if (at == words_.end()) return false;
  words_.erase(at);
  return true;
}

std::optional<std::string> Words::Value(std::string_view name) {
  const auto at = std::find(words_.begin(), words_.end(), name);
  if (at == words_.end()) return std::nullopt;
  if (at + 1 == words_.end()) throw ScriptError("'" + std::string(name) + "' without a value");
  std::string value = *(at + 1);
  words_.erase(at, at + 2);
  return value;
}

std::optional<uint64_t> Words::Number(std::string_view name) {
  const std::optional<std::string> value = Value(name);
  if (!value.has_value()) return std::nullopt;
  return ParseNumber(*value);
}

std::optional<std::chrono::nanoseconds> Words::Time(std::string_view name) {
  const std::optional<std::string> value = Value(name);
  if (!value.has_value()) return std::nullopt;
  return ParseDuration(*value);
}

void Words::Finish() const {
  if (!words_.empty()) throw ScriptError("what does '" + words_.front() + "' mean here?");
}

}  // namespace sumac::conformance
