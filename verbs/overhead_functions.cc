// The data calls through our floor beside the same calls on raw verbs objects: overhead_test.py
// compares their instructions. Both hold their object by a pointer in a structure, as programs do.

#include <infiniband/verbs.h>

#include <span>

#include "verbs/completion_queue.h"
#include "verbs/queue_pair.h"

struct RawQueuePair {
  void* others[7];
  ibv_qp* qp;
};
struct RawCompletionQueue {
  void* others[5];
  ibv_cq* cq;
};

extern "C" {

int raw_post_send(RawQueuePair* raw, ibv_send_wr* request) {
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(raw->qp, request, &bad);
}
int ours_post_send(sumac::verbs::QueuePair* queue_pair, ibv_send_wr* request) {
  return queue_pair->PostSend(*request);
}

int raw_post_receive(RawQueuePair* raw, ibv_recv_wr* request) {
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(raw->qp, request, &bad);
}
int ours_post_receive(sumac::verbs::QueuePair* queue_pair, ibv_recv_wr* request) {
  return queue_pair->PostReceive(*request);
}

int raw_poll(RawCompletionQueue* raw, ibv_wc* out, int count) {
  return ibv_poll_cq(raw->cq, count, out);
}
int ours_poll(sumac::verbs::CompletionQueue* queue, ibv_wc* out, int count) {
  return queue->Poll({out, static_cast<size_t>(count)});
}

int raw_poll_one(RawCompletionQueue* raw, ibv_wc* out) { return ibv_poll_cq(raw->cq, 1, out); }
int ours_poll_one(sumac::verbs::CompletionQueue* queue, ibv_wc* out) {
  return queue->Poll({out, 1});
}
}
