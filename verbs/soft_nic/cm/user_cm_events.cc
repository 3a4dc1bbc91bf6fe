// The events of a channel: queued, withdrawn, taken, moved.

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstddef>
#include <vector>

#include "verbs/soft_nic/cm/user_cm.h"
#include "verbs/soft_nic/cm/user_cm_call.h"

namespace sumac::soft_nic {
namespace {

// The descriptor counts the events. Not by write(2): under `sumac soft` that leads back to here
// (interpose/rdma_cm_file.cc).
void Announce(const CmChannel& channel) { ::eventfd_write(channel.fd, 1); }

void Withdraw(const CmChannel& channel) {
  eventfd_t count;
  if (channel.fd >= 0) ::eventfd_read(channel.fd, &count);
}

}  // namespace

void UserCm::Queue(CmIdentifier& id, CmQueuedEvent event) {
  event.about = id.handle;
  event.response.uid = id.uid;
  if (event.requested == 0) event.response.id = id.handle;
  id.channel->events.push_back(event);
  Announce(*id.channel);
}

void UserCm::QueueSimple(CmIdentifier& id, uint32_t kind, int status) {
  CmQueuedEvent event;
  event.response.event = kind;
  event.response.status = static_cast<uint32_t>(status);
  Queue(id, event);
}

// Requests among them take their identifiers along.
void UserCm::DropEvents(const CmIdentifier& id) {
  std::vector<uint32_t> requested;
  auto& events = id.channel->events;
  for (auto at = events.begin(); at != events.end();) {
    if (at->about != id.handle) {
      ++at;
      continue;
    }
    if (at->requested != 0) requested.push_back(at->requested);
    at = events.erase(at);
    Withdraw(*id.channel);
  }
  for (const uint32_t handle : requested) Destroy(handle);
}

int UserCm::GetEvent(Call& call, std::unique_lock<std::mutex>& lock) {
  rdma_ucm_get_event command;
  if (!call.Read(&command)) return EINVAL;
  if (call.out_max < offsetof(rdma_ucm_event_resp, reserved)) return ENOSPC;
  CmChannel& channel = *call.channel;
  while (channel.events.empty()) {
    const int fd = channel.fd;
    if (fd < 0) return EBADF;
    lock.unlock();
    pollfd readable{fd, POLLIN, 0};
    const bool blocks = (::fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
    // Without the lock: here the program may wait for ever, and its thread may be cancelled.
    const int ready = blocks ? ::poll(&readable, 1, -1) : 0;
    const int error = errno;
    lock.lock();
    if (!channel.events.empty()) break;
    if (!blocks) return EAGAIN;
    if (ready < 0) return error;
  }
  CmQueuedEvent& event = channel.events.front();
  const auto found = identifiers_.find(event.about);
  if (found != identifiers_.end()) {
    ++found->second->events_reported;
    if (event.requested != 0) ++found->second->backlog_left;
  }
  const int error =
      call.Respond(command.response, event.response, offsetof(rdma_ucm_event_resp, reserved));
  channel.events.pop_front();
  Withdraw(channel);
  return error;
}

int UserCm::Migrate(Call& call) {
  rdma_ucm_migrate_id command;
  if (!call.Read(&command)) return EINVAL;
  const auto from = channels_.find(static_cast<int>(command.fd));
  const auto found = identifiers_.find(command.id);
  if (from == channels_.end() || found == identifiers_.end()) return ENOENT;
  CmIdentifier& id = *found->second;
  if (id.channel != from->second) return EINVAL;
  // Events that wait on the old channel move along.
  std::vector<CmQueuedEvent> moved;
  auto& events = id.channel->events;
  for (auto at = events.begin(); at != events.end();) {
    if (at->about != id.handle) {
      ++at;
      continue;
    }
    moved.push_back(*at);
    at = events.erase(at);
    Withdraw(*id.channel);
  }
  id.channel = call.channel;
  for (const CmQueuedEvent& event : moved) {
    id.channel->events.push_back(event);
    Announce(*id.channel);
    const auto requested = identifiers_.find(event.requested);
    if (event.requested != 0 && requested != identifiers_.end()) {
      requested->second->channel = call.channel;
    }
  }
  return call.Respond(command.response, rdma_ucm_migrate_resp{id.events_reported});
}

}  // namespace sumac::soft_nic
