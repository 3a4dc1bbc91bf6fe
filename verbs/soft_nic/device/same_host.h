// The device's part in one-sided access between processes of one host (local/): what it publishes
// of its keys and queue pairs, and how it takes that back.
//
// Owned by SoftContext. Everything by the engine's owner, but for Locate, Release and the two
// Awaits, which control calls make without owning the engine. Without the local path (switched off,
// or the kernel refuses) every call does nothing, and everything is packets.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"

#include "verbs/soft_nic/device/key_table.h"
#include "verbs/soft_nic/device/progress.h"
#include "verbs/soft_nic/link/link.h"
#include "verbs/soft_nic/local/host_peers.h"

namespace sumac::soft_nic {

class SoftQueuePair;

class SameHost {
 public:
  // Does not listen yet.
  SameHost(const Link& link, bool enabled);
  SameHost(const SameHost&) = delete;
  SameHost& operator=(const SameHost&) = delete;

  int fd() const { return peers_ ? peers_->fd() : -1; }
  void OnReadable() { peers_->OnReadable(); }
  void Listen();
  bool on() const { return peers_ != nullptr; }
  // Nothing is open to peers any more, and none of theirs to us.
  void Close();

  // --- Regions ---
  // Where peers can map such a region, found before it is published; kept until it is released.
  SharedPlace Locate(const void* start, size_t bytes, int access);
  void Release(const SharedPlace& place);
  void Publish(uint32_t key, const Region& region, const SharedPlace& place);
  void Withdraw(uint32_t key, const SharedPlace& place);
  // After Withdraw: waits until no peer is in the middle of using the key. False when one stays
  // there, because it is stopped: then the bytes are not yet the owner's alone.
  [[nodiscard]] bool AwaitUnused(uint32_t key, Progress& progress);

  // --- Queue pairs ---
  // Opens it to its peer, or not, as its state and rights are now.
  void Publish(const SoftQueuePair& qp);
  void Withdraw(uint32_t qpn);
  // Waits a bounded time until no peer is in the middle of using it.
  void AwaitQueuePairUnused(uint32_t qpn, Progress& progress);
  // On the way to RTR, and back.
  void Connect(SoftQueuePair& qp);
  static void Disconnect(SoftQueuePair& qp);

 private:
  bool Await(absl::FunctionRef<bool()> in_use, Progress& progress);

  const Gid local_;
  std::unique_ptr<HostPeers> peers_;
};

}  // namespace sumac::soft_nic
