// librdmacm's commands, as it writes them, to two processes' worth of connection managers.

#include "verbs/soft_nic/cm/user_cm.h"

#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <rdma/ib_user_verbs.h>

#include <cstring>
#include <string>
#include <thread>

#include "gtest/gtest.h"

// Of the kernel's structs, with their reserved fields, only what matters is named.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

namespace sumac::soft_nic {
namespace {

constexpr uint64_t kGuid = 0x1122334455667788;
const Gid kHere = GidOfIpv4(127, 0, 79, 1);
const Gid kThere = GidOfIpv4(127, 0, 79, 2);
constexpr int kDeadlineMs = 30000;

UserCmOptions OptionsAt(const Gid& address) {
  return {.link =
              [address] {
                UdpLinkOptions options;
                options.address = address;
                return absl::StatusOr<UdpLinkOptions>(options);
              },
          .node_guid = [] { return kGuid; }};
}

// A program with one event channel.
class Program {
 public:
  explicit Program(const Gid& address) : cm(OptionsAt(address)) { fd = cm.Open(O_CLOEXEC); }
  ~Program() { CloseChannel(); }
  void CloseChannel() {
    if (fd < 0) return;
    cm.Close(fd);
    ::close(fd);
    fd = -1;
  }

  // 0 or errno.
  template <typename Command>
  int Call(uint32_t number, const Command& command, size_t out = 0, int channel = -1) {
    struct {
      rdma_ucm_cmd_hdr header;
      Command command;
    } __attribute__((packed)) bytes{{number, sizeof(Command), static_cast<uint16_t>(out)}, command};
    const ssize_t written = cm.Write(channel >= 0 ? channel : fd, &bytes, sizeof(bytes));
    return written == sizeof(bytes) ? 0 : errno;
  }
  static uint64_t To(void* response) { return reinterpret_cast<uint64_t>(response); }

  uint32_t Create(uint16_t space = RDMA_PS_TCP, uint64_t uid = 1) {
    rdma_ucm_create_id_resp response{};
    rdma_ucm_create_id command{.uid = uid, .response = To(&response), .ps = space};
    EXPECT_EQ(Call(RDMA_USER_CM_CMD_CREATE_ID, command, sizeof(response)), 0);
    return response.id;
  }
  int Destroy(uint32_t id, uint32_t* reported = nullptr) {
    rdma_ucm_destroy_id_resp response{};
    rdma_ucm_destroy_id command{.response = To(&response), .id = id};
    const int error = Call(RDMA_USER_CM_CMD_DESTROY_ID, command, sizeof(response));
    if (reported != nullptr) *reported = response.events_reported;
    return error;
  }
  int Bind(uint32_t id, const Gid& gid, uint16_t port) {
    rdma_ucm_bind command{.id = id, .addr_size = sizeof(sockaddr_in)};
    const SocketAddress address = ToSocketAddress(gid, port, 0);
    std::memcpy(&command.addr, &address, sizeof(address));
    return Call(RDMA_USER_CM_CMD_BIND, command);
  }
  int Listen(uint32_t id, uint32_t backlog = 0) {
    return Call(RDMA_USER_CM_CMD_LISTEN, rdma_ucm_listen{.id = id, .backlog = backlog});
  }
  int Resolve(uint32_t id, const Gid& gid, uint16_t port) {
    rdma_ucm_resolve_addr command{.id = id, .timeout_ms = 1000, .dst_size = sizeof(sockaddr_in)};
    const SocketAddress address = ToSocketAddress(gid, port, 0);
    std::memcpy(&command.dst_addr, &address, sizeof(address));
    return Call(RDMA_USER_CM_CMD_RESOLVE_ADDR, command);
  }
  int Route(uint32_t id) {
    return Call(RDMA_USER_CM_CMD_RESOLVE_ROUTE, rdma_ucm_resolve_route{.id = id});
  }
  int Connect(uint32_t id, const std::string& hello, uint32_t qpn = 0x77) {
    rdma_ucm_connect command{};
    command.id = id;
    Fill(command.conn_param, hello, qpn);
    return Call(RDMA_USER_CM_CMD_CONNECT, command);
  }
  int Accept(uint32_t id, uint64_t uid, const std::string& hello, uint32_t qpn = 0x88) {
    rdma_ucm_accept command{};
    command.id = id;
    command.uid = uid;
    Fill(command.conn_param, hello, qpn);
    return Call(RDMA_USER_CM_CMD_ACCEPT, command);
  }
  int MakeReady(uint32_t id) {
    rdma_ucm_accept command{};
    command.id = id;
    return Call(RDMA_USER_CM_CMD_ACCEPT, command);
  }
  int Disconnect(uint32_t id) { return Call(RDMA_USER_CM_CMD_DISCONNECT, rdma_ucm_disconnect{id}); }
  int Attributes(uint32_t id, uint32_t state, ib_uverbs_qp_attr* out) {
    return Call(RDMA_USER_CM_CMD_INIT_QP_ATTR,
                rdma_ucm_init_qp_attr{.response = To(out), .id = id, .qp_state = state},
                sizeof(*out));
  }
  // The next event, which must come.
  rdma_ucm_event_resp Next(int channel = -1) {
    rdma_ucm_event_resp response{};
    pollfd readable{channel >= 0 ? channel : fd, POLLIN, 0};
    EXPECT_EQ(::poll(&readable, 1, kDeadlineMs), 1) << "no event";
    if (readable.revents != 0) {
      EXPECT_EQ(Call(RDMA_USER_CM_CMD_GET_EVENT, rdma_ucm_get_event{To(&response)},
                     sizeof(response), channel),
                0);
    }
    return response;
  }
  bool Pending() const {
    pollfd readable{fd, POLLIN, 0};
    return ::poll(&readable, 1, 0) == 1;
  }

