#include "verbs/soft_nic/local/shared_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "verbs/soft_nic/local/board_layout.h"

namespace sumac::soft_nic {
namespace {

constexpr size_t kBytes = 64 << 10;

class File {
 public:
  explicit File(int seals) : fd_(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    EXPECT_EQ(ftruncate(fd_.get(), kBytes), 0);
    if (seals != 0) {
      EXPECT_EQ(fcntl(fd_.get(), F_ADD_SEALS, seals), 0);
    }
    data_ = static_cast<std::byte*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0));
  }
  ~File() { munmap(data_, kBytes); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::byte* data() const { return data_; }
  UniqueFd& fd() { return fd_; }

 private:
  UniqueFd fd_;
  std::byte* data_;
};

TEST(SharedFiles, FindsTheFileAndThePage) {
  File file(F_SEAL_SHRINK);
  SharedFiles files;
  const SharedPlace place = files.Find(file.data() + 3 * kFilePageBytes + 100, 5000);
  EXPECT_EQ(place.file, IdentityOfSharedFile(file.fd().get()));
  EXPECT_EQ(place.page, 3u);
  EXPECT_EQ(IdentityOfSharedFile(static_cast<int>(place.fd)), place.file);
  files.Release(place);
  EXPECT_EQ(fcntl(static_cast<int>(place.fd), F_GETFD), -1) << "nobody needs it any more";
}

TEST(SharedFiles, KeepsADescriptorOfItsOwnWhileRegionsAreThere) {
  File file(F_SEAL_SHRINK);
  SharedFiles files;
  const SharedPlace first = files.Find(file.data(), 10);
  const SharedPlace second = files.Find(file.data() + 8192, 10);
  EXPECT_EQ(first.fd, second.fd);
  file.fd().Reset();  // the program closes its own
  files.Release(first);
  EXPECT_EQ(IdentityOfSharedFile(static_cast<int>(second.fd)), second.file);
  const SharedPlace third = files.Find(file.data(), 10);
  EXPECT_EQ(third.file, second.file);
  files.Release(second);
  files.Release(third);
  EXPECT_EQ(files.Find(file.data(), 10).file, 0u) << "no descriptor is left";
}

TEST(SharedFiles, PrivateMemoryHasNone) {
  SharedFiles files;
  std::vector<std::byte> heap(kBytes);
  EXPECT_EQ(files.Find(heap.data(), heap.size()).file, 0u);
  void* anonymous =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  EXPECT_EQ(files.Find(anonymous, kBytes).file, 0u) << "shared, but with no descriptor";
  munmap(anonymous, kBytes);
}

TEST(SharedFiles, WhatMayShrinkIsNotShared) {
  File file(0);
  SharedFiles files;
  EXPECT_EQ(files.Find(file.data(), kBytes).file, 0u);
}

TEST(SharedFiles, ARangeInSeveralFilesIsInNone) {
  File file(F_SEAL_SHRINK), other(F_SEAL_SHRINK);
  SharedFiles files;
  void* const at = mmap(file.data() + 8192, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                        other.fd().get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  EXPECT_EQ(files.Find(file.data(), kBytes).file, 0u);
  EXPECT_NE(files.Find(file.data(), 8192).file, 0u);
  // The same file, but not one behind the other.
  ASSERT_NE(mmap(file.data() + 8192, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                 file.fd().get(), 0),
            MAP_FAILED);
  EXPECT_EQ(files.Find(file.data(), kBytes).file, 0u);
}

}  // namespace
}  // namespace sumac::soft_nic
