// Connects queue pairs through the kernel's connection manager (librdmacm). The queue pairs are our
// own, made on our own context; rdma_cm finds the route and carries the numbers.
//
// Owned by Connector where WorkerOptions::connect asks for it. Each worker listens at the address
// of its GID; the port, and a key for each peer, travel in the address record. Of two ranks the
// lower one connects and the other accepts, so there is one connection a pair. Disconnected when
// the setup goes, before its queue pairs.
//
// Threads: as ConnectionSetup; the hub's thread takes requests. Failure: a status that names the
// rank, its address, and the event or call of rdma_cm; deadlines leave the state as it is.
//
// Invariants
// - A request is kept only if it brings the key that was published for its rank; an answer
// likewise.
// - Number, address and device that rdma_cm reports must be those of the address record and of the
//   chosen path: nobody is connected elsewhere than the log says.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "transport/connection_setup.h"
#include "transport/rdma_cm/calls.h"
#include "transport/rdma_cm/event_hub.h"
#include "transport/rdma_cm/greeting.h"

namespace sumac::transport::rdma_cm {

class Setup final : public ConnectionSetup {
 public:
  // Listens. `calls` must outlive the setup. Unavailable: no connection manager on this host.
  static absl::StatusOr<std::unique_ptr<ConnectionSetup>> Create(const Calls& calls, int rank,
                                                                 int size, const LocalPath& path);
  ~Setup() override;

  void Announce(int peer, AddressRecord& own) override;
  absl::Status BringUp(int peer, verbs::QueuePair& qp, const verbs::ConnectionOptions& agreed,
                       const AddressRecord& remote, const Patience& patience) override;

 private:
  // What an active connection waits for.
  enum class Stage : uint8_t { kNothing, kAddress, kRoute, kAnswer };
  struct Peer {
    uint64_t key = 0;       // under the hub's mutex: what its greeting must bring; 0: none yet
    bool accepted = false;  // under the hub's mutex
    Identifier request;     // under the hub's mutex: came, and was not accepted yet
    Identifier id;
    Stage stage = Stage::kNothing;
    bool connected = false;
  };
  // One call of BringUp.
  struct Attempt {
    int peer;
    Peer& mine;
    verbs::QueuePair& qp;
    const verbs::ConnectionOptions& agreed;
    const AddressRecord& remote;
    const Patience& patience;
    std::string where;  // "rank 2 (10.0.0.2:4711)"
  };

  Setup(int rank, int size, const LocalPath& path);
  absl::Status Listen(const Calls& calls);
  void OnRequest(const Event& request, Identifier& id);
  void Refuse(absl::string_view why);

  absl::Status Connect(const Attempt& attempt);
  absl::Status StartConnecting(const Attempt& attempt);
  absl::Status Request(const Attempt& attempt);
  absl::Status OnAnswer(const Attempt& attempt);
  absl::Status Accept(const Attempt& attempt);
  // The queue pair to RTR and RTS, with what rdma_cm says of the route.
  absl::Status MakeReady(const Attempt& attempt);
  absl::Status Expect(const Attempt& attempt, rdma_cm_event_type type, absl::string_view doing);
  rdma_conn_param Parameters(const Attempt& attempt,
                             const std::array<uint8_t, kGreetingBytes>& greeting) const;

  const Calls& calls() const { return hub_->calls(); }

  const int rank_;
  const LocalPath path_;
  uint16_t port_ = 0;
  std::unique_ptr<EventHub> hub_;  // before all identifiers, so it outlives them
  std::vector<Peer> peers_;        // by rank
  int refused_ = 0;                // under the hub's mutex
  Identifier listener_;
};

// The address of a GID; `interface_index` says by which interface a link-local one is meant.
sockaddr_storage SocketAddressOf(const ibv_gid& gid, uint16_t port, uint32_t interface_index);

// Whether rdma_cm's attributes for RTR lead to the peer of the record. FailedPrecondition if not.
absl::Status CheckRoute(const ibv_qp_attr& attr, const AddressRecord& remote);
// Puts our choices in place of rdma_cm's, for RTR and RTS.
void ApplyChoices(const verbs::ConnectionOptions& agreed, ibv_qp_attr& attr);

}  // namespace sumac::transport::rdma_cm
