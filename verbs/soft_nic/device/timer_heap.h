// Which queue pair's timer is due next: a binary heap with one entry a queue pair.
//
// Intrusive: an item holds its own deadline and place, so moving an entry allocates nothing;
// Reserve makes room when a queue pair is created. Used by the engine's owner only.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "verbs/soft_nic/engine/ports.h"

namespace sumac::soft_nic {

struct TimerItem {
  static constexpr size_t kNotQueued = static_cast<size_t>(-1);
  Time deadline = kNever;
  size_t place = kNotQueued;
};

class TimerHeap {
 public:
  void Reserve(size_t items) { items_.reserve(items); }
  // kNever takes the item out.
  void Set(TimerItem& item, Time deadline) {
    if (item.deadline == deadline) return;
    item.deadline = deadline;
    if (deadline == kNever) {
      Remove(item);
      return;
    }
    if (item.place == TimerItem::kNotQueued) {
      item.place = items_.size();
      items_.push_back(&item);
    }
    SiftDown(SiftUp(item.place));
  }
  void Remove(TimerItem& item) {
    item.deadline = kNever;
    if (item.place == TimerItem::kNotQueued) return;
    const size_t hole = std::exchange(item.place, TimerItem::kNotQueued);
    TimerItem* last = items_.back();
    items_.pop_back();
    if (last == &item) return;
    Put(last, hole);
    SiftDown(SiftUp(hole));
  }
  Time next() const { return items_.empty() ? kNever : items_.front()->deadline; }
  // The item that is due first; not null when next() is not kNever.
  TimerItem* first() const { return items_.empty() ? nullptr : items_.front(); }

 private:
  void Put(TimerItem* item, size_t place) {
    items_[place] = item;
    item->place = place;
  }
  void Swap(size_t a, size_t b) {
    TimerItem* const first = items_[a];
    Put(items_[b], a);
    Put(first, b);
  }
  size_t SiftUp(size_t at) {
    for (size_t parent; at > 0; at = parent) {
      parent = (at - 1) / 2;
      if (items_[parent]->deadline <= items_[at]->deadline) break;
      Swap(at, parent);
    }
    return at;
  }
  void SiftDown(size_t at) {
    for (;;) {
      size_t least = at;
      for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < items_.size(); ++child) {
        if (items_[child]->deadline < items_[least]->deadline) least = child;
      }
      if (least == at) return;
      Swap(at, least);
      at = least;
    }
  }

  std::vector<TimerItem*> items_;
};

}  // namespace sumac::soft_nic
