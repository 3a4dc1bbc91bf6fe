// Devices on one host find each other and exchange their boards (board_layout.h).
//
// Each listens on an abstract unix name that says user, address and range of QPNs. Who connects a
// queue pair asks whoever has the range of the remote QPN; the answer brings the board's
// descriptors, and the connection stays open as a sign of life. Two connections lead between two
// devices, one for each direction in which memory is used:
//
//   host   a device whose memory we use: we asked, and it answered with its board
//   guest  a device that uses our memory: it asked, and got a line of the hazard page
//
// Asking never waits: until the answer is there, and if none comes (a stopped process, another
// version, another user), there is no way but packets.
//
// Owned by SoftContext. Everything by the engine's owner, but for KeyInUse, QueuePairInUse and
// files(), which any thread may call. OnReadable when fd() is readable; it never blocks. What a
// peer sends is checked; what is wrong ends its connection.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

#include "verbs/soft_nic/link/unique_fd.h"
#include "verbs/soft_nic/local/board.h"
#include "verbs/soft_nic/local/remote_process.h"
#include "verbs/soft_nic/local/shared_files.h"
#include "verbs/soft_nic/wire/icrc.h"

namespace sumac::soft_nic {

struct HostPeersOptions {
  Gid address{};
  uint32_t first_qpn = 0;
  uint32_t qpn_count = 0;
  uint32_t layout_version = kBoardLayoutVersion;  // tests set another
};

class HostPeers {
 public:
  static absl::StatusOr<std::unique_ptr<HostPeers>> Create(const HostPeersOptions& options);
  HostPeers(const HostPeers&) = delete;
  HostPeers& operator=(const HostPeers&) = delete;

  int fd() const { return epoll_.get(); }
  void OnReadable();
  // From now on others find us. AlreadyExists: somebody has our name.
  absl::Status Listen();
  // Nobody finds us any more, and we use nobody's memory; what was published is withdrawn.
  void Close();

  // The device at `address` that has this QPN; null when there is none on this host.
  std::shared_ptr<RemoteProcess> Find(const Gid& address, uint32_t qpn);

  Board& board() { return *board_; }
  SharedFiles& files() { return files_; }
  uint32_t IndexOf(uint32_t qpn) const { return (qpn - options_.first_qpn) % kBoardQueuePairs; }

  // Whether a guest is in the middle of using what was withdrawn.
  bool KeyInUse(uint32_t key) const;
  bool QueuePairInUse(uint32_t qpn) const;
  // Guests that have ended use nothing.
  void ForgetTheDead();
  // A region in a file was withdrawn: guests should give back what they have mapped.
  void AskGuestsToSweep();

  size_t guests() const { return guests_.size(); }
  size_t hosts() const { return hosts_.size(); }

 private:
  struct Guest {
    UniqueFd connection;
    UniqueFd life;  // pidfd
    uint32_t line = 0;
    bool answered = false;
  };
  struct Host {
    UniqueFd connection;
    std::pair<Gid, uint64_t> where;  // address, name's range
    std::shared_ptr<RemoteProcess> process;
  };
  using Name = std::pair<Gid, uint64_t>;

  explicit HostPeers(const HostPeersOptions& options) : options_(options) {}
  void Watch(int fd, uint64_t id);
  void Unwatch(int fd);
  void Accept();
  bool Answer(Guest& guest);
  bool Hear(Host& host);
  void DropGuest(uint64_t id);
  void DropHost(uint64_t id);
  std::shared_ptr<RemoteProcess> Ask(const Name& where);

  const HostPeersOptions options_;
  UniqueFd epoll_;
  UniqueFd listener_;
  std::unique_ptr<Board> board_;
  SharedFiles files_;
  uint64_t last_id_ = 0;
  std::map<uint64_t, Guest> guests_;
  std::map<uint64_t, Host> hosts_;
  std::map<Name, uint64_t> host_ids_;
  std::array<bool, kHazardLines> line_taken_{};
  std::atomic<uint32_t> lines_used_{0};  // the most there were at once
};

}  // namespace sumac::soft_nic
