// A process's connection manager: all its connections, and the way of each message to the right
// one.
//
// Several processes share an address and with it one socket for management datagrams: any of them
// may read any message. So each process
//
//   - carries its number in the upper bits of its communication IDs, and takes what others hand on
//     to it at the abstract unix name .../cm/<number>;
//   - claims the port that it listens on: .../cm/<port space>/<port>. That one name keeps the port
//     from others, is where requests for it are handed on to, and vanishes with the process;
//   - answers what is for nobody: a request for a port without a listener, a disconnect or reply
//     that belongs to no connection. A request waits for a moment before it is refused: programs
//     close a listener and open the next on its port (perftest), and clients on the same host are
//     faster than that.
//
// Nobody is in charge, so nothing has to be taken over when a process ends.
//
// Not for several threads at once: its owner calls Serve() when fd() is readable and when
// NextTimeout() has come; events arrive through `Events`, from within these and the other calls.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "verbs/soft_nic/cm/connection.h"
#include "verbs/soft_nic/cm/management_socket.h"
#include "verbs/soft_nic/link/abstract_socket.h"
#include "verbs/soft_nic/link/udp_link.h"
#include "verbs/soft_nic/link/udp_port_share.h"

namespace sumac::soft_nic {

// A port of one of rdma_cm's port spaces.
struct CmPort {
  uint16_t space = 0;
  uint16_t number = 0;
  bool operator==(const CmPort&) const = default;
  bool operator<(const CmPort& other) const {
    return space != other.space ? space < other.space : number < other.number;
  }
};

class Agent {
 public:
  // Connections that a peer has asked for and nobody has accepted or refused yet.
  static constexpr size_t kHalfOpenMax = 4096;
  static constexpr size_t kConnectionsMax = 65536;
  static constexpr size_t kWaitingMax = 4096;  // datagrams for a process that reads too slowly
  static constexpr size_t kEarlyMax = 256;  // requests that wait for a listener; more are refused
  static constexpr Duration kEarlyTime = std::chrono::milliseconds(200);

  // A connection with the peer that it leads to.
  class Endpoint : public Connection::Output {
   public:
    Endpoint(Agent& agent, uint32_t id, const Gid& peer, uint8_t traffic_class);
    Connection connection;
    const Gid peer;
    const uint8_t traffic_class;
    void Transmit(const CmMessage& message) override;
    void Raise(ConnectionEvent event, int status, const CmMessage* message) override;

   private:
    Agent& agent_;
  };

  class Events {
   public:
    virtual ~Events() = default;
    // Somebody asks for a connection to a port that is listened on. False: there is no room for it.
    virtual bool OnRequest(CmPort port, Endpoint& endpoint, const CmAddresses& addresses) = 0;
    // Only of connections that are not abandoned.
    virtual void OnEvent(uint32_t id, ConnectionEvent event, int status,
                         const CmMessage* message) = 0;
  };

  struct Counters {
    uint64_t dropped_malformed = 0;  // no message that we know
    uint64_t dropped_unknown = 0;    // for a connection that is not there
    uint64_t dropped_no_room = 0;    // too many half-open connections, or its reader is stuck
    uint64_t handed_on = 0;
    uint64_t refused = 0;  // requests answered with REJ or a negative SIDR_REP
  };

  // Joins those who share the address; blocks as UdpPortShare::Join does. Fails as that does.
  static absl::StatusOr<std::unique_ptr<Agent>> Open(const UdpLinkOptions& options, uint64_t guid,
                                                     Events& events);
  ~Agent();

  int fd() const { return epoll_.get(); }
  void Serve(Time now);
  Time NextTimeout() const;

  const Gid& gid() const { return gid_; }
  uint64_t guid() const { return guid_; }  // as on the wire: first byte first
  uint32_t scope_id() const { return scope_id_; }
  uint32_t mtu_bytes() const { return mtu_bytes_; }
  const Counters& counters() const { return counters_; }
  const ManagementSocket::Counters& socket_counters() const { return socket_->counters(); }

