// What the bootstrap server knows about its job: members, keys, gatherings, failures. No network.
//
// Owned by the server; called from gRPC's threads. Every method takes the one lock, and calls
// nobody back while it holds it. Waiting is by callback: a Waiter is told exactly once.
//
// Bounds: keys, key and value sizes by BootstrapServerOptions; events per member by what its peers
// do.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "transport/bootstrap/server.h"

namespace sumac::transport {

struct MemberRecord {
  std::string host;
  int pid = 0;
};

// Where a member hears of the others. Calls come from any thread, in order, and must not block.
class MemberEvents {
 public:
  virtual ~MemberEvents() = default;
  virtual void OnAccepted(uint64_t session) = 0;
  virtual void OnComplete() = 0;
  virtual void OnFailed(int rank, const std::string& reason) = 0;
  // False: it has too much unread already.
  virtual bool OnNotification(int from_rank, const std::string& topic) = 0;
  virtual void OnClosing() = 0;
};

class JobState {
 public:
  using LookupDone = std::function<void(absl::StatusOr<std::string>)>;
  using GatherDone = std::function<void(absl::StatusOr<std::vector<std::string>>)>;

  explicit JobState(const BootstrapServerOptions& options);

  // --- Membership. `events` must live until it is removed by Leave or Disconnect.
  absl::StatusOr<uint64_t> Join(const std::string& job, int rank, int size, MemberRecord record,
                                std::shared_ptr<MemberEvents> events);
  absl::Status Check(const std::string& job, int rank, uint64_t session) const;
  void Leave(int rank);
  // The member's stream broke: unless it left, it failed. `session` 0: before it was accepted.
  void Disconnect(int rank, uint64_t session);
  void DeclareFailed(int rank, const std::string& reason);
  bool IsRank(int rank) const { return rank >= 0 && rank < options_.size; }

  // --- Exchange
  absl::Status Publish(const std::string& key, std::string value);
  // The ticket is for ForgetLookup; 0 when `done` has been told already.
  uint64_t Lookup(const std::string& key, LookupDone done);
  // Nobody waits for that answer any more.
  void ForgetLookup(const std::string& key, uint64_t ticket);
  void Gather(const std::string& tag, int rank, std::string value, const GatherDone& done);
  absl::Status Notify(int from_rank, int rank, const std::string& topic);
  std::vector<int> Missing(const std::string& tag) const;

  // Ends everything that waits, and tells the members.
  void Close();
  // True when every member that ever joined has left or failed, but for `except`.
  bool EverybodyElseGone(int except) const;

 private:
  enum class Phase : uint8_t { kAbsent, kJoined, kLeft, kFailed };
  struct Member {
    Phase phase = Phase::kAbsent;
    uint64_t session = 0;
    MemberRecord record;
    std::shared_ptr<MemberEvents> events;
  };
  struct Gathering {
    std::vector<std::string> values;
    std::vector<bool> arrived;
    size_t count = 0;
    std::vector<GatherDone> waiting;
  };
  using Calls = std::vector<std::function<void()>>;

  // A member that goes before the job is complete may come again. Call with the lock.
  void Forget(Member& member);
  absl::Status FailureOf(int rank, const std::string& reason) const;
  void FailWaiters(const absl::Status& why, Calls& calls);
  absl::Status CheckSize(const char* what, size_t bytes) const;
  std::string Describe(int rank) const;

  const BootstrapServerOptions options_;
  mutable std::mutex mutex_;
  std::vector<Member> members_;
  int joined_ = 0;
  bool complete_ = false;
  absl::Status failure_;  // the first
  absl::flat_hash_map<std::string, std::string> keys_;
  absl::flat_hash_map<std::string, std::vector<std::pair<uint64_t, LookupDone>>> lookups_;
  uint64_t last_ticket_ = 0;
  std::map<std::string, Gathering> gatherings_;
};

}  // namespace sumac::transport
