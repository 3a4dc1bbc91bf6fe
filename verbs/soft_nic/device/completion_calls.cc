// Completion queues, channels and their events.

#include <fcntl.h>

#include <cerrno>
#include <new>

#include "verbs/soft_nic/device/completion_queue.h"
#include "verbs/soft_nic/device/control_path.h"
#include "verbs/soft_nic/device/limits.h"
#include "verbs/soft_nic/device/protection_domain.h"
#include "verbs/soft_nic/device/soft_context.h"

namespace sumac::soft_nic {

ibv_comp_channel* CreateCompChannel(ibv_context* context) {
  SoftChannel* channel = SoftChannel::Create(context);
  if (channel != nullptr) SoftContext::Of(context).Retain();
  return channel;
}

int DestroyCompChannel(ibv_comp_channel* channel) {
  pthread_mutex_lock(&channel->context->mutex);
  const bool used = channel->refcnt != 0;
  pthread_mutex_unlock(&channel->context->mutex);
  if (used) return EBUSY;
  SoftContext& context = SoftContext::Of(channel->context);
  delete static_cast<SoftChannel*>(channel);
  context.Release();
  return 0;
}

ibv_cq* CreateCq(ibv_context* context, int cqe, void* cq_context, ibv_comp_channel* channel,
                 int comp_vector) {
  if (cqe <= 0 || static_cast<uint32_t>(cqe) > kCompletionsMax || comp_vector != 0) {
    errno = EINVAL;
    return nullptr;
  }
  SoftContext& soft = SoftContext::Of(context);
  if (++soft.completion_queues > kCompletionQueuesMax) {
    --soft.completion_queues;
    errno = ENOMEM;
    return nullptr;
  }
  auto* cq = OrNoMemory([&] {
    return new SoftCompletionQueue(context, cqe, cq_context, static_cast<SoftChannel*>(channel),
                                   soft.scheduler().overrun_flag());
  });
  if (cq == nullptr) {
    --soft.completion_queues;
    return nullptr;
  }
  soft.Retain();
  if (channel != nullptr) {
    pthread_mutex_lock(&context->mutex);
    ++channel->refcnt;
    pthread_mutex_unlock(&context->mutex);
  }
  return cq;
}

int ResizeCq(ibv_cq* cq, int cqe) {
  if (cqe <= 0 || static_cast<uint32_t>(cqe) > kCompletionsMax) return EINVAL;
  auto& soft = *static_cast<SoftCompletionQueue*>(cq);
  return SoftContext::Of(cq->context).progress().Exclusive([&] {
    try {
      return soft.Resize(cqe) ? 0 : EINVAL;
    } catch (const std::bad_alloc&) {
      return ENOMEM;
    }
  });
}

int DestroyCq(ibv_cq* cq) {
  auto* soft = static_cast<SoftCompletionQueue*>(cq);
  SoftContext& context = SoftContext::Of(cq->context);
  if (context.progress().Exclusive([&] { return soft->users != 0; })) return EBUSY;
  if (SoftChannel* channel = soft->soft_channel()) {
    channel->Forget(soft);
    // Events that were handed out must be acknowledged first (man 3 ibv_get_cq_event).
    pthread_mutex_lock(&cq->mutex);
    while (cq->comp_events_completed != soft->comp_events_taken) {
      pthread_cond_wait(&cq->cond, &cq->mutex);
    }
    pthread_mutex_unlock(&cq->mutex);
    pthread_mutex_lock(&cq->context->mutex);
    --channel->refcnt;
    pthread_mutex_unlock(&cq->context->mutex);
  }
  context.async_events().Retire(*soft);
  --context.completion_queues;
  if (soft->parent_domain != nullptr) RemoveObject(soft->parent_domain);
  delete soft;
  context.Release();
  return 0;
}

int WaitCqEvent(ibv_comp_channel* channel, int timeout_ms) {
  auto* soft = static_cast<SoftChannel*>(channel);
  Progress& progress = SoftContext::Of(channel->context).progress();
  return progress.Wait(channel->fd, timeout_ms, [soft] { return soft->has_event(); }) ? 1 : 0;
}

int GetCqEvent(ibv_comp_channel* channel, ibv_cq** cq, void** cq_context) {
  auto* soft = static_cast<SoftChannel*>(channel);
  SoftCompletionQueue* queue = soft->Take();
  while (queue == nullptr) {
    if ((fcntl(channel->fd, F_GETFL) & O_NONBLOCK) != 0) {
      errno = EAGAIN;
      return -1;
    }
    // Without a limit, as the call promises; the bounded one is WaitCqEvent.
    WaitCqEvent(channel, -1);
    queue = soft->Take();
  }
  *cq = queue;
  *cq_context = queue->cq_context;
  return 0;
}

void AckCqEvents(ibv_cq* cq, unsigned int count) {
  pthread_mutex_lock(&cq->mutex);
  cq->comp_events_completed += count;
  pthread_cond_signal(&cq->cond);
  pthread_mutex_unlock(&cq->mutex);
}

}  // namespace sumac::soft_nic
