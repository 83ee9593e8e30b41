// Replaces src/support/bytes_io.h, which the apache-tvm wheel does not carry.
// Streams over bytes in memory.
#ifndef TVM_SUPPORT_BYTES_IO_H_
#define TVM_SUPPORT_BYTES_IO_H_

#include <tvm/ffi/string.h>
#include <tvm/support/io.h>
#include <tvm/support/serializer.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace tvm {
namespace support {

// Reads bytes that the caller keeps alive.
class BytesInStream final : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;

  explicit BytesInStream(const ffi::Bytes& bytes) : next_(bytes.data()), left_(bytes.size()) {}
  explicit BytesInStream(const std::string& bytes) : next_(bytes.data()), left_(bytes.size()) {}

  size_t Read(void* to, size_t size) final {
    const size_t moved = std::min(size, left_);
    if (moved != 0) std::memcpy(to, next_, moved);
    next_ += moved;
    left_ -= moved;
    return moved;
  }
  size_t Write(const void*, size_t) final { return 0; }

 private:
  const char* next_;
  size_t left_;
};

// Appends to a string that the caller keeps alive.
class BytesOutStream final : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;

  explicit BytesOutStream(std::string* bytes) : bytes_(bytes) {}

  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void* from, size_t size) final {
    bytes_->append(static_cast<const char*>(from), size);
    return size;
  }

 private:
  std::string* bytes_;
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_BYTES_IO_H_
