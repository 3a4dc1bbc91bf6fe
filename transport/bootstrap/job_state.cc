#include "transport/bootstrap/job_state.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

#include "transport/bootstrap/bootstrap.h"

namespace sumac::transport {
namespace {

constexpr size_t kNameBytesMax = 1024;  // keys, tags, topics
constexpr size_t kHostBytesMax = 255;
constexpr size_t kReasonBytesMax = 4096;
constexpr size_t kGatheringsMax = 4096;  // unfinished at once

uint64_t NewSession() {
  std::random_device random;
  const uint64_t session = (uint64_t{random()} << 32) | random();
  return session != 0 ? session : 1;
}

void RunAll(const std::vector<std::function<void()>>& calls) {
  for (const auto& call : calls) call();
}

}  // namespace

JobState::JobState(const BootstrapServerOptions& options)
    : options_(options), members_(static_cast<size_t>(options.size)) {}

std::string JobState::Describe(int rank) const {
  const MemberRecord& record = members_[static_cast<size_t>(rank)].record;
  if (record.host.empty()) return absl::StrCat("rank ", rank);
  return absl::StrCat("rank ", rank, " (host ", record.host, ", pid ", record.pid, ")");
}

absl::Status JobState::FailureOf(int rank, const std::string& reason) const {
  return WithFailedRank(absl::UnavailableError(absl::StrCat(Describe(rank), " failed: ", reason)),
                        rank);
}

absl::Status JobState::CheckSize(const char* what, size_t bytes) const {
  if (bytes <= options_.value_bytes_max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " of ", bytes, " bytes: at most ",
                                                 options_.value_bytes_max, " are taken"));
}

absl::StatusOr<uint64_t> JobState::Join(const std::string& job, int rank, int size,
                                        MemberRecord record, std::shared_ptr<MemberEvents> events) {
  if (job != options_.job) {
    return absl::FailedPreconditionError(
        "this server belongs to another job; do all ranks have the same job name?");
  }
  if (size != options_.size) {
    return absl::FailedPreconditionError(absl::StrCat(
        "rank ", rank, " says that the job has ", size, " ranks, the server says ", options_.size));
  }
  if (!IsRank(rank)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank, " of a job with ", size, " ranks: must be 0 to ", size - 1));
  }
  record.host.resize(std::min(record.host.size(), kHostBytesMax));
  const std::lock_guard lock(mutex_);
  Member& member = members_[static_cast<size_t>(rank)];
  if (member.phase != Phase::kAbsent) {
    return absl::AlreadyExistsError(absl::StrCat(Describe(rank), " has joined already"));
  }
  member = {Phase::kJoined, NewSession(), std::move(record), std::move(events)};
  ++joined_;
  member.events->OnAccepted(member.session);
  if (!failure_.ok()) {
    member.events->OnFailed(FailedRankOf(failure_), std::string(failure_.message()));
  } else if (joined_ == options_.size) {
    complete_ = true;
    for (Member& each : members_) {
      if (each.events) each.events->OnComplete();
    }
  }
  return member.session;
}

absl::Status JobState::Check(const std::string& job, int rank, uint64_t session) const {
  if (job != options_.job) return absl::PermissionDeniedError("this server belongs to another job");
  if (!IsRank(rank)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank, " of a job with ", options_.size, " ranks"));
  }
  const std::lock_guard lock(mutex_);
  const Member& member = members_[static_cast<size_t>(rank)];
  if (member.phase == Phase::kAbsent || member.session != session) {
    return absl::PermissionDeniedError(
        absl::StrCat("rank ", rank, " has not joined, or this is an earlier process of it"));
  }
  return absl::OkStatus();
}

