// Replaces src/runtime/file_utils.cc, which needs std::fstream: a page has no file system, and zig's libc++ for wasm no
// fstream. Reading or writing a file is an error here; libraries and weights arrive as bytes from JavaScript.
#include "file_utils.h"

#include <tvm/ffi/error.h>

#include <string>

namespace tvm {
namespace runtime {

void LoadBinaryFromFile(const std::string& file_name, std::string*) {
  TVM_FFI_THROW(RuntimeError) << "cannot read " << file_name << ": the wasm runtime has no file system";
}

void SaveBinaryToFile(const std::string& file_name, const std::string&) {
  TVM_FFI_THROW(RuntimeError) << "cannot write " << file_name << ": the wasm runtime has no file system";
}

}  // namespace runtime
}  // namespace tvm