  UserCm cm;
  int fd = -1;

 private:
  static void Fill(rdma_ucm_conn_param& param, const std::string& hello, uint32_t qpn) {
    param.qp_num = qpn;
    param.responder_resources = 4;
    param.initiator_depth = 3;
    param.retry_count = 7;
    param.rnr_retry_count = 6;
    param.valid = 1;
    std::memcpy(param.private_data, hello.data(), hello.size());
    param.private_data_len = static_cast<uint8_t>(hello.size());
  }
};

std::string TextOf(const rdma_ucm_event_resp& event) {
  return reinterpret_cast<const char*>(event.param.conn.private_data);
}

class UserCmTest : public testing::Test {
 protected:
  // A client's identifier that is resolved.
  uint32_t Resolved(uint16_t port, uint16_t space = RDMA_PS_TCP) {
    const uint32_t id = client_.Create(space, 11);
    EXPECT_EQ(client_.Resolve(id, kHere, port), 0);
    EXPECT_EQ(client_.Next().event, kCmAddressResolved);
    EXPECT_EQ(client_.Route(id), 0);
    EXPECT_EQ(client_.Next().event, kCmRouteResolved);
    return id;
  }
  uint32_t Listening(uint16_t port, uint16_t space = RDMA_PS_TCP) {
    const uint32_t id = server_.Create(space, 22);
    EXPECT_EQ(server_.Bind(id, kHere, port), 0);
    EXPECT_EQ(server_.Listen(id), 0);
    return id;
  }

