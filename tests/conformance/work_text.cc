#include "tests/conformance/work_text.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <sstream>
#include <utility>

namespace sumac::conformance {
namespace {

constexpr std::array<std::pair<const char*, ibv_wc_status>, 12> kStatuses = {
    {{"ok", IBV_WC_SUCCESS},
     {"flushed", IBV_WC_WR_FLUSH_ERR},
     {"retry_exceeded", IBV_WC_RETRY_EXC_ERR},
     {"rnr_retry_exceeded", IBV_WC_RNR_RETRY_EXC_ERR},
     {"remote_access_error", IBV_WC_REM_ACCESS_ERR},
     {"remote_invalid_request", IBV_WC_REM_INV_REQ_ERR},
     {"remote_operation_error", IBV_WC_REM_OP_ERR},
     {"local_length_error", IBV_WC_LOC_LEN_ERR},
     {"local_protection_error", IBV_WC_LOC_PROT_ERR},
     {"local_operation_error", IBV_WC_LOC_QP_OP_ERR},
     {"bad_response", IBV_WC_BAD_RESP_ERR},
     {"invalid_rd_request", IBV_WC_REM_INV_RD_REQ_ERR}}};

std::string NameOfStatus(ibv_wc_status status) {
  for (const auto& [name, each] : kStatuses) {
    if (status == each) return name;
  }
  return "status " + std::to_string(status);
}

struct Work {
  ibv_wr_opcode posted;
  ibv_wc_opcode completed;
};
const std::map<std::string, Work>& Works() {
  static const std::map<std::string, Work> works = {
      {"SEND", {IBV_WR_SEND, IBV_WC_SEND}},
      {"SEND_IMM", {IBV_WR_SEND_WITH_IMM, IBV_WC_SEND}},
      {"SEND_INV", {IBV_WR_SEND_WITH_INV, IBV_WC_SEND}},
      {"WRITE", {IBV_WR_RDMA_WRITE, IBV_WC_RDMA_WRITE}},
      {"WRITE_IMM", {IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WC_RDMA_WRITE}},
      {"READ", {IBV_WR_RDMA_READ, IBV_WC_RDMA_READ}},
      {"CMP_SWAP", {IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WC_COMP_SWAP}},
      {"FETCH_ADD", {IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WC_FETCH_ADD}},
  };
  return works;
}

}  // namespace

int ParseErrno(const std::string& word) {
  if (word == "EINVAL") return EINVAL;
  if (word == "ENOMEM") return ENOMEM;
  throw ScriptError("'" + word + "' is no error of a post (EINVAL, ENOMEM)");
}

ibv_wc_status ParseStatus(const std::string& word) {
  const auto* known = std::find_if(kStatuses.begin(), kStatuses.end(),
                                   [&word](const auto& each) { return word == each.first; });
  if (known == kStatuses.end()) throw ScriptError("'" + word + "' is no status");
  return known->second;
}

PostedWork TakeSendWork(const std::string& kind, uint64_t id, Key key, Words* words) {
  const auto known = Works().find(kind);
  if (known == Works().end()) throw ScriptError("nothing called '" + kind + "' can be posted");
  SendWork work;
  work.id = id;
  work.opcode = known->second.posted;
  work.local_key = key;
  // Where a READ's or atomic's answer goes reads better as "into".
  for (const char* word : {"from", "into"}) {
    if (const auto ranges = words->Value(word)) work.from = ParseRanges(*ranges);
  }
  work.remote_addr = words->Number("at").value_or(0);
  work.rkey = static_cast<uint32_t>(words->Number("key").value_or(0x77));
  work.immediate = static_cast<uint32_t>(words->Number("imm").value_or(0));
  if (const auto inv = words->Number("invalidate")) work.immediate = static_cast<uint32_t>(*inv);
  work.swap = words->Number("swap").value_or(0);
  work.compare_add = words->Number("compare").value_or(words->Number("add").value_or(0));
  work.remote_qpn = static_cast<uint32_t>(words->Number("to").value_or(kPeerQpn));
  work.remote_qkey = static_cast<uint32_t>(words->Number("qkey").value_or(kQkey));
  if (!words->Flag("unsignaled")) work.flags |= IBV_SEND_SIGNALED;
  if (words->Flag("fenced")) work.flags |= IBV_SEND_FENCE;
  if (words->Flag("solicited")) work.flags |= IBV_SEND_SOLICITED;
  if (words->Flag("inline")) work.flags |= IBV_SEND_INLINE;
  words->Finish();
  return {work, known->second.completed};
}

std::string Describe(const Completion& completion) {
  const ibv_wc& wc = completion.wc;
  std::ostringstream text;
  text << wc.wr_id << " " << NameOfStatus(wc.status);
  if (wc.status != IBV_WC_SUCCESS) return text.str();
  text << " bytes " << wc.byte_len;
  if ((wc.wc_flags & IBV_WC_WITH_IMM) != 0) text << " imm 0x" << std::hex << ntohl(wc.imm_data);
  if ((wc.wc_flags & IBV_WC_WITH_INV) != 0) {
    text << " invalidated 0x" << std::hex << wc.invalidated_rkey;
  }
  if (wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM) text << " written";
  if (completion.solicited.value_or(false)) text << " solicited";
  return text.str();
}

}  // namespace sumac::conformance
