#include "tests/conformance/verbs_device.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "verbs/soft_nic/device/control_path.h"

namespace sumac::conformance {
namespace {

// Beyond what any device gave as a key to somebody.
constexpr uint32_t kUnknownKeyBits = 0x7f000000;
// How long after a fence a kernel's device may still be busy with what came before it.
constexpr Duration kKernelLag = std::chrono::milliseconds(2);
constexpr uint64_t kBindId = ~uint64_t{0};

template <typename T>
T Must(absl::StatusOr<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return *std::move(result);
}
void Check(bool held, const std::string& what) {
  if (!held) throw std::runtime_error(what + ": " + std::strerror(errno));
}

}  // namespace

void VerbsDevice::FreeMemory::operator()(std::byte* memory) const { std::free(memory); }

VerbsDevice::VerbsDevice(VerbsHost& host, const Setup& setup)
    : host_(host), type_(setup.limits.type) {
  if (!setup.beyond_verbs.empty()) {
    throw NotApplicable("verbs have no attribute for " + setup.beyond_verbs);
  }
  try {
    Make(setup);
  } catch (...) {
    Release();
    throw;
  }
}

VerbsDevice::~VerbsDevice() { Release(); }

void VerbsDevice::Make(const Setup& setup) {
  // Of its own pages: regions are pinned whole.
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, kMemoryBytes)));
  if (memory_ == nullptr) throw std::bad_alloc();
  for (size_t i = 0; i < kMemoryBytes; ++i) memory_[i] = PatternAt(i);
  Register();
  send_cq_ = Must(verbs::CompletionQueue::Create(host_.device(), 256, nullptr));
  receive_cq_ = Must(verbs::CompletionQueue::Create(host_.device(), 256, nullptr));
  ibv_qp_init_attr init{};
  init.send_cq = send_cq_->cq();
  init.recv_cq = receive_cq_->cq();
  init.qp_type = type_;
  init.cap = {setup.limits.max_send_wr, setup.limits.max_recv_wr, 4, 4, 256};
  init.sq_sig_all = setup.limits.signal_all ? 1 : 0;
  qp_ = host_.CreateQp(&init);
  host_.Connect(qp_, setup, setup.state);
  if (setup.keys_go) BindWindows();
  if (type_ == IBV_QPT_UD) {
    ibv_ah_attr to = host_.ToPeer();
    to_peer_ = host_.soft() ? soft_nic::CreateAh(host_.pd()->pd(), &to)
                            : ibv_create_ah(host_.pd()->pd(), &to);
    Check(to_peer_ != nullptr, "ibv_create_ah");
  }
  // What the queue pair of the case before has left on the way.
  Settle();
  packets_.clear();
}

void VerbsDevice::Release() {
  // Windows first: rxe waits with a queue pair's end for those that were bound on it.
  for (ibv_mw* window : windows_) {
    if (window != nullptr) ibv_dealloc_mw(window);
  }
  if (qp_ != nullptr) host_.Destroy(qp_);
  for (ibv_mr* region : regions_) {
    if (region != nullptr) host_.device()->provider().dereg_mr(region);
  }
  if (to_peer_ != nullptr) host_.soft() ? soft_nic::DestroyAh(to_peer_) : ibv_destroy_ah(to_peer_);
}

void VerbsDevice::Register() {
  for (size_t i = 0; i < kKeys; ++i) {
    regions_[i] =
        host_.device()->provider().reg_mr(host_.pd()->pd(), memory_.get(), kMemoryBytes,
                                          RightsOf(static_cast<Key>(i)) | IBV_ACCESS_MW_BIND);
    Check(regions_[i] != nullptr, "ibv_reg_mr");
    keys_[i] = regions_[i]->rkey;
    local_keys_[i] = regions_[i]->lkey;
  }
}

// A key that a SEND can take back is that of a window.
void VerbsDevice::BindWindows() {
  for (const Key key : {Key::kReadable, Key::kWritable}) {
    const auto i = static_cast<size_t>(key);
    windows_[i] = ibv_alloc_mw(host_.pd()->pd(), IBV_MW_TYPE_2);
    Check(windows_[i] != nullptr, "ibv_alloc_mw");
    ibv_send_wr wr{};
    wr.wr_id = kBindId;
    wr.opcode = IBV_WR_BIND_MW;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.bind_mw.mw = windows_[i];
    wr.bind_mw.rkey = keys_[i] = ibv_inc_rkey(windows_[i]->rkey);
    wr.bind_mw.bind_info = {.mr = regions_[0],
                            .addr = address(),
                            .length = kMemoryBytes,
                            .mw_access_flags = static_cast<unsigned>(RightsOf(key)) &
                                               ~unsigned{IBV_ACCESS_LOCAL_WRITE}};
    ibv_send_wr* bad = nullptr;
    const int error = ibv_post_send(qp_, &wr, &bad);
    if (error != 0)
      throw std::runtime_error(std::string("IBV_WR_BIND_MW: ") + std::strerror(error));
    const auto bound = NextCompletion(false, std::chrono::seconds(2));
    if (!bound || bound->wc.status != IBV_WC_SUCCESS) throw std::runtime_error("IBV_WR_BIND_MW");
  }
}

uint32_t VerbsDevice::KeyOf(Key key) const {
  return key == Key::kUnknown ? keys_[0] ^ kUnknownKeyBits : keys_[static_cast<size_t>(key)];
}