void JobState::Leave(int rank) {
  Calls calls;
  {
    const std::lock_guard lock(mutex_);
    Member& member = members_[static_cast<size_t>(rank)];
    if (member.phase != Phase::kJoined) return;
    if (!complete_ && failure_.ok()) {
      Forget(member);
      return;
    }
    member.phase = Phase::kLeft;
    member.events.reset();
    // Who waits for it in a gathering waits in vain.
    for (auto it = gatherings_.begin(); it != gatherings_.end();) {
      Gathering& gathering = it->second;
      if (gathering.arrived[static_cast<size_t>(rank)]) {
        ++it;
        continue;
      }
      const auto why =
          WithFailedRank(absl::UnavailableError(absl::StrCat("'", it->first, "': ", Describe(rank),
                                                             " has left the job and did not come")),
                         rank);
      for (GatherDone& done : gathering.waiting) {
        calls.push_back([done = std::move(done), why] { done(why); });
      }
      it = gatherings_.erase(it);
    }
  }
  RunAll(calls);
}

void JobState::Forget(Member& member) {
  member = {};
  --joined_;
}

void JobState::Disconnect(int rank, uint64_t session) {
  if (!IsRank(rank)) return;  // a Join that was refused for that
  {
    const std::lock_guard lock(mutex_);
    Member& member = members_[static_cast<size_t>(rank)];
    if (member.session != session || member.phase != Phase::kJoined) return;
    if (!complete_ && failure_.ok()) {
      Forget(member);  // it may come again, for instance after a restart
      return;
    }
    member.events.reset();
  }
  DeclareFailed(rank, "its process ended or its connection broke");
}

void JobState::FailWaiters(const absl::Status& why, Calls& calls) {
  for (auto& [key, waiting] : lookups_) {
    for (auto& [ticket, done] : waiting) {
      calls.push_back([done = std::move(done), why] { done(why); });
    }
  }
  lookups_.clear();
  for (auto& [tag, gathering] : gatherings_) {
    for (GatherDone& done : gathering.waiting) {
      calls.push_back([done = std::move(done), why] { done(why); });
    }
  }
  gatherings_.clear();
}

void JobState::DeclareFailed(int rank, const std::string& long_reason) {
  if (!IsRank(rank)) return;
  const std::string reason = long_reason.substr(0, kReasonBytesMax);
  Calls calls;
  {
    const std::lock_guard lock(mutex_);
    Member& member = members_[static_cast<size_t>(rank)];
    if (member.phase == Phase::kFailed || member.phase == Phase::kLeft) return;
    const absl::Status why = FailureOf(rank, reason);
    member.phase = Phase::kFailed;
    if (failure_.ok()) failure_ = why;
    const std::string text = absl::StrCat(Describe(rank), " failed: ", reason);
    for (const Member& each : members_) {
      if (each.events) each.events->OnFailed(rank, text);
    }
    FailWaiters(why, calls);
  }
  RunAll(calls);
}

absl::Status JobState::Publish(const std::string& key, std::string value) {
  if (key.empty() || key.size() > kNameBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a key of ", key.size(), " bytes: must be 1 to ", kNameBytesMax));
  }
  if (auto fits = CheckSize("a value", value.size()); !fits.ok()) return fits;
  std::vector<std::pair<uint64_t, LookupDone>> waiting;
  {
    const std::lock_guard lock(mutex_);
    if (keys_.size() >= options_.keys_max) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the server holds ", options_.keys_max, " keys, its limit"));
    }
    if (!keys_.try_emplace(key, value).second) {
      return absl::AlreadyExistsError(absl::StrCat("key '", key, "' was written before"));
    }
    if (auto found = lookups_.find(key); found != lookups_.end()) {
      waiting = std::move(found->second);
      lookups_.erase(found);
    }
  }
  for (auto& [ticket, done] : waiting) done(value);
  return absl::OkStatus();
}

uint64_t JobState::Lookup(const std::string& key, LookupDone done) {
  absl::StatusOr<std::string> result;
  if (key.empty() || key.size() > kNameBytesMax) {
    result = absl::InvalidArgumentError(
        absl::StrCat("a key of ", key.size(), " bytes: must be 1 to ", kNameBytesMax));
  } else {
    const std::lock_guard lock(mutex_);
    if (const auto found = keys_.find(key); found != keys_.end()) {
      result = found->second;
    } else if (!failure_.ok()) {
      result = failure_;
    } else {
      lookups_[key].emplace_back(++last_ticket_, std::move(done));
      return last_ticket_;
    }
  }
  done(std::move(result));
  return 0;
}

