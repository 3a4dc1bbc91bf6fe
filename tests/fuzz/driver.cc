// Runs a fuzz target without a fuzzer: its seeds, then seeded mutations of them, a bounded number.
//
//   fuzz_wire [--runs N] [--seed S]       run i's input depends on S and i alone
//   fuzz_wire --replay S I                only that input, as the message of a crash names it
//   fuzz_wire FILE...                     inputs that libFuzzer wrote
//   fuzz_wire --write-seeds FOLDER        the seeds as files, for libFuzzer
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/fuzz/fuzz_target.h"

namespace sumac::fuzz {
namespace {

char running[128];  // what the signal handler prints: the way to this input

void OnCrash(int signal) {
  const ssize_t ignored = write(STDERR_FILENO, running, strlen(running));
  static_cast<void>(ignored);
  ::signal(signal, SIG_DFL);
  raise(signal);
}

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
  const Bytes exact(input);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

int Main(int argc, char** argv) {
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM})
    ::signal(signal, OnCrash);
  const std::vector<Bytes> seeds = Seeds();
  uint64_t runs = 20000;
  uint64_t seed = 1;
  uint64_t first = 0;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--runs" && i + 1 < argc) {
      runs = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--seed" && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--replay" && i + 2 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
      first = std::strtoull(argv[++i], nullptr, 10);
      runs = first + 1;
    } else if (argument == "--write-seeds" && i + 1 < argc) {
      const std::filesystem::path folder = argv[++i];
      std::filesystem::create_directories(folder);
      for (size_t s = 0; s < seeds.size(); ++s) {
        std::ofstream(folder / std::to_string(s), std::ios::binary)
            .write(reinterpret_cast<const char*>(seeds[s].data()),
                   static_cast<std::streamsize>(seeds[s].size()));
      }
      return 0;
    } else if (argument.starts_with("-")) {
      std::fprintf(stderr, "%s: bad argument %s (see the head of tests/fuzz/driver.cc)\n", argv[0],
                   argv[i]);
      return 2;
    } else {
      files.push_back(argument);
    }
  }
  for (const std::string& file : files) {
    std::ifstream in(file, std::ios::binary);
    if (!in) {
      std::fprintf(stderr, "%s: can't read %s\n", argv[0], file.c_str());
      return 2;
    }
    std::snprintf(running, sizeof running, "input: %.100s\n", file.c_str());
    RunOne(Bytes(std::istreambuf_iterator<char>(in), {}));
  }
  if (!files.empty()) return 0;
  std::printf("%zu seeds, %llu runs, --seed %llu\n", seeds.size(),
              static_cast<unsigned long long>(runs), static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  for (uint64_t run = first; run < runs; ++run) {
    std::snprintf(running, sizeof running, "input: --replay %llu %llu\n",
                  static_cast<unsigned long long>(seed), static_cast<unsigned long long>(run));
    alarm(20);  // an input that never ends is a finding, too
    RunOne(InputOf(seed, run, seeds));
  }
  alarm(0);
  return 0;
}

}  // namespace
}  // namespace sumac::fuzz

int main(int argc, char** argv) { return sumac::fuzz::Main(argc, argv); }
