// Runs a fuzz target without a fuzzer: its seeds, then seeded mutations of them, a bounded number.
//
//   fuzz_wire [--runs N] [--seed S]       run i's input depends on S and i alone
//   fuzz_wire --seconds T --runs N        no longer than T seconds
//   fuzz_wire --corpus FOLDER ...         its files first, if there is such a folder; then as above
//   fuzz_wire --replay S I                only that input, as the message of a crash names it
//   fuzz_wire FILE...                     inputs that libFuzzer wrote
//   fuzz_wire --write-seeds FOLDER        the seeds as files, for libFuzzer
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/fuzz/fuzz_target.h"
#include "tests/support/crash_note.h"

namespace sumac::fuzz {
namespace {

constexpr unsigned kInputSecondsMax = 20;  // an input that never ends is a finding, too

uint64_t Below(std::mt19937_64& random, uint64_t bound) {
  return bound == 0 ? 0 : random() % bound;
}

// One small change: a bit, a byte, an extreme value, a cut, a copy, an insertion, a splice.
void MutateOnce(Bytes& input, const std::vector<Bytes>& seeds, std::mt19937_64& random) {
  static constexpr uint8_t kExtremes[] = {0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff};
  const size_t at = Below(random, input.size());
  switch (Below(random, 8)) {
    case 0:
      if (!input.empty()) input[at] ^= static_cast<uint8_t>(1u << Below(random, 8));
      return;
    case 1:
      if (!input.empty()) input[at] = static_cast<uint8_t>(random());
      return;
    case 2: {  // a field of up to 8 bytes
      const size_t length = std::min<size_t>(1u << Below(random, 4), input.size() - at);
      const uint8_t value = kExtremes[Below(random, std::size(kExtremes))];
      std::fill_n(input.begin() + static_cast<ptrdiff_t>(at), length, value);
      return;
    }
    case 3:
      input.resize(at);
      return;
    case 4: {
      const size_t length = std::min<size_t>(1 + Below(random, 16), input.size() - at);
      const Bytes piece(input.begin() + static_cast<ptrdiff_t>(at),
                        input.begin() + static_cast<ptrdiff_t>(at + length));
      input.insert(input.begin() + static_cast<ptrdiff_t>(Below(random, input.size() + 1)),
                   piece.begin(), piece.end());
      return;
    }
    case 5: {
      Bytes noise(1 + Below(random, 12));
      for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
      input.insert(input.begin() + static_cast<ptrdiff_t>(at), noise.begin(), noise.end());
      return;
    }
    case 6: {
      const size_t length = std::min<size_t>(1 + Below(random, 8), input.size() - at);
      input.erase(input.begin() + static_cast<ptrdiff_t>(at),
                  input.begin() + static_cast<ptrdiff_t>(at + length));
      return;
    }
    default: {
      const Bytes& other = seeds[Below(random, seeds.size())];
      const size_t from = Below(random, other.size());
      input.resize(at);
      input.insert(input.end(), other.begin() + static_cast<ptrdiff_t>(from), other.end());
      return;
    }
  }
}

Bytes InputOf(uint64_t seed, uint64_t run, const std::vector<Bytes>& seeds) {
  if (run < seeds.size()) return seeds[run];
  std::mt19937_64 random(seed ^ run * 0x9e3779b97f4a7c15u);
  Bytes input = seeds[Below(random, seeds.size())];
  for (uint64_t changes = 1 + Below(random, 6); changes > 0; --changes) {
    MutateOnce(input, seeds, random);
  }
  return input;
}

void RunOne(const Bytes& input) {
  // An allocation of exactly this size: AddressSanitizer sees a read past its end.
  const Bytes exact(input);  // NOLINT(performance-unnecessary-copy-initialization)
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

// False: it can't be read.
bool RunFile(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    std::fprintf(stderr, "can't read %s\n", file.c_str());
    return false;
  }
  testing::SetCrashNote("input: %.140s\n", file.c_str());
  alarm(kInputSecondsMax);
  RunOne(Bytes(std::istreambuf_iterator<char>(in), {}));
  return true;
}

void WriteSeeds(const std::filesystem::path& folder, const std::vector<Bytes>& seeds) {
  std::filesystem::create_directories(folder);
  for (size_t s = 0; s < seeds.size(); ++s) {
    std::ofstream(folder / std::to_string(s), std::ios::binary)
        .write(reinterpret_cast<const char*>(seeds[s].data()),
               static_cast<std::streamsize>(seeds[s].size()));
  }
}

struct Arguments {
  uint64_t runs = 20000;
  uint64_t seed = 1;
  uint64_t first = 0;
  uint64_t seconds = 0;  // 0: no limit
  std::vector<std::string> files;
  std::string write_seeds_to;
  bool mutate = true;
};

bool Parse(int argc, char** argv, Arguments* out) {
  const auto number = [](const char* text) { return std::strtoull(text, nullptr, 10); };
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const int left = argc - i - 1;
    if (argument == "--runs" && left >= 1) {
      out->runs = number(argv[++i]);
    } else if (argument == "--seed" && left >= 1) {
      out->seed = number(argv[++i]);
    } else if (argument == "--seconds" && left >= 1) {
      out->seconds = number(argv[++i]);
    } else if (argument == "--replay" && left >= 2) {
      out->seed = number(argv[++i]);
      out->first = number(argv[++i]);
      out->runs = out->first + 1;
    } else if (argument == "--write-seeds" && left >= 1) {
      out->write_seeds_to = argv[++i];
    } else if (argument == "--corpus" && left >= 1) {
      const std::filesystem::path folder = argv[++i];
      if (!std::filesystem::is_directory(folder)) continue;
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        out->files.push_back(entry.path());
      }
    } else if (argument.starts_with("-")) {
      std::fprintf(stderr, "%s: bad argument %s (see the head of tests/fuzz/driver.cc)\n", argv[0],
                   argv[i]);
      return false;
    } else {
      out->files.push_back(argument);
      out->mutate = false;
    }
  }
  std::sort(out->files.begin(), out->files.end());  // a folder's order differs between machines
  return true;
}

int Main(int argc, char** argv) {
  testing::PrintCrashNoteOnDeath();
  const std::vector<Bytes> seeds = Seeds();
  Arguments arguments;
  if (!Parse(argc, argv, &arguments)) return 2;
  if (!arguments.write_seeds_to.empty()) {
    WriteSeeds(arguments.write_seeds_to, seeds);
    return 0;
  }
  for (const std::string& file : arguments.files) {
    if (!RunFile(file)) return 2;
  }
  if (!arguments.mutate) return 0;
  const auto start = std::chrono::steady_clock::now();
  const auto seed = static_cast<unsigned long long>(arguments.seed);
  uint64_t run = arguments.first;
  for (; run < arguments.runs; ++run) {
    if (arguments.seconds != 0 &&
        std::chrono::steady_clock::now() - start >= std::chrono::seconds(arguments.seconds)) {
      break;
    }
    testing::SetCrashNote("input: --replay %llu %llu\n", seed,
                          static_cast<unsigned long long>(run));
    alarm(kInputSecondsMax);
    RunOne(InputOf(arguments.seed, run, seeds));
  }
  alarm(0);
  std::printf("%zu seeds, %zu files, %llu runs, --seed %llu\n", seeds.size(),
              arguments.files.size(), static_cast<unsigned long long>(run - arguments.first), seed);
  return 0;
}

}  // namespace
}  // namespace sumac::fuzz

int main(int argc, char** argv) { return sumac::fuzz::Main(argc, argv); }
