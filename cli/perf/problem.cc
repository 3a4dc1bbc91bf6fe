#include "cli/perf/problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cli/perf/element.h"

namespace sumac::cli {
namespace {

using collectives::ReduceOp;

// bfloat16 counts exactly to 256: the sum over all ranks stays below that, up to 250 ranks.
constexpr uint32_t kExactSum = 250;

uint32_t Period(int ranks) {
  return std::clamp<uint32_t>(kExactSum / static_cast<uint32_t>(ranks), 2, 7);
}

// Mixes the position beyond its last bits, so that a shift by a piece or a block shows.
uint32_t Phase(size_t position, uint32_t salt, uint32_t period) {
  return static_cast<uint32_t>((position + (position >> 10) + salt) % period);
}

// What rank `rank` contributes where the phase is `phase`.
double Contribution(ReduceOp op, int rank, uint32_t phase, uint32_t period) {
  const uint32_t value = (phase + static_cast<uint32_t>(rank)) % period;
  // At most period/ranks + 1 ranks contribute a factor of two: the product stays in range of half.
  if (op == ReduceOp::kProd) return value == 0 && rank < 14 ? 2 : 1;
  return value + 1;
}

double Expected(const Problem& problem, uint32_t phase, uint32_t period) {
  double result = Contribution(problem.op, 0, phase, period);
  for (int rank = 1; rank < problem.ranks; ++rank) {
    const double value = Contribution(problem.op, rank, phase, period);
    switch (problem.op) {
      case ReduceOp::kSum:
      case ReduceOp::kAvg:
        result += value;
        break;
      case ReduceOp::kProd:
        result *= value;
        break;
      case ReduceOp::kMin:
        result = std::min(result, value);
        break;
      case ReduceOp::kMax:
        result = std::max(result, value);
        break;
    }
  }
  if (problem.op != ReduceOp::kAvg) return result;
  result /= problem.ranks;
  return IsInteger(problem.type) ? std::trunc(result) : result;
}

bool Reduces(Collective collective) {
  return collective == Collective::kAllReduce || collective == Collective::kReduceScatter;
}

}  // namespace

size_t Problem::send_elements() const {
  return collective == Collective::kReduceScatter ? count * static_cast<size_t>(ranks) : count;
}

size_t Problem::recv_elements() const {
  return collective == Collective::kAllGather ? count * static_cast<size_t>(ranks) : count;
}

uint64_t Problem::total_bytes() const {
  return std::max(send_elements(), recv_elements()) * collectives::SizeOf(type);
}

double Problem::bus_factor() const {
  const double n = ranks;
  switch (collective) {
    case Collective::kAllReduce:
      return 2 * (n - 1) / n;
    case Collective::kAllGather:
    case Collective::kReduceScatter:
      return (n - 1) / n;
    case Collective::kBroadcast:
      return 1;
  }
  return 1;
}

Problem SizedProblem(Collective collective, collectives::DataType type, ReduceOp op, int root,
                     const collectives::Communicator& communicator, uint64_t bytes) {
  Problem problem{collective, type, op, root, communicator.size(), communicator.rank(), 0};
  problem.count = bytes / collectives::SizeOf(type);
  if (collective == Collective::kAllGather || collective == Collective::kReduceScatter) {
    problem.count /= static_cast<size_t>(problem.ranks);
  }
  return problem;
}

absl::StatusOr<Buffers> Buffers::Make(collectives::Communicator& communicator, BufferKind kind,
                                      uint64_t max_bytes) {
  Buffers buffers;
  std::byte** const places[] = {&buffers.send_, &buffers.recv_};
  for (int i = 0; i < 2; ++i) {
    if (kind == BufferKind::kRegistered && max_bytes > 0) {
      auto buffer = communicator.Allocate(max_bytes);
      if (!buffer.ok()) return buffer.status();
      *places[i] = buffer->data();
      buffers.registered_.push_back(*std::move(buffer));
    } else {
      buffers.heap_[i].resize(max_bytes);
      *places[i] = buffers.heap_[i].data();
    }
  }
  return buffers;
}

void* Buffers::send(const Problem& problem, bool in_place) {
  if (!in_place) return send_;
  const size_t share = problem.count * collectives::SizeOf(problem.type);
  const bool own_share = problem.collective == Collective::kAllGather;
  return recv_ + (own_share ? share * static_cast<size_t>(problem.rank) : 0);
}

void* Buffers::recv(const Problem& problem, bool in_place) {
  const size_t share = problem.count * collectives::SizeOf(problem.type);
  const bool own_share = in_place && problem.collective == Collective::kReduceScatter;
  return recv_ + (own_share ? share * static_cast<size_t>(problem.rank) : 0);
}

void Fill(const Problem& problem, Buffers& buffers, bool in_place, uint32_t salt) {
  const uint32_t period = Period(problem.ranks);
  if (!in_place) {
    std::memset(buffers.recv(problem, false), 0xa5,
                problem.recv_elements() * collectives::SizeOf(problem.type));
  }
  std::vector<double> values(period);
  for (uint32_t phase = 0; phase < period; ++phase) {
    values[phase] = Contribution(problem.op, problem.rank, phase, period);
  }
  VisitElements(problem.type, buffers.send(problem, in_place), [&](auto* elements) {
    using Element = std::remove_pointer_t<decltype(elements)>;
    std::vector<Element> converted(values.begin(), values.end());
    for (size_t i = 0; i < problem.send_elements(); ++i) {
      elements[i] = converted[Phase(i, salt, period)];
    }
  });
}

absl::Status Run(const Problem& problem, collectives::Communicator& communicator, Buffers& buffers,
                 bool in_place) {
  const void* send = buffers.send(problem, in_place);
  void* recv = buffers.recv(problem, in_place);
  switch (problem.collective) {
    case Collective::kAllReduce:
      return communicator.AllReduce(send, recv, problem.count, problem.type, problem.op);
    case Collective::kAllGather:
      return communicator.AllGather(send, recv, problem.count, problem.type);
    case Collective::kReduceScatter:
      return communicator.ReduceScatter(send, recv, problem.count, problem.type, problem.op);
    case Collective::kBroadcast:
      return communicator.Broadcast(send, recv, problem.count, problem.type, problem.root);
  }
  return absl::InternalError("unknown collective");
}

uint64_t CountWrong(const Problem& problem, Buffers& buffers, bool in_place, uint32_t salt) {
  const uint32_t period = Period(problem.ranks);
  const bool is_average = Reduces(problem.collective) && problem.op == ReduceOp::kAvg;
  const double tolerance = is_average ? RoundingOf(problem.type) : 0;
  // expected[source][phase]: a reduction has one source, a copy has the rank that it came from.
  const auto expected_of = [&](int source) {
    std::vector<double> expected(period);
    for (uint32_t phase = 0; phase < period; ++phase) {
      expected[phase] = Reduces(problem.collective)
                            ? Expected(problem, phase, period)
                            : Contribution(problem.op, source, phase, period);
    }
    return expected;
  };
  uint64_t wrong = 0;
  VisitElements(problem.type, buffers.recv(problem, in_place), [&](const auto* elements) {
    const auto compare = [&](size_t first, size_t position, const std::vector<double>& expected) {
      for (size_t i = 0; i < problem.count; ++i) {
        const double want = expected[Phase(position + i, salt, period)];
        const auto got = static_cast<double>(elements[first + i]);
        // Written so that a NaN counts as wrong.
        if (!(std::abs(got - want) <= tolerance * std::abs(want))) ++wrong;
      }
    };
    switch (problem.collective) {
      case Collective::kAllReduce:
        compare(0, 0, expected_of(0));
        break;
      case Collective::kReduceScatter:
        compare(0, static_cast<size_t>(problem.rank) * problem.count, expected_of(0));
        break;
      case Collective::kBroadcast:
        compare(0, 0, expected_of(problem.root));
        break;
      case Collective::kAllGather:
        for (int source = 0; source < problem.ranks; ++source) {
          compare(static_cast<size_t>(source) * problem.count, 0, expected_of(source));
        }
        break;
    }
  });
  return wrong;
}

}  // namespace sumac::cli
