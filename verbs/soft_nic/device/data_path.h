// The calls that verbs.h makes inline through ibv_context.ops: post, poll, request notification.
//
// Contracts: man 3 ibv_post_send, ibv_post_recv, ibv_post_srq_recv, ibv_poll_cq, ibv_req_notify_cq.
// Any thread. No allocation, and no wait for another thread but the few instructions of a queue's
// spin lock.
#pragma once

#include <infiniband/verbs.h>

namespace sumac::soft_nic {

class SoftQueuePair;

int PostSend(ibv_qp* qp, ibv_send_wr* request, ibv_send_wr** bad);
int PostReceive(ibv_qp* qp, ibv_recv_wr* request, ibv_recv_wr** bad);
int PostSharedReceive(ibv_srq* srq, ibv_recv_wr* request, ibv_recv_wr** bad);
// Makes sure that somebody picks up what was posted to the send queue.
void RingAfterPost(SoftQueuePair& qp);
int PollCompletions(ibv_cq* cq, int count, ibv_wc* out);
int RequestNotification(ibv_cq* cq, int solicited_only);

// Fills the operation tables of a context, so that no entry is null that inline code calls unasked.
void FillOperations(verbs_context* context);

}  // namespace sumac::soft_nic
