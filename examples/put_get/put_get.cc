// Two processes, one-sided: rank 0 writes into rank 1's memory, reads it back and counts in it,
// while rank 1 does nothing but wait to be told.
//
//   ./build/bin/sumac run -n 2 -- ./build/bin/put_get

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "runtime/domain.h"
#include "transport/bootstrap/launch_environment.h"

using namespace sumac;  // NOLINT: an example may

// The value, or the end: a real program would handle the error, which says what to try.
template <typename T>
T Must(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "put_get: %s\n", result.status().ToString().c_str());
  std::exit(1);
}
void Must(const absl::Status& status) { Must(status.ok() ? absl::StatusOr<int>(0) : status); }

int main() {
  const auto launch = Must(transport::ReadLaunchEnvironment());
  if (launch.bootstrap.size != 2) Must(absl::InvalidArgumentError("start me with 2 ranks"));
  const auto bootstrap = Must(transport::Bootstrap::Join(launch.bootstrap));
  const auto domain = Must(runtime::Domain::Create(*bootstrap, {}));
  const auto memory = Must(domain->Allocate(4096));
  char* const bytes = reinterpret_cast<char*>(memory.data());
  const absl::Duration patience = absl::Seconds(30);

  if (domain->rank() == 1) {
    // 64 bytes that others may put to and get from, and count in; a signal for when they have.
    const auto grant = Must(domain->MakeGrant(memory, 0, 64, runtime::kAllRights));
    const auto arrived = Must(domain->CreateSignal());
    Must(bootstrap->Exchange("grant", grant.capability().Serialize(), patience).status());
    std::printf("granted %s\n", grant.capability().ToString().c_str());
    Must(domain->WaitSignal(arrived, /*from_rank=*/0, /*at_least=*/1, absl::Now() + patience));
    std::printf("found \"%s\" in my memory\n", bytes);
    Must(bootstrap->Barrier("done", patience));  // the grant ends with this block
    return 0;
  }

  const auto grants = Must(bootstrap->Exchange("grant", "", patience));
  const auto target = Must(runtime::Capability::Parse(grants[1]));
  const runtime::Signal arrived{.rank = 1, .id = 0};  // rank 1's first signal
  std::printf("on %s: I may %s\n", domain->device_name().c_str(), target.ToString().c_str());

  std::strcpy(bytes, "hello from rank 0");
  Must(domain->PutWithSignal(target, 0, memory.Slice(0, 18), arrived).status());
  Must(domain->Get(target, 0, memory.Slice(100, 18)).status());
  Must(domain->Flush(1));
  std::printf("got back \"%s\"\n", bytes + 100);

  Must(domain->FetchAdd(target, 56, 40).status());
  const uint64_t before = Must(domain->FetchAdd(target, 56, 2));
  std::printf("counter was %lu, I added 2\n", static_cast<unsigned long>(before));

  // What the capability does not cover is refused before anything is sent.
  const auto too_far = domain->Put(target, 60, memory.Slice(0, 18));
  std::printf("as it should be: %s\n", too_far.status().ToString().c_str());
  Must(bootstrap->Barrier("done", patience));
  return too_far.ok() ? 1 : 0;
}
