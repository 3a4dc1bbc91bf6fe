#include "verbs/soft_nic/device/soft_context.h"

#include <sys/mman.h>

#include "verbs/log.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/data_path.h"
#include "verbs/soft_nic/wire/packet.h"

namespace sumac::soft_nic {

SoftContext::SoftContext(ibv_device* device, std::unique_ptr<Link> opened, uint64_t send_quota,
                         bool local)
    : verbs_context{},
      link_(std::move(opened)),
      scheduler_(*link_, send_quota,
                 {.on_error = [this](SoftQueuePair& qp) { ReportError(qp); },
                  .on_overrun = [this](SoftCompletionQueue& cq) { ReportOverrun(cq); },
                  .on_established =
                      [this](SoftQueuePair& qp) {
                        same_host_.Publish(qp);
                        Report(qp, IBV_EVENT_COMM_EST);
                      },
                  .on_drained = [this](SoftQueuePair& qp) { Report(qp, IBV_EVENT_SQ_DRAINED); }}),
      port_(link_->interface(), [this](bool up) { ReportPort(up); }),
      same_host_(*link_, local && send_quota == 0),
      counter_service_(&context, link_->local_gid()) {
  FillOperations(this);
  context.device = device;
  // Of no use but to be a descriptor: programs duplicate it to give it to ibv_import_device.
  command_file_ = UniqueFd(memfd_create(kCommandFile, MFD_CLOEXEC));
  context.cmd_fd = command_file_.get();
  context.async_fd = async_events_.fd();
  context.num_comp_vectors = 1;
  pthread_mutex_init(&context.mutex, nullptr);
  context.abi_compat = __VERBS_ABI_IS_EXTENDED;
  control_events_.Add(link_->control_fd(), [this] { link_->OnControlReadable(); });
  control_events_.Add(port_.fd(), [this] { port_.OnReadable(); });
  // Questions that need `progress_`, of which the helper sees nothing before it is set.
  control_events_.Add(counter_service_.fd(), [this] {
    if (started_.load(std::memory_order_acquire)) counter_service_.OnReadable();
  });
  control_events_.Add(same_host_.fd(), [this] {
    if (!started_.load(std::memory_order_acquire)) return;
    progress_->Exclusive([this] { same_host_.OnReadable(); });
  });
  progress_ = std::make_unique<Progress>(scheduler_, link_->poll_fd(), control_events_.fd(),
                                         [this] { control_events_.OnReadable(); });
  started_.store(true, std::memory_order_release);
  progress_->Exclusive([this] { same_host_.Listen(); });
}

SoftContext::~SoftContext() {
  progress_.reset();
  pthread_mutex_destroy(&context.mutex);
}

void SoftContext::Report(SoftQueuePair& qp, ibv_event_type what) {
  ibv_async_event event{};
  event.element.qp = &qp;
  event.event_type = what;
  async_events_.Post(event);
}

void SoftContext::ReportPort(bool up) {
  Log().info("{}: {} is {}", context.device->name, link_->interface(), up ? "up" : "down");
  ibv_async_event event{};
  event.element.port_num = 1;
  event.event_type = up ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR;
  async_events_.Post(event);
}

void SoftContext::ReportError(SoftQueuePair& qp) {
  same_host_.Withdraw(qp.qp_num);
  Log().debug("{} QP 0x{:06x} is in the error state", context.device->name, qp.qp_num);
  // The peer asked for what is not allowed, or the fault lies elsewhere (IBTA vol. 1, 11.6.3.2).
  switch (qp.engine.fatal_nak()) {
    case kSyndromeNakInvalidRequest:
      Report(qp, IBV_EVENT_QP_REQ_ERR);
      break;
    case kSyndromeNakRemoteAccess:
      Report(qp, IBV_EVENT_QP_ACCESS_ERR);
      break;
    default:
      Report(qp, IBV_EVENT_QP_FATAL);
      break;
  }
  if (qp.srq != nullptr) ReportLastReceive(qp);
}

void SoftContext::ReportLastReceive(SoftQueuePair& qp) {
  Report(qp, IBV_EVENT_QP_LAST_WQE_REACHED);
}

void SoftContext::ReportOverrun(SoftCompletionQueue& cq) {
  Log().error(
      "{}: a completion queue of {} entries overran: it was polled too slowly or is too "
      "small for the work requests posted",
      context.device->name, cq.cqe);
  ibv_async_event event{};
  event.element.cq = &cq;
  event.event_type = IBV_EVENT_CQ_ERR;
  async_events_.Post(event);
}

}  // namespace sumac::soft_nic
