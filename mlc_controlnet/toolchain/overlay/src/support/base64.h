// Replaces src/support/base64.h, which the apache-tvm wheel does not carry.
// Only tensors inside a JSON object graph use it (save_json, load_json); a bundle's tensors are binary, so asking for it
// is an error.
#ifndef TVM_SUPPORT_BASE64_H_
#define TVM_SUPPORT_BASE64_H_

#include <tvm/ffi/error.h>
#include <tvm/support/io.h>

namespace tvm {
namespace support {

class Base64Stream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;

  explicit Base64Stream(Stream*) { TVM_FFI_THROW(RuntimeError) << "tensors in JSON are left out of the wasm runtime"; }

  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void*, size_t) final { return 0; }
  void InitPosition() {}
  void Finish() {}
};

using Base64InStream = Base64Stream;
using Base64OutStream = Base64Stream;

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_BASE64_H_
