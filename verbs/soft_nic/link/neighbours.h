// Finds the processes behind the other slots of one UDP address (udp_port_share.h), and exchanges
// with them what two links need to be neighbours (local_link.h).
//
// Every process listens on the abstract unix name .../<address>/<port>/neighbour/<slot>. Either
// side connects when it has something to send; both say one message, with descriptors: the process
// of the lower slot makes the rings of both directions. A connection stays open as a sign of life.
// Where both connect at once, the lower slot keeps its own and closes the other. Nothing here is
// needed for traffic: until it is done, and where it can't be, packets go by the network.
//
// Only processes of the same user are neighbours; what they say is checked all the same.
//
// Threads: Want from any, without waiting; the rest belongs to the thread that serves fd(). Nothing
// blocks.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/shared_pages.h"
#include "verbs/soft_nic/link/udp_port_share.h"
#include "verbs/soft_nic/link/unique_fd.h"

namespace sumac::soft_nic {

// What connects two links of one host, as one of them sees it. Rings as PacketRing::Fits, the flag
// as SleepFlag.
struct Neighbour {
  SharedPages outgoing;  // rings: ours to write,
  SharedPages incoming;  // and the neighbour's
  SharedPages sleep;     // the neighbour's flag,
  UniqueFd event;        // and what wakes it
};

class NeighbourSink {
 public:
  virtual ~NeighbourSink() = default;
  // A neighbour to use from now on, or none any more. By the thread that serves fd().
  virtual void SetNeighbour(uint32_t slot, std::optional<Neighbour> neighbour) = 0;
};

class Neighbours {
 public:
  struct Self {
    std::string names;  // NamesOfPort
    uint32_t slot = 0;
    int sleep_memory = -1;  // what others need to wake us
    int sleep_event = -1;
  };
  // `sink` and the descriptors of `self` outlive it. Fails with what the kernel said.
  static absl::StatusOr<std::unique_ptr<Neighbours>> Create(const Self& self, NeighbourSink& sink);
  ~Neighbours();
  Neighbours(const Neighbours&) = delete;
  Neighbours& operator=(const Neighbours&) = delete;

  // There are packets for that slot: connect, unless that is done.
  void Want(uint32_t slot);

  int fd() const { return epoll_.get(); }
  void OnReadable();

 private:
  struct Connection;
  struct Hello;

  Neighbours(const Self& self, NeighbourSink& sink);
  std::string NameOf(uint32_t slot) const;
  absl::Status Watch(int fd, uint64_t what);
  void Accept();
  void Connect(uint32_t slot);
  void Start(UniqueFd fd, std::optional<uint32_t> slot);
  bool SaySomething(Connection& connection);
  bool Listen(Connection& connection);
  bool Settle(Connection& connection, uint32_t slot);
  bool Meet(Connection& connection, std::vector<UniqueFd> fds);
  void Serve(uint64_t id);
  void End(uint64_t id);
  bool IsAlive(const Connection& connection) const;

  const Self self_;
  NeighbourSink& sink_;
  UniqueFd epoll_;
  UniqueFd listener_;
  UniqueFd want_event_;
  std::atomic<uint64_t> wanted_{0};  // bits of slots
  std::vector<std::unique_ptr<Connection>> connections_;
  uint64_t next_id_ = 2;
};

}  // namespace sumac::soft_nic