  // Keeps a port from others, for this process. AlreadyExists: another has it.
  absl::Status Claim(CmPort port);
  // Requests for a claimed port are taken or refused.
  void Listen(CmPort port, bool listens);
  void Unclaim(CmPort port);

  // Asks a peer for a connection (REQ, SIDR_REQ). ResourceExhausted: too many connections.
  absl::StatusOr<uint32_t> Connect(const Gid& peer, const CmMessage& request, Time now);
  // Null when it is closed. Calls on its connection get it as their output.
  Endpoint* Find(uint32_t id);
  // Its user is gone; it closes when the peer has been told.
  void Abandon(uint32_t id, Time now);
  // For the end of the process: tells all peers once and waits for nothing.
  void AbandonAll(Time now);

 private:
  struct Claimed {
    UniqueFd fd;
    bool listens = false;
    UniqueFd sign;  // .../listens: nobody sends to it, but it can be seen (ss -x, /proc/net/unix)
  };
  // A datagram as one process hands it on to another.
  struct HandedOn {
    std::array<char, 8> magic{'s', 'u', 'm', 'a', 'c', ' ', 'c', 'm'};
    Gid source{};
    Mad mad{};
  };
  struct Waiting {
    std::string name;
    HandedOn message;
    Time until;  // its sender asks again anyway
  };
  // A request for a port that nobody listens on yet.
  struct Early {
    Gid source;
    Mad mad;
    bool handed_on;
    Time until;
  };
  // A request, as its sender repeats it.
  using RequestKey = std::tuple<Gid, uint32_t, uint64_t>;

  Agent(uint64_t guid, Events& events) : guid_(guid), events_(events) {}
  absl::Status Start(const UdpLinkOptions& options);
  absl::Status Watch(int fd);
  std::string NameOf(uint32_t number) const;
  std::string NameOf(CmPort port) const;
  uint32_t NumberOf(uint32_t id) const { return id >> kCountBits; }

  uint32_t NewId();
  Endpoint& NewEndpoint(const Gid& peer, uint8_t traffic_class);
  void Settle(uint32_t id);
  void Send(const Gid& peer, uint8_t traffic_class, const CmMessage& message);

  void ReadHandedOn(int fd);
  // False: nobody has that name. What its reader has no room for yet waits in `waiting_`.
  bool HandOn(const std::string& name, const Gid& source,
              std::span<const std::byte, kMadBytes> mad);
  void HandOnWaiting(Time now);
  void OnDatagram(const Gid& source, std::span<const std::byte, kMadBytes> mad, bool handed_on,
                  Time now);
  void OnQuestion(const Gid& source, const CmMessage& message,
                  std::span<const std::byte, kMadBytes> mad, bool handed_on, Time now);
  bool FindListener(const Gid& source, const CmMessage& message,
                    std::span<const std::byte, kMadBytes> mad, bool handed_on);
  void LookAgain(Time now);
  void TakeQuestion(const Gid& source, const CmMessage& message, CmPort port);
  void Refuse(const Gid& source, const CmMessage& question, CmRejectReason reason);
  void AnswerForNobody(const Gid& source, const CmMessage& message);

  static constexpr int kCountBits = 26;  // of a communication ID; above it the process's number

  const uint64_t guid_;
  Events& events_;
  Gid gid_{};
  uint32_t scope_id_ = 0;
  uint32_t mtu_bytes_ = 0;
  uint32_t number_ = 0;
  uint32_t next_count_ = 0;
  Counters counters_;
  std::string names_;
  std::unique_ptr<UdpPortShare> share_;
  std::unique_ptr<ManagementSocket> socket_;
  UniqueFd handed_on_;
  // A unix socket holds few datagrams (net.unix.max_dgram_qlen): what does not fit goes a moment
  // later.
  std::deque<Waiting> waiting_;
  Time try_again_ = kNever;
  std::deque<Early> early_;
  Time look_again_ = kNever;
  UniqueFd epoll_;
  std::map<CmPort, Claimed> claimed_;
  std::unordered_map<uint32_t, std::unique_ptr<Endpoint>> endpoints_;
  std::map<RequestKey, uint32_t> requests_;  // of passive connections, for as long as those live
};

}  // namespace sumac::soft_nic
