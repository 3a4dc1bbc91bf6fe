#include "tests/conformance/differences.h"

#include <array>
#include <fstream>

namespace sumac::conformance {
namespace {

// "…/rc/gap.rdma" as "rc/gap.rdma".
std::string ShortNameOf(const std::string& file) {
  const size_t base = file.rfind('/');
  if (base == std::string::npos) return file;
  const size_t folder = file.rfind('/', base - 1);
  return folder == std::string::npos ? file : file.substr(folder + 1);
}

Differences::Kind KindNamed(const std::string& word) {
  if (word == "differs") return Differences::Kind::kDiffers;
  if (word == "varies") return Differences::Kind::kVaries;
  return word == "crashes" ? Differences::Kind::kCrashes : Differences::Kind::kNone;
}

std::string Trimmed(const std::string& text) {
  const size_t from = text.find_first_not_of(' ');
  if (from == std::string::npos) return "";
  return text.substr(from, text.find_last_not_of(' ') - from + 1);
}

}  // namespace

Differences::Differences(const std::string& file) : file_(file) {
  std::ifstream in(file);
  if (!in) throw ScriptError(file + " can't be read");
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    line = Trimmed(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    const size_t first = line.find('|');
    const size_t second = first == std::string::npos ? first : line.find('|', first + 1);
    const std::string kind = line.substr(0, space);
    if (second == std::string::npos || Trimmed(line.substr(second + 1)).empty() ||
        KindNamed(kind) == Kind::kNone) {
      throw ScriptError(file + ":" + std::to_string(number) +
                        ": 'differs SCRIPT | CASE | WHY', or varies, or crashes");
    }
    const Name name = {Trimmed(line.substr(space, first - space)),
                       Trimmed(line.substr(first + 1, second - first - 1))};
    if (!kinds_.emplace(name, KindNamed(kind)).second) {
      throw ScriptError(file + ":" + std::to_string(number) + ": twice");
    }
  }
}

Differences::Kind Differences::KindOf(const Case& script) const {
  const auto listed = kinds_.find({ShortNameOf(script.file), script.name});
  return listed == kinds_.end() ? Kind::kNone : listed->second;
}

std::string Differences::Judge(const Case& script, const Outcome& outcome) {
  const Name name = {ShortNameOf(script.file), script.name};
  judged_.insert(name);
  const auto listed = kinds_.find(name);
  const std::string where = script.file + ": " + script.name + ": ";
  if (listed == kinds_.end()) return outcome.kind == Outcome::kFailed ? outcome.why : "";
  if (listed->second == Kind::kCrashes) {
    ++known_;
    return "";
  }
  if (outcome.kind == Outcome::kNotApplicable) return where + "listed, but it can't be played";
  if (outcome.kind == Outcome::kPassed && listed->second == Kind::kDiffers) {
    return where + "passes, though " + file_ + " lists it";
  }
  if (outcome.kind == Outcome::kFailed) ++known_;
  return "";
}

std::string Differences::Unused() const {
  std::string text;
  for (const auto& [name, kind] : kinds_) {
    if (judged_.count(name) == 0)
      text += file_ + ": no case " + name.first + ": " + name.second + "\n";
  }
  return text;
}

}  // namespace sumac::conformance