uint32_t VerbsDevice::LocalKeyOf(Key key) const {
  return key == Key::kUnknown ? local_keys_[0] ^ kUnknownKeyBits
                              : local_keys_[static_cast<size_t>(key)];
}

std::vector<ibv_sge> VerbsDevice::SgesOf(const std::vector<Range>& ranges, Key key) const {
  std::vector<ibv_sge> sges;
  for (const Range& range : ranges) {
    sges.push_back({address() + range.offset, range.length, LocalKeyOf(key)});
  }
  return sges;
}

int VerbsDevice::Post(const SendWork& work) {
  std::vector<ibv_sge> sges = SgesOf(work.from, work.local_key);
  ibv_send_wr wr = ToVerbs(work, sges, to_peer_);
  ibv_send_wr* bad = nullptr;
  const int error = ibv_post_send(qp_, &wr, &bad);
  Settle();
  return error;
}

int VerbsDevice::PostReceive(const ReceiveWork& work) {
  std::vector<ibv_sge> sges = SgesOf(work.into, work.local_key);
  ibv_recv_wr wr = ToVerbs(work, sges);
  ibv_recv_wr* bad = nullptr;
  const int error = ibv_post_recv(qp_, &wr, &bad);
  Settle();
  return error;
}

void VerbsDevice::Enter(ibv_qp_state state) {
  ibv_qp_attr attr{};
  attr.qp_state = state;
  const int error = host_.TryModify(qp_, attr, IBV_QP_STATE);
  if (error != 0) throw std::runtime_error(std::string("ibv_modify_qp: ") + std::strerror(error));
  Settle();
}

void VerbsDevice::SetRights(int access_flags) {
  ibv_qp_attr attr{};
  attr.qp_access_flags = static_cast<unsigned>(access_flags);
  const int error = host_.TryModify(qp_, attr, IBV_QP_ACCESS_FLAGS);
  if (error != 0) throw std::runtime_error(std::string("ibv_modify_qp: ") + std::strerror(error));
}

void VerbsDevice::Deregister(Key key) {
  ibv_mr*& region = regions_[static_cast<size_t>(key)];
  const int error = host_.device()->provider().dereg_mr(region);
  if (error != 0) throw std::runtime_error(std::string("ibv_dereg_mr: ") + std::strerror(error));
  region = nullptr;
}

void VerbsDevice::SetLink(bool) { throw NotApplicable("its link can't be held"); }

void VerbsDevice::Inject(const Packet& packet) {
  soft_nic::PacketHeader header = packet.header;
  header.pad_bytes = static_cast<uint8_t>(-packet.payload.size() & 3u);
  host_.peer().Send(header, packet.payload);
  Settle();
}

// Takes what has come. Polling also drives the soft NIC.
void VerbsDevice::Pump() {
  for (const bool receive : {false, true}) {
    verbs::CompletionQueue& queue = receive ? *receive_cq_ : *send_cq_;
    for (;;) {
      ibv_wc wc{};
      const int taken = queue.Poll({&wc, 1});
      if (taken < 0) throw std::runtime_error("ibv_poll_cq failed");
      if (taken == 0) break;
      (receive ? receives_ : sends_).push_back({wc, std::nullopt});
    }
  }
  bool any = false;
  while (auto received = host_.peer().Receive()) {
    any = true;
    if (host_.TakeFence(received->header)) continue;
    packets_.push_back({received->header, std::move(received->payload), now()});
  }
  if (!any) host_.peer().Wait();
}

void VerbsDevice::Settle() {
  host_.Settle([this] { Pump(); });
  if (host_.soft()) {
    host_.Settle([this] { Pump(); });  // what it has to say comes before the second answer
  } else {
    Wait(kKernelLag);
  }
}

// The longest tick of Linux kernels is 10 ms; what an emulated one sees of time adds to it.
Duration VerbsDevice::tick() const { return std::chrono::milliseconds(host_.soft() ? 1 : 10); }

void VerbsDevice::Wait(Duration duration) {
  const Duration end = now() + duration;
  while (now() < end) Pump();
}

template <typename List>
void VerbsDevice::WaitFor(const List& list, Duration patience) {
  const Duration end = now() + patience;
  if (list.empty()) Settle();
  while (list.empty() && now() < end) Pump();
}

std::optional<Packet> VerbsDevice::NextPacket(Duration patience) {
  WaitFor(packets_, patience);
  if (packets_.empty()) return std::nullopt;
  Packet packet = std::move(packets_.front());
  packets_.pop_front();
  return packet;
}

std::optional<Completion> VerbsDevice::NextCompletion(bool receive, Duration patience) {
  std::deque<Completion>& list = receive ? receives_ : sends_;
  WaitFor(list, patience);
  if (list.empty()) return std::nullopt;
  Completion completion = list.front();
  list.pop_front();
  return completion;
}

std::span<std::byte> VerbsDevice::memory() { return {memory_.get(), kMemoryBytes}; }

ibv_qp_state VerbsDevice::state() const {
  ibv_qp_attr attr{};
  ibv_qp_init_attr init{};
  const int error = host_.device()->provider().query_qp(qp_, &attr, IBV_QP_STATE, &init);
  if (error != 0) throw std::runtime_error(std::string("ibv_query_qp: ") + std::strerror(error));
  return attr.qp_state;
}

std::optional<uint64_t> VerbsDevice::Counter(const std::string&) const { return std::nullopt; }

}  // namespace sumac::conformance
