// The soft NIC's protection domain and thread domain: the genuine structs with what we count.
//
// A parent domain (man 3 ibv_alloc_parent_domain) is an ibv_pd around another one. Keys and queue
// pairs know the inner one only, so objects of both work together; each outlives what was made with
// it. Its thread domain and its allocators are advice that we have no use for: queues are locked
// for a few instructions only, and lie in the process's ordinary memory, which no hardware reads.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>

namespace sumac::soft_nic {

struct SoftThreadDomain : ibv_td {
  std::atomic<int> users{0};  // parent domains
};

struct SoftProtectionDomain : ibv_pd {
  // Regions, windows, queue pairs, shared receive queues, address handles, parent domains; of a
  // parent domain also completion queues.
  std::atomic<int> objects{0};
  SoftProtectionDomain* inner = nullptr;  // of a parent domain
  SoftThreadDomain* thread_domain = nullptr;
};

// Counts an object of `pd`, and one less: it can't be deallocated while there are some.
inline void AddObject(ibv_pd* pd) { ++static_cast<SoftProtectionDomain*>(pd)->objects; }
inline void RemoveObject(ibv_pd* pd) { --static_cast<SoftProtectionDomain*>(pd)->objects; }

// Whom rights belong to: `pd`, or what it is the parent domain of.
inline const ibv_pd* RightsOf(const ibv_pd* pd) {
  const auto* soft = static_cast<const SoftProtectionDomain*>(pd);
  return soft->inner != nullptr ? soft->inner : soft;
}

}  // namespace sumac::soft_nic
