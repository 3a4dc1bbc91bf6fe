// Puts off cancellation of the calling thread (pthread_cancel) for the length of a scope.
//
// Programs cancel threads that wait for completions. System calls are cancellation points, so what
// must not be left half done around one is done in such a scope. A few instructions; any thread.
#pragma once

#include <pthread.h>

namespace sumac::soft_nic {

class ScopedNoCancel {
 public:
  ScopedNoCancel() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~ScopedNoCancel() { pthread_setcancelstate(before_, nullptr); }
  ScopedNoCancel(const ScopedNoCancel&) = delete;
  ScopedNoCancel& operator=(const ScopedNoCancel&) = delete;
  int before() const { return before_; }

 private:
  int before_ = PTHREAD_CANCEL_ENABLE;
};

}  // namespace sumac::soft_nic
