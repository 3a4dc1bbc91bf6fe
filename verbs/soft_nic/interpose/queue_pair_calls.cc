// Exported calls about queue pairs.

#include "verbs/soft_nic/interpose/dispatch.h"

using namespace sumac::soft_nic;             // NOLINT: C functions live in no namespace
using namespace sumac::soft_nic::interpose;  // NOLINT

SUMAC_VERB("IBVERBS_1.1", ibv_qp*, ibv_create_qp, (ibv_pd * pd, ibv_qp_init_attr* attr), (pd, attr),
           pd->context, CreateQp(pd, attr));
SUMAC_VERB("IBVERBS_1.1", int, ibv_modify_qp, (ibv_qp * qp, ibv_qp_attr* attr, int mask),
           (qp, attr, mask), qp->context, ModifyQp(qp, attr, mask));
SUMAC_VERB("IBVERBS_1.1", int, ibv_query_qp,
           (ibv_qp * qp, ibv_qp_attr* attr, int mask, ibv_qp_init_attr* init_attr),
           (qp, attr, mask, init_attr), qp->context, QueryQp(qp, attr, mask, init_attr));
SUMAC_VERB("IBVERBS_1.1", int, ibv_destroy_qp, (ibv_qp * qp), (qp), qp->context, DestroyQp(qp));
SUMAC_VERB("IBVERBS_1.6", ibv_qp_ex*, ibv_qp_to_qp_ex, (ibv_qp * qp), (qp), qp->context,
           QpToQpEx(qp));
// Whole messages are in memory before their completion; bytes of one WRITE may come in any order.
SUMAC_VERB("IBVERBS_1.14", int, ibv_query_qp_data_in_order,
           (ibv_qp * qp, ibv_wr_opcode opcode, uint32_t flags), (qp, opcode, flags), qp->context,
           0);
SUMAC_VERB("IBVERBS_1.10", int, ibv_query_ece, (ibv_qp * qp, ibv_ece* ece), (qp, ece), qp->context,
           NotSupported());
SUMAC_VERB("IBVERBS_1.10", int, ibv_set_ece, (ibv_qp * qp, ibv_ece* ece), (qp, ece), qp->context,
           NotSupported());
// No multicast.
SUMAC_VERB("IBVERBS_1.1", int, ibv_attach_mcast, (ibv_qp * qp, const ibv_gid* gid, uint16_t lid),
           (qp, gid, lid), qp->context, NotSupported());
SUMAC_VERB("IBVERBS_1.1", int, ibv_detach_mcast, (ibv_qp * qp, const ibv_gid* gid, uint16_t lid),
           (qp, gid, lid), qp->context, NotSupported());
