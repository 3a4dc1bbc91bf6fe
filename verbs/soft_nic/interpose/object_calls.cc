// Exported calls about protection domains, memory, completion queues, and address handles.

#include "verbs/soft_nic/interpose/dispatch.h"

using namespace sumac::soft_nic;             // NOLINT: C functions live in no namespace
using namespace sumac::soft_nic::interpose;  // NOLINT

SUMAC_VERB("IBVERBS_1.1", ibv_pd*, ibv_alloc_pd, (ibv_context * context), (context), context,
           AllocPd(context));
SUMAC_VERB("IBVERBS_1.1", int, ibv_dealloc_pd, (ibv_pd * pd), (pd), pd->context, DeallocPd(pd));
SUMAC_VERB("IBVERBS_1.1", ibv_mr*, ibv_reg_mr, (ibv_pd * pd, void* addr, size_t length, int access),
           (pd, addr, length, access), pd->context, RegMr(pd, addr, length, access));
SUMAC_VERB("IBVERBS_1.7", ibv_mr*, ibv_reg_mr_iova,
           (ibv_pd * pd, void* addr, size_t length, uint64_t iova, int access),
           (pd, addr, length, iova, access), pd->context,
           RegMrIova(pd, addr, length, iova, access));
SUMAC_VERB("IBVERBS_1.8", ibv_mr*, ibv_reg_mr_iova2,
           (ibv_pd * pd, void* addr, size_t length, uint64_t iova, unsigned int access),
           (pd, addr, length, iova, access), pd->context,
           RegMrIova(pd, addr, length, iova, static_cast<int>(access)));
SUMAC_VERB("IBVERBS_1.1", int, ibv_rereg_mr,
           (ibv_mr * mr, int flags, ibv_pd* pd, void* addr, size_t length, int access),
           (mr, flags, pd, addr, length, access), mr->context,
           ReregMr(mr, flags, pd, addr, length, access));
SUMAC_VERB("IBVERBS_1.12", ibv_mr*, ibv_reg_dmabuf_mr,
           (ibv_pd * pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access),
           (pd, offset, length, iova, fd, access), pd->context, NoSuchObject<ibv_mr>());
SUMAC_VERB("IBVERBS_1.10", ibv_mr*, ibv_import_mr, (ibv_pd * pd, uint32_t handle), (pd, handle),
           pd->context, NoSuchObject<ibv_mr>());
SUMAC_VERB("IBVERBS_1.1", int, ibv_dereg_mr, (ibv_mr * mr), (mr), mr->context, DeregMr(mr));

SUMAC_VERB("IBVERBS_1.0", ibv_comp_channel*, ibv_create_comp_channel, (ibv_context * context),
           (context), context, CreateCompChannel(context));
SUMAC_VERB("IBVERBS_1.0", int, ibv_destroy_comp_channel, (ibv_comp_channel * channel), (channel),
           channel->context, DestroyCompChannel(channel));
SUMAC_VERB("IBVERBS_1.1", ibv_cq*, ibv_create_cq,
           (ibv_context * context, int cqe, void* cq_context, ibv_comp_channel* channel,
            int comp_vector),
           (context, cqe, cq_context, channel, comp_vector), context,
           CreateCq(context, cqe, cq_context, channel, comp_vector));
SUMAC_VERB("IBVERBS_1.1", int, ibv_resize_cq, (ibv_cq * cq, int cqe), (cq, cqe), cq->context,
           ResizeCq(cq, cqe));
SUMAC_VERB("IBVERBS_1.1", int, ibv_destroy_cq, (ibv_cq * cq), (cq), cq->context, DestroyCq(cq));
SUMAC_VERB("IBVERBS_1.1", int, ibv_get_cq_event,
           (ibv_comp_channel * channel, ibv_cq** cq, void** cq_context), (channel, cq, cq_context),
           channel->context, GetCqEvent(channel, cq, cq_context));
SUMAC_VERB("IBVERBS_1.1", void, ibv_ack_cq_events, (ibv_cq * cq, unsigned int count), (cq, count),
           cq->context, AckCqEvents(cq, count));

SUMAC_VERB("IBVERBS_1.1", ibv_srq*, ibv_create_srq, (ibv_pd * pd, ibv_srq_init_attr* attr),
           (pd, attr), pd->context, CreateSrq(pd, attr));
SUMAC_VERB("IBVERBS_1.1", int, ibv_modify_srq, (ibv_srq * srq, ibv_srq_attr* attr, int mask),
           (srq, attr, mask), srq->context, ModifySrq(srq, attr, mask));
SUMAC_VERB("IBVERBS_1.1", int, ibv_query_srq, (ibv_srq * srq, ibv_srq_attr* attr), (srq, attr),
           srq->context, QuerySrq(srq, attr));
SUMAC_VERB("IBVERBS_1.1", int, ibv_destroy_srq, (ibv_srq * srq), (srq), srq->context,
           DestroySrq(srq));

SUMAC_VERB("IBVERBS_1.1", ibv_ah*, ibv_create_ah, (ibv_pd * pd, ibv_ah_attr* attr), (pd, attr),
           pd->context, CreateAh(pd, attr));
SUMAC_VERB("IBVERBS_1.1", int, ibv_init_ah_from_wc,
           (ibv_context * context, uint8_t port, ibv_wc* wc, ibv_grh* grh, ibv_ah_attr* attr),
           (context, port, wc, grh, attr), context, InitAhFromWc(context, port, wc, grh, attr));
SUMAC_VERB("IBVERBS_1.1", ibv_ah*, ibv_create_ah_from_wc,
           (ibv_pd * pd, ibv_wc* wc, ibv_grh* grh, uint8_t port), (pd, wc, grh, port), pd->context,
           CreateAhFromWc(pd, wc, grh, port));
SUMAC_VERB("IBVERBS_1.1", int, ibv_destroy_ah, (ibv_ah * ah), (ah), ah->context, DestroyAh(ah));
