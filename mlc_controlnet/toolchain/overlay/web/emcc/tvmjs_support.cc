// Replaces web/emcc/tvmjs_support.cc, most of which is an RPC session; what tvmjs itself calls is these four functions.
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/error.h>

#include <cstdint>
#include <string>

extern "C" {

// tvmjs provides these two in its "env" imports.
__attribute__((import_module("env"), import_name("TVMFFIWasmSafeCall"))) int TVMFFIWasmSafeCall(
    void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result);
__attribute__((import_module("env"), import_name("TVMFFIWasmFunctionDeleter"))) void TVMFFIWasmFunctionDeleter(
    void* self);

// `size` bytes aligned to 8, for JavaScript to put arguments in.
void* TVMWasmAllocSpace(int size) { return new int64_t[(static_cast<uint32_t>(size) + 7) / 8]; }

void TVMWasmFreeSpace(void* space) { delete[] static_cast<int64_t*>(space); }

// A TVM function that calls JavaScript's function number `self`. Returns 0, or -1 with the error raised.
int TVMFFIWasmFunctionCreate(void* self, TVMFFIObjectHandle* out) {
  return TVMFFIFunctionCreate(self, TVMFFIWasmSafeCall, TVMFFIWasmFunctionDeleter, out);
}

// The message of the error that the last call returned with -1. Valid until the next call of this function.
const char* TVMFFIWasmGetLastError() {
  static std::string last_error;
  last_error = tvm::ffi::details::MoveFromSafeCallRaised().what();
  return last_error.c_str();
}

}  // extern "C"
