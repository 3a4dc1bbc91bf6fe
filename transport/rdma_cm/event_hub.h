// One rdma_cm event channel, the identifiers on it, and the thread that reads their events.
//
// Used by rdma_cm::Setup: one hub a worker, so one descriptor and one thread however many
// connections. The thread copies each event, puts it where it is waited for and acknowledges it at
// once, so nothing that people do with an event holds up the next one or an identifier's end.
//
// Threads: any; one mutex, held for moments. Failure: absl::Status with the call or the event by
// its name, its status, and what to try.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "transport/connection_setup.h"
#include "transport/rdma_cm/calls.h"

namespace sumac::transport::rdma_cm {

// What is left of an rdma_cm_event after its acknowledgement.
struct Event {
  rdma_cm_event_type type = RDMA_CM_EVENT_ADDR_RESOLVED;
  int status = 0;
  std::vector<uint8_t> private_data;
};

class EventHub;

// An rdma_cm_id on a hub, which it must not outlive. Null when moved from.
class Identifier {
 public:
  Identifier() = default;
  Identifier(EventHub* hub, rdma_cm_id* id) : hub_(hub), id_(id) {}
  ~Identifier();
  Identifier(Identifier&& other) noexcept { swap(other); }
  Identifier& operator=(Identifier&& other) noexcept {
    swap(other);
    return *this;
  }
  rdma_cm_id* get() const { return id_; }
  void swap(Identifier& other) noexcept {
    std::swap(hub_, other.hub_);
    std::swap(id_, other.id_);
  }

 private:
  EventHub* hub_ = nullptr;
  rdma_cm_id* id_ = nullptr;
};

class EventHub {
 public:
  // A connection request, on the hub's thread under its mutex. Who takes it moves from `id`; what
  // is left in there is rejected and ends.
  using RequestHandler = std::function<void(const Event& request, Identifier& id)>;

  // Unavailable: no connection manager here.
  static absl::StatusOr<std::unique_ptr<EventHub>> Create(const Calls& calls,
                                                          RequestHandler handler);
  ~EventHub();
  EventHub(const EventHub&) = delete;
  EventHub& operator=(const EventHub&) = delete;

  const Calls& calls() const { return calls_; }
  absl::StatusOr<Identifier> CreateIdentifier();
  // Ends the thread: no event is read, no handler called any more.
  void Stop();

  // The next event of `id`. `where` names the peer, for errors; `doing` what it is waited for.
  absl::StatusOr<Event> Next(const Identifier& id, const Patience& patience,
                             absl::string_view where, absl::string_view doing);
  // Waits until `done`, which is asked under the hub's mutex after each event.
  absl::Status Await(const Patience& patience, absl::string_view where, absl::string_view doing,
                     absl::FunctionRef<bool()> done);
  // Runs `act` under the hub's mutex.
  void Locked(absl::FunctionRef<void()> act);

 private:
  friend class Identifier;
  EventHub(const Calls& calls, RequestHandler handler, rdma_event_channel* channel, int stop_fd);
  void Run();
  bool TakeOne();
  void Destroy(rdma_cm_id* id);

  const Calls& calls_;
  const RequestHandler on_request_;
  rdma_event_channel* const channel_;
  const int stop_fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<rdma_cm_id*, std::deque<Event>> mailboxes_;
  std::thread thread_;
};

// Statuses of RDMA_CM_EVENT_REJECTED: reasons of IBTA vol. 1, 12.6.7.2.
inline constexpr int kRejectedNoListener = 8;  // invalid service id
inline constexpr int kRejectedStale = 10;      // the kernel still holds a former connection of ours

// "rdma_bind_addr for 10.0.0.1: No such device: ...", with what to try.
absl::Status CallStatus(int error, absl::string_view call, absl::string_view where);
// "rank 2 (10.0.0.2:4711): RDMA_CM_EVENT_REJECTED, status 8: ...", with what to try. Aborted:
// trying again helps.
absl::Status EventStatus(const Event& event, absl::string_view where, absl::string_view doing);

}  // namespace sumac::transport::rdma_cm
