// Connects a worker's endpoints: the symmetric handshake over the bootstrap.
//
// Owned by WorkerImpl. Both sides do the same: create the queue pair with its receives, publish its
// address, notify the peer, look up the peer's address, bring the queue pair up (ConnectionSetup:
// by the two addresses, or by rdma_cm), publish "ready", look up the peer's "ready". A thread of
// its own answers the peers that begin; the owner's Connect runs on the owner's thread. Each step
// is done once for a peer, whoever does it, so a Connect that timed out goes on where it stopped.
//
// Threads: Connect and Enqueue from any thread; a mutex for each connector, held between steps
// only. Find is one atomic load. Failure: a status that names the rank and the step.
//
// Invariants
// - An endpoint is found by completions before the peer can learn that we are ready, and by callers
//   after the peer was seen to be ready.
// - The answering thread waits only for peers that began, and those wait for nobody else: no cycle.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

#include "transport/connection_setup.h"
#include "transport/local_path.h"
#include "transport/reliable_endpoint.h"

namespace sumac::transport {

class Connector {
 public:
  Connector(EndpointHost& host, LocalPath path, std::unique_ptr<ConnectionSetup> setup);
  ~Connector();
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;

  absl::StatusOr<ReliableEndpoint*> Connect(int peer, absl::Time deadline);
  // A peer wants to connect: the connector's thread will.
  void Enqueue(int peer);
  // Has the connector's thread tell the job.
  void EnqueueFailure(int rank, std::string reason);
  // Stops the thread; Connect must not be called any more.
  void Stop();

  // For completions; null before it can have any.
  ReliableEndpoint* Established(int peer) const {
    return slots_[static_cast<size_t>(peer)].established.load(std::memory_order_acquire);
  }
  // For callers; null before the peer is ready, too.
  ReliableEndpoint* Connected(int peer) const {
    return slots_[static_cast<size_t>(peer)].connected.load(std::memory_order_acquire);
  }
  size_t size() const { return slots_.size(); }

 private:
  struct Slot {
    std::atomic<ReliableEndpoint*> established{nullptr};
    std::atomic<ReliableEndpoint*> connected{nullptr};
  };
  // How far the handshake with one peer has come. Touched by the one thread that has `busy` set.
  struct Handshake {
    bool busy = false;
    bool queued = false;
    std::unique_ptr<ReliableEndpoint> endpoint;
    uint32_t psn = 0;
    bool address_published = false;
    bool ready_published = false;
  };

  absl::StatusOr<ReliableEndpoint*> ConnectAs(int peer, absl::Time deadline, bool answering);
  absl::Status Run(int peer, Handshake& handshake, absl::Time deadline, bool answering);
  absl::Status Create(int peer, Handshake& handshake);
  absl::Status Establish(int peer, Handshake& handshake, const std::string& address,
                         absl::Time deadline);
  absl::Status PublishOnce(const std::string& key, const std::string& value, bool& published,
                           absl::Time deadline);
  absl::StatusOr<std::string> LookupPatiently(int peer, const std::string& key, absl::Time deadline,
                                              bool notify);
  std::string Key(int from, int to, const char* what) const;
  AddressRecord OwnRecord(int peer, const Handshake& handshake);
  // A queue pair to this very rank needs no manager of connections.
  ConnectionSetup& SetupFor(int peer) { return peer == bootstrap_.rank() ? self_setup_ : *setup_; }
  // Why somebody who waits should stop.
  absl::Status Interrupted() const;
  void Serve();

  EndpointHost& host_;
  const LocalPath path_;
  Bootstrap& bootstrap_;
  const std::string host_name_;
  std::vector<Slot> slots_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Handshake>> handshakes_;  // by rank; null until the first Connect
  ExchangeSetup self_setup_;
  std::unique_ptr<ConnectionSetup> setup_;  // goes before the queue pairs: it may disconnect them
  size_t endpoints_ = 0;
  std::deque<int> queue_;
  std::deque<std::pair<int, std::string>> failures_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace sumac::transport
