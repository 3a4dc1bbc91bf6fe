#include "collectives/executor/arguments.h"

#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"

namespace sumac::collectives {
namespace {

constexpr size_t kBytesMax = std::numeric_limits<ptrdiff_t>::max();

absl::Status Invalid(Collective collective, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(NameOf(collective), ": ", what));
}

// The buffers as address ranges; in place means that the smaller lies at the rank's share.
absl::Status CheckOverlap(Collective collective, int rank, size_t share_bytes, size_t input_bytes,
                          size_t output_bytes, const Arguments& arguments) {
  const auto input = reinterpret_cast<uintptr_t>(arguments.input);
  const auto output = reinterpret_cast<uintptr_t>(arguments.output);
  if (input + input_bytes <= output || output + output_bytes <= input) return absl::OkStatus();
  const size_t shift = static_cast<size_t>(rank) * share_bytes;
  switch (collective) {
    case Collective::kAllGather:
      if (input == output + shift) return absl::OkStatus();
      return Invalid(collective,
                     "the buffers overlap, but not in place: send must be recv + rank * count");
    case Collective::kReduceScatter:
      if (output == input + shift) return absl::OkStatus();
      return Invalid(collective,
                     "the buffers overlap, but not in place: recv must be send + rank * count");
    default:
      if (input == output) return absl::OkStatus();
      return Invalid(collective, "the buffers overlap, but are not the same (in place)");
  }
}

}  // namespace

absl::Status CheckArguments(Collective collective, int rank, int size, int root, size_t count,
                            Arguments& arguments) {
  const size_t element = SizeOf(arguments.type);
  if (element == 0) {
    return Invalid(collective,
                   absl::StrCat("unknown data type ", static_cast<int>(arguments.type)));
  }
  if (static_cast<int>(arguments.op) > static_cast<int>(ReduceOp::kAvg)) {
    return Invalid(collective, absl::StrCat("unknown reduction ", static_cast<int>(arguments.op)));
  }
  if (root < 0 || root >= size) {
    return Invalid(collective,
                   absl::StrCat("root ", root, " is not a rank (0 ... ", size - 1, ")"));
  }
  const bool shared =
      collective == Collective::kAllGather || collective == Collective::kReduceScatter;
  const size_t shares = shared ? static_cast<size_t>(size) : 1;
  if (count > kBytesMax / element / shares) {
    return Invalid(collective, absl::StrCat(count, " elements of ", element, " bytes",
                                            shared ? absl::StrCat(" from ", size, " ranks") : "",
                                            " are more than memory can hold"));
  }
  arguments.count = count * shares;
  const bool reads = collective != Collective::kBroadcast || rank == root;
  if (count != 0 && ((reads && arguments.input == nullptr) || arguments.output == nullptr)) {
    return Invalid(collective, absl::StrCat("the ", arguments.output == nullptr ? "recv" : "send",
                                            " buffer is null, but the count is ", count));
  }
  if (!reads || count == 0) return absl::OkStatus();
  const size_t share_bytes = count * element;
  const size_t whole = arguments.count * element;
  return CheckOverlap(collective, rank, share_bytes,
                      collective == Collective::kAllGather ? share_bytes : whole,
                      collective == Collective::kReduceScatter ? share_bytes : whole, arguments);
}

}  // namespace sumac::collectives
