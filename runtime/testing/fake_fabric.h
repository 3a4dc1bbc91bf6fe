// A job of ranks in one process and no network: Bootstrap, Worker and Endpoint in memory.
//
// For tests of the runtime and of what stands on it. Operations are queued when posted and carried
// out when the poster progresses, in order, with the checks of a NIC: key, bounds, right, the owner
// of the key. Signals need credits, which the target gives back when it progresses. Faults are
// calls: a rank fails, a connection breaks, a rank's operations are held up. Nothing is random.
//
// Ownership: the fabric outlives what it made. Threads: one thread a rank, as with real workers;
// one mutex guards everything (this is no fast path). Waits poll against the real clock.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "transport/bootstrap/bootstrap.h"
#include "transport/worker.h"

namespace sumac::runtime::testing {

class FakeBootstrap;
class FakeEndpoint;
class FakeWorker;

class FakeFabric {
 public:
  explicit FakeFabric(int size);
  ~FakeFabric();
  FakeFabric(const FakeFabric&) = delete;
  FakeFabric& operator=(const FakeFabric&) = delete;

  int size() const { return static_cast<int>(bootstraps_.size()); }
  transport::Bootstrap& bootstrap(int rank);
  std::unique_ptr<transport::Worker> MakeWorker(int rank, transport::WorkerOptions options = {});

  // --- Faults
  // The bootstrap learns that a rank died; everything to and from it is lost.
  void FailRank(int rank, const std::string& reason);
  // The connection from `from` to `to` fails with `status`.
  void BreakConnection(int from, int to, const absl::Status& status);
  // Operations of this rank stay queued until it is let go on.
  void Hold(int rank, bool held);
  // Connections to this rank are not answered.
  void RefuseConnections(int rank);

  // How many operations have been carried out or refused: what "nothing was sent" is held against.
  uint64_t operations() const;

 private:
  friend class FakeBootstrap;
  friend class FakeEndpoint;
  friend class FakeWorker;

  struct Key {
    FakeWorker* owner;
    uintptr_t addr;
    size_t length;
    uint32_t access;
  };

  // All below: under mutex_.
  uint32_t AddKey(const Key& key);
  const Key* Find(uint32_t key, uintptr_t addr, size_t length) const;
  FakeWorker* WorkerOf(int rank, const std::string& name) const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // keys, exchanges, failures
  std::vector<std::unique_ptr<FakeBootstrap>> bootstraps_;
  std::vector<FakeWorker*> workers_;
  std::map<std::string, std::string> store_;
  std::map<std::string, std::map<int, std::string>> exchanges_;
  std::map<uint32_t, Key> keys_;
  std::vector<bool> held_;
  std::vector<bool> refusing_;
  absl::Status failure_;
  uint32_t next_key_ = 0;
  uint64_t operations_ = 0;
};

}  // namespace sumac::runtime::testing
