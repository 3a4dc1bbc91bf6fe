// The port goes down and comes up with its network interface: events, state, and the connection
// that lives through it. In a network namespace of its own, whose loopback interface it switches.
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "gtest/gtest.h"

#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/device_test_support.h"

namespace sumac::verbs {
namespace {

constexpr int kSkip = 77;

bool Switch(const char* state) {
  return std::system(("ip link set lo " + std::string(state)).c_str()) == 0;
}

// The type of the next event; -1 when none comes.
int NextEvent(ibv_context* context) {
  pollfd readable{context->async_fd, POLLIN, 0};
  if (poll(&readable, 1, 30'000) != 1) return -1;
  ibv_async_event event{};
  if (soft_nic::GetAsyncEvent(context, &event) != 0) return -1;
  soft_nic::AckAsyncEvent(&event);
  return event.element.port_num == 1 ? event.event_type : -1;
}

int RunInNamespace() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return kSkip;
  if (!Switch("up")) return kSkip;
  End a(4096), b(4096);
  Connect(a, b);
  ibv_context* const context = a.device->context();
  ibv_port_attr port{};
  EXPECT_EQ(soft_nic::QueryPort(context, 1, &port), 0);
  EXPECT_EQ(port.state, IBV_PORT_ACTIVE);

  EXPECT_TRUE(Switch("down"));
  EXPECT_EQ(NextEvent(context), IBV_EVENT_PORT_ERR);
  EXPECT_EQ(soft_nic::QueryPort(context, 1, &port), 0);
  EXPECT_EQ(port.state, IBV_PORT_DOWN);
  EXPECT_EQ(port.phys_state, 3);  // disabled
  a.memory[0] = 42;
  EXPECT_EQ(a.Post(IBV_WR_RDMA_WRITE, a.Sge(0, 4096), b.Address(), b.region->rkey()), 0);

  EXPECT_TRUE(Switch("up"));
  EXPECT_EQ(NextEvent(context), IBV_EVENT_PORT_ACTIVE);
  EXPECT_EQ(soft_nic::QueryPort(context, 1, &port), 0);
  EXPECT_EQ(port.state, IBV_PORT_ACTIVE);
  EXPECT_EQ(a.Next().status, IBV_WC_SUCCESS) << "what was lost meanwhile is sent again";
  EXPECT_EQ(b.memory[0], 42);
  return testing::Test::HasFailure() ? 1 : 0;
}

TEST(SoftPortState, FollowsItsInterface) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(RunInNamespace());
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kSkip) GTEST_SKIP() << "may not make a network namespace here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace sumac::verbs
