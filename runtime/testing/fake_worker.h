// The worker and endpoint of fake_fabric.h; see there. Not for use by itself.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "runtime/testing/fake_fabric.h"

namespace sumac::runtime::testing {

class FakeEndpoint final : public transport::Endpoint {
 public:
  FakeEndpoint(FakeFabric& fabric, FakeWorker& worker, int peer)
      : fabric_(fabric), worker_(worker), peer_(peer) {}

  int peer() const override { return peer_; }
  absl::Status status() const override;
  absl::StatusOr<transport::Ticket> Write(const transport::LocalSlice& source,
                                          const transport::RemoteSlice& target) override;
  absl::StatusOr<transport::Ticket> WriteWithImmediate(const transport::LocalSlice& source,
                                                       const transport::RemoteSlice& target,
                                                       uint32_t immediate) override;
  absl::StatusOr<transport::Ticket> Read(const transport::LocalSlice& into,
                                         const transport::RemoteSlice& source) override;
  absl::StatusOr<transport::Ticket> FetchAdd(const transport::LocalSlice& result,
                                             const transport::RemoteSlice& target,
                                             uint64_t add) override;
  absl::StatusOr<transport::Ticket> CompareSwap(const transport::LocalSlice& result,
                                                const transport::RemoteSlice& target,
                                                uint64_t expected, uint64_t desired) override;
  uint32_t room() const override;
  uint32_t immediate_room() const override;
  bool Done(transport::Ticket ticket) const override;
  transport::Ticket last_ticket() const override;
  absl::Status Wait(transport::Ticket ticket, absl::Time deadline) override;
  absl::Status Flush(absl::Time deadline) override;
  absl::Status Send(std::span<const std::byte> message, absl::Time deadline) override;
  absl::StatusOr<size_t> Receive(std::span<std::byte> buffer, absl::Time deadline) override;

 private:
  friend class FakeFabric;
  friend class FakeWorker;

  enum class Kind { kWrite, kWriteWithImmediate, kRead, kFetchAdd, kCompareSwap };
  struct Operation {
    Kind kind;
    transport::LocalSlice local;
    transport::RemoteSlice remote;
    uint64_t a = 0;  // add, expected
    uint64_t b = 0;  // desired, immediate
  };

  absl::StatusOr<transport::Ticket> Post(const Operation& operation);
  // Under the fabric's mutex:
  int RunQueue();
  absl::Status Run(const Operation& operation);
  void Fail(const absl::Status& status);
  uint32_t RoomLocked() const;
  uint32_t ImmediateRoomLocked() const;

  FakeFabric& fabric_;
  FakeWorker& worker_;
  int peer_;
  std::deque<Operation> queue_;
  transport::Ticket posted_ = 0;
  transport::Ticket done_ = 0;
  uint32_t credits_used_ = 0;
  absl::Status status_;
};

class FakeWorker final : public transport::Worker {
 public:
  FakeWorker(FakeFabric& fabric, int rank, transport::WorkerOptions options);
  ~FakeWorker() override;

  transport::Bootstrap& bootstrap() override { return fabric_.bootstrap(rank_); }
  const transport::WorkerOptions& options() const override { return options_; }
  const std::string& device_name() const override { return device_name_; }
  absl::StatusOr<transport::Endpoint*> Connect(int peer, absl::Time deadline) override;
  transport::Endpoint* Find(int peer) override;
  absl::StatusOr<std::unique_ptr<transport::RegisteredMemory>> Register(
      void* addr, size_t length, uint32_t remote_access) override;
  void SetImmediateHandler(ImmediateHandler handler) override { handler_ = std::move(handler); }
  int Progress() override;
  absl::Status Wait(absl::FunctionRef<bool()> done, absl::Time deadline) override;

 private:
  friend class FakeFabric;
  friend class FakeEndpoint;

  FakeFabric& fabric_;
  int rank_;
  transport::WorkerOptions options_;
  std::string device_name_ = "fake0";
  ImmediateHandler handler_;
  std::map<int, std::unique_ptr<FakeEndpoint>> endpoints_;
  std::deque<std::pair<int, uint32_t>> inbox_;  // peer, immediate
};

}  // namespace sumac::runtime::testing