void JobState::ForgetLookup(const std::string& key, uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  const auto found = lookups_.find(key);
  if (found == lookups_.end()) return;
  std::erase_if(found->second, [ticket](const auto& each) { return each.first == ticket; });
  if (found->second.empty()) lookups_.erase(found);
}

void JobState::Gather(const std::string& tag, int rank, std::string value, const GatherDone& done) {
  absl::Status refused = CheckSize("a value", value.size());
  if (refused.ok() && (tag.empty() || tag.size() > kNameBytesMax)) {
    refused = absl::InvalidArgumentError(
        absl::StrCat("a tag of ", tag.size(), " bytes: must be 1 to ", kNameBytesMax));
  }
  std::vector<GatherDone> waiting;
  std::vector<std::string> values;
  if (refused.ok()) {
    const std::lock_guard lock(mutex_);
    refused = failure_;
    for (size_t i = 0; refused.ok() && i < members_.size(); ++i) {
      if (members_[i].phase != Phase::kLeft) continue;
      const auto open = gatherings_.find(tag);
      if (open != gatherings_.end() && open->second.arrived[i]) continue;
      refused = WithFailedRank(
          absl::UnavailableError(absl::StrCat(Describe(static_cast<int>(i)), " has left the job")),
          static_cast<int>(i));
    }
    if (refused.ok() && gatherings_.size() >= kGatheringsMax && !gatherings_.contains(tag)) {
      refused = absl::ResourceExhaustedError(
          absl::StrCat(kGatheringsMax, " gatherings are unfinished, the limit"));
    }
    if (refused.ok()) {
      Gathering& gathering = gatherings_[tag];
      gathering.values.resize(members_.size());
      gathering.arrived.resize(members_.size());
      if (gathering.arrived[static_cast<size_t>(rank)]) {
        refused = absl::AlreadyExistsError(
            absl::StrCat("rank ", rank, " has come to '", tag, "' before: tags are used once"));
      } else {
        gathering.arrived[static_cast<size_t>(rank)] = true;
        gathering.values[static_cast<size_t>(rank)] = std::move(value);
        gathering.waiting.push_back(done);
        if (++gathering.count < members_.size()) return;
        waiting = std::move(gathering.waiting);
        values = std::move(gathering.values);
        gatherings_.erase(tag);
      }
    }
  }
  if (!refused.ok()) {
    done(refused);
    return;
  }
  for (GatherDone& each : waiting) each(values);
}

absl::Status JobState::Notify(int from_rank, int rank, const std::string& topic) {
  if (!IsRank(rank) || topic.size() > kNameBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("notifying rank ", rank, " with ", topic.size(), " bytes"));
  }
  const std::lock_guard lock(mutex_);
  const Member& member = members_[static_cast<size_t>(rank)];
  if (!member.events) {
    return WithFailedRank(absl::UnavailableError(absl::StrCat(Describe(rank), " is not there")),
                          rank);
  }
  if (!member.events->OnNotification(from_rank, topic)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Describe(rank), " does not take its notifications; is it stopped?"));
  }
  return absl::OkStatus();
}

std::vector<int> JobState::Missing(const std::string& tag) const {
  std::vector<int> missing;
  const std::lock_guard lock(mutex_);
  const auto gathering = gatherings_.find(tag);
  for (size_t i = 0; i < members_.size(); ++i) {
    const bool there = tag.empty() ? members_[i].phase != Phase::kAbsent
                                   : gathering != gatherings_.end() && gathering->second.arrived[i];
    if (!there) missing.push_back(static_cast<int>(i));
  }
  return missing;
}

void JobState::Close() {
  Calls calls;
  {
    const std::lock_guard lock(mutex_);
    for (Member& each : members_) {
      if (each.events) each.events->OnClosing();
      each.events.reset();
    }
    FailWaiters(absl::UnavailableError("the bootstrap server is closing"), calls);
  }
  RunAll(calls);
}

bool JobState::EverybodyElseGone(int except) const {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].phase == Phase::kJoined && static_cast<int>(i) != except) return false;
  }
  return true;
}

}  // namespace sumac::transport
