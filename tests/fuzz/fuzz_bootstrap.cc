// Fuzzes the bootstrap server with lists of calls whose messages are mutated bytes.
//
// Each input gets a server of its own and a job of two ranks that have really joined. Calls carry
// the true session where the input has the placeholder, so mutations get past the door. Promises:
// each call is answered or waits for what was never sent, none ends in UNKNOWN, and the server
// still answers when the input is over.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <string>

#include "tests/fuzz/fuzz_target.h"
#include "transport/bootstrap/server.h"

namespace sumac::fuzz {
namespace {

constexpr std::array kMethods = {"Leave",  "Publish",       "Lookup", "Gather",      "Missing",
                                 "Notify", "ReportFailure", "Join",   "NoSuchMethod"};
constexpr size_t kCallsMax = 8;
constexpr std::chrono::milliseconds kPatience{15};  // for answers that nobody will give
constexpr std::chrono::seconds kMustAnswer{10};     // for answers that must come
constexpr char kSession[] = "\xf5\x5e\x55\x10\x4e\xf5\x5e\x55";  // stands for the true session

// protobuf's wire format, as far as the seeds need it.
std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string Number(int field, uint64_t value) {
  return Varint(static_cast<uint64_t>(field) << 3) + Varint(value);
}
std::string Text(int field, const std::string& text) {
  return Varint(static_cast<uint64_t>(field) << 3 | 2) + Varint(text.size()) + text;
}
std::string Caller(uint64_t rank, const std::string& session) {
  const std::string fixed64 = session.empty() ? "" : Varint(3 << 3 | 1) + session;
  return Text(1, Text(1, "fuzz") + Number(2, rank) + fixed64);
}

class Client {
 public:
  explicit Client(const std::string& address)
      : channel_(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())),
        stub_(channel_) {}

  // Opens a Join stream and returns the session that the first event gives: 8 bytes.
  std::string Join(uint64_t rank) {
    auto& stream = joined_.emplace_back();
    stream.context = std::make_unique<grpc::ClientContext>();
    stream.context->set_deadline(std::chrono::system_clock::now() + kMustAnswer);
    stream.call = stub_.PrepareCall(stream.context.get(), Path("Join"), &queue_);
    stream.call->StartCall(nullptr);
    Await();
    stream.call->Write(Buffer(Caller(rank, "") + Number(2, 2)), nullptr);
    Await();
    grpc::ByteBuffer event;
    stream.call->Read(&event, nullptr);
    SUMAC_FUZZ_CHECK(Await());
    const std::string bytes = Flat(event);
    const size_t at = bytes.find('\x09');  // Accepted.session: field 1, fixed64
    SUMAC_FUZZ_CHECK(at != std::string::npos && at + 9 <= bytes.size());
    return bytes.substr(at + 1, 8);
  }

  grpc::StatusCode Call(const char* method, const std::string& message,
                        std::chrono::milliseconds patience) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + patience);
    auto call = stub_.PrepareUnaryCall(&context, Path(method), Buffer(message), &queue_);
    call->StartCall();
    grpc::ByteBuffer reply;
    grpc::Status status;
    call->Finish(&reply, &status, nullptr);
    Await();
    return status.error_code();
  }

  ~Client() {
    for (Stream& stream : joined_) {
      stream.context->TryCancel();
      grpc::Status status;
      stream.call->Finish(&status, nullptr);
      Await();
    }
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

 private:
  struct Stream {
    std::unique_ptr<grpc::ClientContext> context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  };

  static std::string Path(const std::string& method) {
    return "/sumac.bootstrap.v1.BootstrapService/" + method;
  }
  static grpc::ByteBuffer Buffer(const std::string& bytes) {
    const grpc::Slice slice(bytes);
    return grpc::ByteBuffer(&slice, 1);
  }
  static std::string Flat(const grpc::ByteBuffer& buffer) {
    std::vector<grpc::Slice> slices;
    SUMAC_FUZZ_CHECK(buffer.Dump(&slices).ok());
    std::string bytes;
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    return bytes;
  }
  // One operation at a time: whatever completes is what was started last.
  bool Await() {
    void* tag = nullptr;
    bool ok = false;
    SUMAC_FUZZ_CHECK(
        queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + 2 * kMustAnswer) ==
        grpc::CompletionQueue::GOT_EVENT);
    return ok;
  }

  std::shared_ptr<grpc::Channel> channel_;
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  std::vector<Stream> joined_;
};

// A call in an input: method, two bytes of length, message.
Bytes Encode(uint8_t method, const std::string& message) {
  std::string bytes;
  for (const size_t byte : {size_t{method}, message.size() >> 8, message.size()}) {
    bytes += static_cast<char>(byte);
  }
  bytes += message;
  return Bytes(bytes.begin(), bytes.end());
}

void Replace(std::string& message, const std::string& session) {
  for (size_t at = message.find(kSession); at != std::string::npos;
       at = message.find(kSession, at + session.size())) {
    message.replace(at, session.size(), session);
  }
}

}  // namespace

std::vector<Bytes> Seeds() {
  const std::string me = Caller(0, kSession);
  const std::vector<Bytes> calls = {
      Encode(0, me),
      Encode(1, me + Text(2, "key") + Text(3, "value")),
      Encode(2, me + Text(2, "key")),
      Encode(3, me + Text(2, "tag") + Text(3, "mine")),
      Encode(4, me + Text(2, "tag")),
      Encode(5, me + Number(2, 1) + Text(3, "topic")),
      Encode(6, me + Number(2, 1) + Text(3, "it is silent")),
      Encode(7, Caller(1, "") + Number(2, 2) + Text(3, "host") + Number(4, 77)),
      Encode(8, me),
      Encode(5, me + Number(2, ~uint64_t{0}) + Text(3, std::string(300, 't'))),
      Encode(6, me + Number(2, 1u << 31) + Text(3, "no such rank")),
  };
  std::vector<Bytes> seeds = calls;
  Bytes all;
  for (const size_t i : {1, 2, 3, 4, 5, 10, 9, 6}) {
    all.insert(all.end(), calls[i].begin(), calls[i].end());
  }
  seeds.push_back(all);
  return seeds;
}

}  // namespace sumac::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sumac::fuzz;
  sumac::transport::BootstrapServerOptions options;
  options.job = "fuzz";
  options.size = 2;
  options.value_bytes_max = 256;
  options.keys_max = 4;
  auto server = sumac::transport::BootstrapServer::Start(options);
  SUMAC_FUZZ_CHECK(server.ok());
  Client client((*server)->address());
  const std::string session = client.Join(0);
  const std::string other_session = client.Join(1);

  InputReader in(data, size);
  for (size_t calls = 0; calls < kCallsMax && !in.empty(); ++calls) {
    const char* method = kMethods[in.Byte() % kMethods.size()];
    size_t length = in.Byte();
    length = std::min(length << 8 | in.Byte(), in.left());
    std::string message;
    while (message.size() < length) message += static_cast<char>(in.Byte());
    Replace(message, session);
    SUMAC_FUZZ_CHECK(client.Call(method, message, kPatience) != grpc::StatusCode::UNKNOWN);
  }
  // The other member never called: it is still one, and is served.
  const grpc::StatusCode alive = client.Call("Missing", Caller(1, other_session), kMustAnswer);
  SUMAC_FUZZ_CHECK(alive == grpc::StatusCode::OK);
  return 0;
}