  Program server_{kHere};
  Program client_{kThere};
};

TEST_F(UserCmTest, ConnectsAndParts) {
  Listening(5000);
  const uint32_t id = Resolved(5000);
  ASSERT_EQ(client_.Connect(id, "hello"), 0);
  const auto request = server_.Next();
  EXPECT_EQ(request.event, kCmConnectRequest);
  EXPECT_EQ(request.uid, 22u);
  EXPECT_EQ(TextOf(request), "hello");
  EXPECT_EQ(request.param.conn.private_data_len, 56);
  EXPECT_EQ(request.param.conn.qp_num, 0x77u);
  EXPECT_EQ(request.param.conn.responder_resources, 3);  // what the client will ask for
  EXPECT_EQ(request.param.conn.initiator_depth, 4);
  EXPECT_EQ(request.param.conn.retry_count, 7);

  // The server's queue pair is connected before it accepts.
  ib_uverbs_qp_attr attributes{};
  ASSERT_EQ(server_.Attributes(request.id, IBV_QPS_INIT, &attributes), 0);
  EXPECT_EQ(attributes.qp_attr_mask, static_cast<uint32_t>(IBV_QP_STATE | IBV_QP_PKEY_INDEX |
                                                           IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
  EXPECT_EQ(attributes.port_num, 1);
  ASSERT_EQ(server_.Attributes(request.id, IBV_QPS_RTR, &attributes), 0);
  EXPECT_EQ(attributes.dest_qp_num, 0x77u);
  EXPECT_EQ(attributes.ah_attr.is_global, 1);
  EXPECT_EQ(std::memcmp(attributes.ah_attr.grh.dgid, kThere.data(), 16), 0);
  EXPECT_EQ(attributes.max_dest_rd_atomic, 3);
  const uint32_t server_receives_at = attributes.rq_psn;
  ASSERT_EQ(server_.Attributes(request.id, IBV_QPS_RTS, &attributes), 0);
  EXPECT_EQ(attributes.max_rd_atomic, 4);
  EXPECT_EQ(attributes.retry_cnt, 7);
  EXPECT_EQ(attributes.rnr_retry, 6);
  const uint32_t server_sends_at = attributes.sq_psn;

  EXPECT_EQ(client_.Attributes(id, IBV_QPS_RTR, &attributes), EINVAL);  // nothing known yet
  ASSERT_EQ(server_.Accept(request.id, 33, "welcome"), 0);
  const auto response = client_.Next();
  EXPECT_EQ(response.event, kCmConnectResponse);
  EXPECT_EQ(response.uid, 11u);
  EXPECT_EQ(TextOf(response), "welcome");
  ASSERT_EQ(client_.Attributes(id, IBV_QPS_RTR, &attributes), 0);
  EXPECT_EQ(attributes.dest_qp_num, 0x88u);
  EXPECT_EQ(attributes.rq_psn, server_sends_at);
  ASSERT_EQ(client_.Attributes(id, IBV_QPS_RTS, &attributes), 0);
  EXPECT_EQ(attributes.sq_psn, server_receives_at);
  ASSERT_EQ(client_.MakeReady(id), 0);
  const auto established = server_.Next();
  EXPECT_EQ(established.event, kCmEstablished);
  EXPECT_EQ(established.uid, 33u);

  ASSERT_EQ(client_.Disconnect(id), 0);
  EXPECT_EQ(server_.Next().event, kCmDisconnected);
  ASSERT_EQ(server_.Disconnect(request.id), 0);
  EXPECT_EQ(client_.Next().event, kCmDisconnected);
  EXPECT_EQ(client_.Next().event, kCmTimeWaitExit);
  uint32_t reported = 0;
  EXPECT_EQ(client_.Destroy(id, &reported), 0);
  EXPECT_EQ(reported, 5u);  // resolved twice, response, disconnected, over
  EXPECT_EQ(client_.Destroy(id), ENOENT);
}

TEST_F(UserCmTest, TellsAddressesAndTheDevice) {
  const uint32_t id = Resolved(5001);
  rdma_ucm_query_route_resp route{};
  ASSERT_EQ(client_.Call(RDMA_USER_CM_CMD_QUERY_ROUTE,
                         rdma_ucm_query{.response = Program::To(&route), .id = id}, sizeof(route)),
            0);
  EXPECT_EQ(route.node_guid, kGuid);
  EXPECT_EQ(route.port_num, 1);
  EXPECT_EQ(route.num_paths, 1u);
  EXPECT_EQ(std::memcmp(route.ib_route[0].sgid, kThere.data(), 16), 0);
  EXPECT_EQ(std::memcmp(route.ib_route[0].dgid, kHere.data(), 16), 0);
  EXPECT_EQ(route.dst_addr.sin6_port, htons(5001));
  EXPECT_NE(route.src_addr.sin6_port, 0);
  rdma_ucm_query_addr_resp address{};
  rdma_ucm_query query{.response = Program::To(&address), .id = id};
  ASSERT_EQ(client_.Call(RDMA_USER_CM_CMD_QUERY, query, sizeof(address)), 0);
  EXPECT_EQ(address.node_guid, kGuid);
  EXPECT_EQ(address.src_size, sizeof(sockaddr_in));
  EXPECT_EQ(address.dst_size, sizeof(sockaddr_in));
  query.option = RDMA_USER_CM_QUERY_GID;
  ASSERT_EQ(client_.Call(RDMA_USER_CM_CMD_QUERY, query, sizeof(address)), 0);
  std::array<uint32_t, 64> path{};
  query = {.response = Program::To(path.data()), .id = id, .option = RDMA_USER_CM_QUERY_PATH};
  ASSERT_EQ(client_.Call(RDMA_USER_CM_CMD_QUERY, query, sizeof(path)), 0);
  EXPECT_EQ(path[0], 1u);
  EXPECT_EQ(client_.Call(RDMA_USER_CM_CMD_QUERY, query, 4), ENOSPC);
}

TEST_F(UserCmTest, PortsBelongToOne) {
  const uint32_t first = server_.Create();
  ASSERT_EQ(server_.Bind(first, kHere, 5002), 0);
  EXPECT_EQ(server_.Bind(first, kHere, 5003), EINVAL);  // bound already
  const uint32_t second = server_.Create();
  EXPECT_EQ(server_.Bind(second, kHere, 5002), EADDRINUSE);
  Program other(kHere);
  const uint32_t third = other.Create();
  EXPECT_EQ(other.Bind(third, kHere, 5002), EADDRINUSE);
  EXPECT_EQ(server_.Destroy(first), 0);
  EXPECT_EQ(other.Bind(third, kHere, 5002), 0);
  EXPECT_EQ(server_.Bind(second, kThere, 5004), EADDRNOTAVAIL);
  EXPECT_EQ(server_.Bind(second, Gid{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 0), 0);  // any
}

TEST_F(UserCmTest, Refusals) {
  Listening(5005);
  uint32_t id = Resolved(5006);
  ASSERT_EQ(client_.Connect(id, ""), 0);
  auto event = client_.Next();
  EXPECT_EQ(event.event, kCmRejected);
  EXPECT_EQ(event.status, kCmInvalidServiceId);

  id = Resolved(5005);
  ASSERT_EQ(client_.Connect(id, "x"), 0);
  const uint32_t request = server_.Next().id;
  rdma_ucm_reject reject{};
  reject.id = request;
  std::strcpy(reinterpret_cast<char*>(reject.private_data), "no");
  reject.private_data_len = 3;
  ASSERT_EQ(server_.Call(RDMA_USER_CM_CMD_REJECT, reject), 0);
  event = client_.Next();
  EXPECT_EQ(event.event, kCmRejected);
  EXPECT_EQ(event.status, kCmConsumerDefined);
  EXPECT_EQ(TextOf(event), "no");

  // Whoever does not want a request may also just forget it.
  id = Resolved(5005);
  ASSERT_EQ(client_.Connect(id, "x"), 0);
  EXPECT_EQ(server_.Destroy(server_.Next().id), 0);
  EXPECT_EQ(client_.Next().event, kCmRejected);

  id = client_.Create();
  ASSERT_EQ(client_.Resolve(id, GidOfIpv4(10, 1, 2, 3), 1), 0);  // not from loopback
  event = client_.Next();
  EXPECT_EQ(event.event, kCmAddressError);
  EXPECT_EQ(event.status, static_cast<uint32_t>(-ENODEV));
}

TEST_F(UserCmTest, BadCommandsAreRefused) {
  const uint32_t id = client_.Create();
  EXPECT_EQ(client_.Connect(id, "too early"), EINVAL);
  EXPECT_EQ(client_.Route(id), EINVAL);
  EXPECT_EQ(client_.Disconnect(id), EINVAL);
  EXPECT_EQ(client_.Accept(id, 1, ""), EINVAL);
  EXPECT_EQ(client_.Listen(99999), ENOENT);
  EXPECT_EQ(client_.Call(1000, id), EINVAL);
  EXPECT_EQ(client_.Call(RDMA_USER_CM_CMD_JOIN_MCAST, rdma_ucm_join_mcast{}), EOPNOTSUPP);
  EXPECT_EQ(client_.Call(RDMA_USER_CM_CMD_LISTEN, uint16_t{1}), EINVAL);  // too short
  rdma_ucm_cmd_hdr header{RDMA_USER_CM_CMD_LISTEN, 100, 0};               // longer than written
  EXPECT_EQ(client_.cm.Write(client_.fd, &header, sizeof(header)), -1);
  EXPECT_EQ(client_.cm.Write(client_.fd, &header, 1), -1);
  const uint32_t other = Resolved(5007);
  EXPECT_EQ(client_.Connect(other, std::string(57, 'x')), EINVAL);  // 56 bytes fit
  EXPECT_EQ(client_.Connect(other, std::string(56, 'x')), 0);
}

TEST_F(UserCmTest, ChannelsDoNotSeeEachOthersIdentifiers) {
  const uint32_t id = client_.Create();
  const int second = client_.cm.Open(O_NONBLOCK);
  EXPECT_EQ(client_.Call(RDMA_USER_CM_CMD_LISTEN, rdma_ucm_listen{.id = id}, 0, second), EINVAL);
  rdma_ucm_event_resp response{};
  EXPECT_EQ(client_.Call(RDMA_USER_CM_CMD_GET_EVENT, rdma_ucm_get_event{Program::To(&response)},
                         sizeof(response), second),
            EAGAIN);
  // An identifier moves with its events.
  ASSERT_EQ(client_.Resolve(id, kHere, 1), 0);
  EXPECT_TRUE(client_.Pending());
  rdma_ucm_migrate_resp moved{};
  ASSERT_EQ(client_.Call(RDMA_USER_CM_CMD_MIGRATE_ID,
                         rdma_ucm_migrate_id{.response = Program::To(&moved),
                                             .id = id,
                                             .fd = static_cast<uint32_t>(client_.fd)},
                         sizeof(moved), second),
            0);
  EXPECT_FALSE(client_.Pending());
  EXPECT_EQ(client_.Next(second).event, kCmAddressResolved);
  client_.cm.Close(second);
  ::close(second);
}

TEST_F(UserCmTest, AClosedChannelEndsItsConnections) {
  Listening(5008);
  const uint32_t id = Resolved(5008);
  ASSERT_EQ(client_.Connect(id, ""), 0);
  const uint32_t request = server_.Next().id;
  ASSERT_EQ(server_.Accept(request, 33, ""), 0);
  ASSERT_EQ(client_.Next().event, kCmConnectResponse);
  ASSERT_EQ(client_.MakeReady(id), 0);
  ASSERT_EQ(server_.Next().event, kCmEstablished);
  client_.CloseChannel();
  EXPECT_EQ(server_.Next().event, kCmDisconnected);
}

TEST_F(UserCmTest, AProgramThatEndsSaysSo) {
  Listening(5011);
  const uint32_t id = Resolved(5011);
  ASSERT_EQ(client_.Connect(id, ""), 0);
  const uint32_t request = server_.Next().id;
  ASSERT_EQ(server_.Accept(request, 33, ""), 0);
  ASSERT_EQ(client_.Next().event, kCmConnectResponse);
  ASSERT_EQ(client_.MakeReady(id), 0);
  ASSERT_EQ(server_.Next().event, kCmEstablished);
  client_.cm.Leave();
  EXPECT_EQ(server_.Next().event, kCmDisconnected);
}

TEST_F(UserCmTest, AReaderWaitsForAnEvent) {
  const uint32_t id = client_.Create();
  rdma_ucm_event_resp response{};
  std::thread reader([&] {
    EXPECT_EQ(client_.Call(RDMA_USER_CM_CMD_GET_EVENT, rdma_ucm_get_event{Program::To(&response)},
                           sizeof(response)),
              0);
  });
  EXPECT_EQ(client_.Resolve(id, kHere, 1), 0);
  reader.join();
  EXPECT_EQ(response.event, kCmAddressResolved);
  EXPECT_EQ(response.id, id);
}

TEST_F(UserCmTest, DatagramServices) {
  Listening(5009, RDMA_PS_UDP);
  const uint32_t id = Resolved(5009, RDMA_PS_UDP);
  ib_uverbs_qp_attr attributes{};
  ASSERT_EQ(client_.Attributes(id, IBV_QPS_INIT, &attributes), 0);
  EXPECT_EQ(attributes.qkey, 0x01234567u);
  ASSERT_EQ(client_.Connect(id, "hello"), 0);
  const auto request = server_.Next();
  EXPECT_EQ(request.event, kCmConnectRequest);
  EXPECT_EQ(request.param.ud.private_data_len, 180);
  ASSERT_EQ(server_.Accept(request.id, 33, "welcome"), 0);
  const auto established = client_.Next();
  EXPECT_EQ(established.event, kCmEstablished);
  EXPECT_EQ(established.param.ud.qp_num, 0x88u);
  EXPECT_EQ(established.param.ud.qkey, 0x01234567u);
  EXPECT_EQ(std::memcmp(established.param.ud.ah_attr.grh.dgid, kHere.data(), 16), 0);
  EXPECT_EQ(established.param.ud.private_data_len, 136);
  // Nobody serves that port.
  const uint32_t other = Resolved(5010, RDMA_PS_UDP);
  ASSERT_EQ(client_.Connect(other, ""), 0);
  const auto refused = client_.Next();
  EXPECT_EQ(refused.event, kCmUnreachable);
  EXPECT_EQ(refused.status, kCmServiceUnknown);
}

TEST_F(UserCmTest, Options) {
  const uint32_t id = client_.Create();
  const auto set = [&](uint32_t name, auto value) {
    return client_.Call(RDMA_USER_CM_CMD_SET_OPTION,
                        rdma_ucm_set_option{.optval = Program::To(&value),
                                            .id = id,
                                            .level = RDMA_OPTION_ID,
                                            .optname = name,
                                            .optlen = sizeof(value)});
  };
  EXPECT_EQ(set(RDMA_OPTION_ID_TOS, uint8_t{104}), 0);
  EXPECT_EQ(set(RDMA_OPTION_ID_TOS, 104), EINVAL);
  EXPECT_EQ(set(RDMA_OPTION_ID_REUSEADDR, 1), 0);
  EXPECT_EQ(set(RDMA_OPTION_ID_AFONLY, 1), 0);
  EXPECT_EQ(set(RDMA_OPTION_ID_ACK_TIMEOUT, uint8_t{18}), 0);
  EXPECT_EQ(set(RDMA_OPTION_ID_ACK_TIMEOUT, uint8_t{32}), EINVAL);
  EXPECT_EQ(set(77, 1), ENOSYS);
}

}  // namespace
}  // namespace sumac::soft_nic
